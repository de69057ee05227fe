"""Warm start: parameters of a new run that come from another run."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from jax.sharding import NamedSharding, PartitionSpec

from recjax import config as configs
from recjax.config import RunConfig
from recjax.files import replacing
from recjax.nn.groups import path_name
from recjax.parallel.processes import barrier
from recjax.tokenizers.item_codes import CODES as CODES_FILE
from recjax.tokenizers.item_codes import DESCRIPTION, TOKENIZER
from recjax.train import own_items
from recjax.train.catalogs import CODES, ITEMS
from recjax.train.folder.checkpoint import Checkpoints, Record
from recjax.train.folder.run_folder import CHECKPOINTS
from recjax.train.run import read_record
from recjax.train.state import TakenRows
from recjax.train.task import Task
from recjax.typing import InputError, Params

SHOWN = 3
"""Arrays that an error names."""


@dataclass(frozen=True)
class StartingPoint:
    """A checkpoint of another run.

    Attributes:
        run_dir: folder of that run.
        take: patterns of the parameters that are taken over.
        step: of its best checkpoint, or the latest where nothing was validated.
        record: what was saved beside the arrays of its latest checkpoint.
    """

    run_dir: Path
    take: tuple[str, ...]
    step: int
    record: Record

    def adopt_features(self, config: RunConfig, run_dir: Path) -> None:
        """Copies what the run's tokenizer and its features have learned to the folder of the new run, which uses it."""
        copied = [(CODES, name) for name in (CODES_FILE, DESCRIPTION, TOKENIZER)]
        copied = copied if (self.run_dir / CODES / TOKENIZER).is_file() else []
        copied += [(ITEMS, f"{name}.safetensors") for name in config.items]
        for folder, name in copied:
            if (self.run_dir / folder / name).is_file() and jax.process_index() == 0:
                (run_dir / folder).mkdir(parents=True, exist_ok=True)
                with replacing(run_dir / folder / name) as new:
                    shutil.copyfile(self.run_dir / folder / name, new)
        barrier("features adopted")

    def params(self, target: Params, own: Sequence[str] = (), known: "KnownItems | None" = None) -> Params:
        """The run's parameters (their average where it kept one), laid out as `target`, which has their shapes.

        What is not taken over is None in the result, and what is taken over by rows is `TakenRows`.

        Args:
            target: abstract parameters of the new run.
            own: names at the top of the tree that the run may lack.
            known: the items that both runs have, where their catalogs differ.

        Raises:
            InputError: an array to take is of another shape, or only in one of the two (names the first ones); or a
                pattern without a match.
        """
        averaged = self.record["config"]["train"]["ema"] is not None
        with Checkpoints(self.run_dir / CHECKPOINTS, writes=False) as checkpoints:
            theirs = checkpoints.shapes(self.step, averaged)
            there = {name.partition("/")[0] for name in theirs}
            for pattern in self.take:
                if not any(re.search(pattern, name) for name in theirs):
                    raise InputError(f"train.take has {pattern!r}, which matches no parameter of {self.run_dir}")
            theirs = {name: shape for name, shape in theirs.items() if self._takes(name)}

            def wanted(path: Any, leaf: Any) -> Any:
                name = path_name(path)
                absent = (top := name.partition("/")[0]) in own and top not in there
                return leaf if self._takes(name) and not absent else None

            target = jax.tree.map_with_path(wanted, target)
            sizes = {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(target)}
            if known is not None:
                target = jax.tree.map_with_path(partial(_with_rows_of, theirs, known.names), target)
            ours = {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(target)}
            names = list(ours) + [name for name in theirs if name not in ours]
            wrong = [name for name in names if ours.get(name) != theirs.get(name)]
            if wrong:
                shown = "; ".join(
                    f"{name} {_shape(theirs.get(name))} there, {_shape(ours.get(name))} here" for name in wrong[:SHOWN]
                )
                raise InputError(
                    f"cannot start from {self.run_dir}: {len(wrong)} of {len(names)} arrays are not as the model wants "
                    f"them: {shown}"
                )
            found = checkpoints.restore_params(self.step, target, averaged)

        def by_rows(path: Any, leaf: Any) -> Any:
            name = path_name(path)
            if known is None or name not in known.names:
                return leaf
            return TakenRows(leaf, known.places(sizes[name][0], leaf.shape[0]))  # pyright: ignore[reportArgumentType]

        return jax.tree.map_with_path(by_rows, found)

    def _takes(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.take)

    def known_items(self, config: RunConfig, task: Task) -> "KnownItems | None":
        """The items that the run has in common with a new one; None where parameters do not depend on which they are.

        Args:
            config: of the new run.
            task: of the new run.

        Raises:
            InputError: a model of item ids would take those of another catalog for its own, and cannot be told which
                of them are which.
        """
        held, model = self.record["dataset"], task.model
        with Checkpoints(self.run_dir / CHECKPOINTS, writes=False) as checkpoints:
            theirs = checkpoints.shapes(self.step, self.record["config"]["train"]["ema"] is not None)
        taken = {path.partition("/")[0] for path in theirs if self._takes(path)}
        names = tuple(name for name in model.item_rows if name in taken)
        by_id = bool(names) or not (model.item_rows or config.text) or not taken.isdisjoint(model.per_item)
        if not by_id or held["fingerprint"] == task.fingerprint:
            return None
        old, why = own_items.read_table(self.run_dir), "only a model of texts can be carried to another dataset"
        if names and old is None:
            why = "the folder of that run, which an earlier version made, does not say which items it had"
        if not names or old is None or task.catalog is None:
            raise InputError(
                f"{self.run_dir} was trained on dataset {held['name']!r} with fingerprint {held['fingerprint']}, but "
                f"{task.dataset!r} has fingerprint {task.fingerprint}, and the model knows items by their ids: {why}"
            )
        return KnownItems(names, task.catalog, old).checked(self.run_dir, task.dataset)


@dataclass(frozen=True, eq=False)
class KnownItems:
    """Items of a new run that the run it starts from knows, by their raw ids.

    Attributes:
        names: parameters with a row for each item.
        new: `item_id` and `title` of the new run's items; row i is item i + 1.
        old: those of the other run.
    """

    names: tuple[str, ...]
    new: pl.DataFrame
    old: pl.DataFrame

    @cached_property
    def common(self) -> pl.DataFrame:
        """The items that both have, with both their titles."""
        return self.new.join(self.old, on="item_id", how="inner", suffix="_old")

    def checked(self, run_dir: Path, dataset: str) -> "KnownItems":
        """The same; InputError where the ids do not mean the same items in both."""
        titled = self.common.filter(pl.col("title").is_not_null() & pl.col("title_old").is_not_null())
        other = titled.filter(pl.col("title") != pl.col("title_old"))
        if not self.common.height:
            ids = f"there {self.old['item_id'][0]!r}, in the dataset {self.new['item_id'][0]!r}"
            raise InputError(
                f"{run_dir} and dataset {dataset!r} have no item in common (the first is {ids}), and the model knows "
                "items by their ids: it has nothing to start from"
            )
        if 2 * other.height > titled.height:
            item, ours, theirs = other.select("item_id", "title", "title_old").row(0)
            raise InputError(
                f"{run_dir} and dataset {dataset!r} have the same ids for different items: of {titled.height:,} "
                f"{other.height:,} have another title (item {item!r} is {theirs!r} there and {ours!r} here), and the "
                "model knows items by their ids"
            )
        return self

    def places(self, rows: int, old_rows: int) -> np.ndarray:
        """Rows of a table of the other run that the rows of one of the new run continue: int32 [rows], -1 for none.

        Args:
            rows: of the new table: padding, items, special tokens, and rows that nothing reads.
            old_rows: of the older one.
        """
        numbers = self.old.select("item_id").with_row_index("number", 1)
        found = self.new.select("item_id").join(numbers, on="item_id", how="left", maintain_order="left")["number"]
        items = found.cast(pl.Int64).fill_null(-1).to_numpy()
        behind = 1 + self.old.height + np.arange(rows - 1 - len(items))
        return np.concatenate([[0], items, np.where(behind < old_rows, behind, -1)]).astype(np.int32)

    def line(self) -> str:
        """The counts, in words."""
        both = self.common.height
        fresh, gone = self.new.height - both, self.old.height - both
        words = f"{both:,} of {self.new.height:,} items are known there by their ids and go on from their rows"
        words += f"; {fresh:,} new ones start afresh" if fresh else ""
        return words + (f"; {gone:,} of its items are no longer in the dataset" if gone else "")


def _with_rows_of(theirs: Mapping[str, tuple[int, ...]], names: Sequence[str], path: Any, leaf: Any) -> Any:
    """An abstract parameter with as many rows as another run's, where it has a row for each item."""
    name = path_name(path)
    if name not in names or name not in theirs:
        return leaf
    shape, sharding = (theirs[name][0], *leaf.shape[1:]), leaf.sharding
    try:
        sharding.shard_shape(shape)
    except ValueError:  # so many rows cannot be divided over the devices: all have all
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)


def starting_point(config: RunConfig, run_dir: Path, source: Path | None) -> StartingPoint | None:
    """The run to start from; None where there is none, or the folder has a checkpoint to resume from.

    Args:
        config: of the new run.
        run_dir: folder of the new run.
        source: folder of the run to start from, or None.

    Raises:
        InputError: there is no such run, it has no checkpoint, or its items are read in another way.
    """
    if source is None or has_checkpoint(run_dir):
        return None
    try:
        latest, record = read_record(source)
    except InputError as error:
        raise InputError(f"train.start_from: {error}") from None
    theirs, ours = record["config"], configs.to_json(config)
    parts = {part: (theirs[part], ours[part]) for part in ("text", "tokenizer")}
    had = theirs.get("items", {})
    parts |= {f"items.{name}": (had[name], ours["items"][name]) for name in config.items if name in had}
    for part, trees in parts.items():
        held, wanted = map(_readable, trees)
        if held != wanted:
            raise InputError(
                f"cannot start from {source}: its `{part}` is {held}, but this run's is {wanted}, so its parameters "
                "would read items in another way than they learned to"
            )
    return StartingPoint(source, config.train.take, record["progress"]["best_step"] or latest, record)


def has_checkpoint(run_dir: Path) -> bool:
    """True if the folder has a checkpoint to resume from."""
    if not (run_dir / CHECKPOINTS).is_dir():
        return False
    with Checkpoints(run_dir / CHECKPOINTS, writes=False) as checkpoints:
        return checkpoints.latest is not None


def _readable(tree: Any) -> Any:
    """Settings without templates: catalogs have texts in different columns, and their vectors mean the same."""
    if isinstance(tree, Mapping):
        return {name: _readable(entry) for name, entry in tree.items() if name != "template"}
    return [_readable(entry) for entry in tree] if isinstance(tree, list | tuple) else tree


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(shape)
