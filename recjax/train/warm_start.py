"""Warm start: parameters of a new run that come from another run."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from recjax import config as configs
from recjax.config import RunConfig
from recjax.files import replacing
from recjax.nn.groups import path_name
from recjax.parallel.processes import barrier
from recjax.tokenizers.item_codes import CODES as CODES_FILE
from recjax.tokenizers.item_codes import DESCRIPTION, TOKENIZER
from recjax.train.catalogs import CODES
from recjax.train.folder.checkpoint import Checkpoints, Record
from recjax.train.folder.run_folder import CHECKPOINTS
from recjax.train.run import read_record
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

    def adopt_tokenizer(self, run_dir: Path) -> None:
        """Copies the run's tokenizer, if it has one, to the folder of the new run, which then uses it."""
        theirs, ours = self.run_dir / CODES, run_dir / CODES
        if (theirs / TOKENIZER).is_file() and jax.process_index() == 0:
            ours.mkdir(parents=True, exist_ok=True)
            for name in (CODES_FILE, DESCRIPTION, TOKENIZER):
                with replacing(ours / name) as new:
                    shutil.copyfile(theirs / name, new)
        barrier("tokenizer adopted")

    def params(self, target: Params, own: Sequence[str] = ()) -> Params:
        """The run's parameters (their average where it kept one), laid out as `target`, which has their shapes.

        What is not taken over is None in the result.

        Args:
            target: abstract parameters of the new run.
            own: names at the top of the tree that the run may lack.

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
            return checkpoints.restore_params(self.step, target, averaged)

    def _takes(self, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.take)

    def check_dataset(self, config: RunConfig, name: str, fingerprint: str, own: Sequence[str] = ()) -> None:
        """Raises InputError where a model of item ids would take those of another dataset for its own.

        Args:
            config: of the new run.
            name: of its dataset.
            fingerprint: of its dataset.
            own: parameters of the model that know a catalog's items.
        """
        held = self.record["dataset"]
        with Checkpoints(self.run_dir / CHECKPOINTS, writes=False) as checkpoints:
            theirs = checkpoints.shapes(self.step, self.record["config"]["train"]["ema"] is not None)
        by_id = config.text is None or any(path.partition("/")[0] in own for path in theirs)
        if by_id and held["fingerprint"] != fingerprint:
            raise InputError(
                f"{self.run_dir} was trained on dataset {held['name']!r} with fingerprint {held['fingerprint']}, but "
                f"{name!r} has fingerprint {fingerprint}, and the model knows items by their ids: only a model of "
                "texts can be carried to another dataset"
            )


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
    for part in ("text", "tokenizer"):
        held, wanted = (_readable(tree) for tree in (record["config"][part], configs.to_json(getattr(config, part))))
        if held != wanted:
            raise InputError(
                f"cannot start from {source}: its `{part}` is {held}, but this run's is {wanted}, so its parameters "
                "would read items in another way than they learned to"
            )
    return StartingPoint(source, config.train.take, record["progress"]["best_step"] or latest, record)


def has_checkpoint(run_dir: Path) -> bool:
    """Whether the folder has a checkpoint to resume from."""
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
