"""Features of a run's catalogs: texts to vectors to codes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recjax import array_files
from recjax.config import RunConfig, to_json
from recjax.data.dataset import Dataset
from recjax.data.features.feature import Feature, Source
from recjax.data.features.feature import State as FeatureState
from recjax.data.items import CODES as COLUMN
from recjax.data.items import Items, Relation, bare_items, joined, on_devices, text_items
from recjax.data.splits import Split
from recjax.data.store.locate import cache_folder
from recjax.text.array_cache import cached
from recjax.text.space import Channel, SpaceVectors, TextSpace, density
from recjax.tokenizers.item_codes import TOKENIZER, State, load_state
from recjax.tokenizers.tokenizer import Tokenized, tokenize
from recjax.train.folder.run_folder import CHECKPOINTS
from recjax.typing import InputError

CODES = "codes"
"""Folder of a run that holds its tokenizer and the codes of its catalogs."""

ITEMS = "items"
"""Folder of a run that holds what its features learned."""


@dataclass(frozen=True, eq=False)
class Catalogs:
    """The joined items of some catalogs.

    Attributes:
        items: on the devices of the current mesh; `start` and `size` are those of the first catalog.
        starts: row before the first item of each catalog.
        sizes: vocabulary size of each slot of the columns that hold numbers of entries, by name.
        relations: linked items, int32 [items + 1, k] by name on the host, of each catalog: for views that draw from
            them.
        parts: items of each catalog alone, on the host.
    """

    items: Items
    starts: tuple[int, ...]
    sizes: dict[str, tuple[int, ...]]
    relations: tuple[dict[str, np.ndarray], ...]
    parts: tuple[Items, ...]


def text_space(config: RunConfig) -> TextSpace | None:
    """The space in which a run compares texts; a bare encoder is a space of one channel."""
    if config.text is None:
        return None
    return config.text if isinstance(config.text, TextSpace) else TextSpace((Channel(config.text),))


def space_vectors(config: RunConfig, dataset: Dataset) -> SpaceVectors | None:
    """Vectors of a catalog's items, kept in the cache; None for a run that reads no text."""
    space = text_space(config)
    if space is None:
        return None
    found = space.vectors(dataset.catalog, _cache(), progress=jax.process_index() == 0)
    if not found.known.any():
        raise InputError(f"no item of dataset {dataset.name!r} has a text, so a model that reads texts cannot rank it")
    return found


def _cache() -> Path:
    return cache_folder() / "vectors"


def open_catalogs(config: RunConfig, opened: Sequence[tuple[Dataset, Split]], run_dir: Path | None) -> Catalogs | None:
    """The features of catalogs, or None where the recipe has none.

    What a feature or a tokenizer learns is read from the run's folder; where it is not there yet, it is fitted on all
    of these catalogs and saved there.

    Args:
        config: of the run.
        opened: catalogs, each with its split: relations count its training events.
        run_dir: the run's folder, or None to save nothing.
    """
    if config.text is None and config.tokenizer is not None:
        raise InputError("the recipe has a `tokenizer` but no `text` to make vectors of")
    if config.text is None and not config.items:
        return None
    datasets = [dataset for dataset, _ in opened]
    parts, sizes = [bare_items(dataset.n_items) for dataset in datasets], {}
    if config.text is not None:
        parts, sizes = _text_parts(config, datasets, run_dir)
    counted: list[dict[str, Any]] = [{} for _ in opened]
    for name, feature in config.items.items():
        catalogs = zip(opened, parts, counted, strict=True)
        sources = [Source(dataset, split.train, part, counts) for (dataset, split), part, counts in catalogs]
        state = _state(config, name, feature, sources, run_dir)
        parts = [source.items.adding({name: _made(feature, source, state)}) for source in sources]
        if found := feature.sizes(state):
            sizes[name] = found
    items, starts = joined(parts)
    relations = tuple({name: np.asarray(x.ids) for name, x in part.relations.items()} for part in parts)
    return Catalogs(on_devices(items), tuple(starts.tolist()), sizes, relations, tuple(parts))


def keep_features(config: RunConfig, dataset: Dataset, split: Split, ready: dict[str, np.ndarray | Relation]) -> None:
    """Puts features into the cache that were made by other means than here; the others are made on the way.

    Args:
        config: of the run; its features learn nothing.
        dataset: their catalog.
        split: its training events are those that relations count.
        ready: what was made, by the feature's name.
    """
    items = bare_items(dataset.n_items)
    for name, feature in config.items.items():
        items = items.adding({name: _made(feature, Source(dataset, split.train, items), {}, ready.get(name))})


def _text_parts(
    config: RunConfig, datasets: Sequence[Dataset], run_dir: Path | None
) -> tuple[list[Items], dict[str, tuple[int, ...]]]:
    """Items of each catalog with the columns made of texts, on the host, and the vocabulary sizes of codes."""
    spaces = [found for dataset in datasets if (found := space_vectors(config, dataset)) is not None]
    codes: list[np.ndarray | None] = [None] * len(spaces)
    sizes: dict[str, tuple[int, ...]] = {}
    if config.tokenizer is not None:
        state = tokenizer_state(config, spaces, run_dir)
        found = [codes_of(config, space, state) for space in spaces]
        codes, sizes = [tokenized.codes.codes for tokenized in found], {COLUMN: found[0].codes.sizes}
        if len({tokenized.codes.sizes for tokenized in found}) > 1:
            raise InputError(
                f"collision policy {config.tokenizer.collisions!r} gives catalogs slots of different sizes; "
                "several catalogs share a model under the other policies"
            )
        if run_dir is not None and jax.process_index() == 0:
            for dataset, tokenized in zip(datasets, found, strict=True):
                tokenized.save(run_dir / CODES / dataset.name)
    parts = [
        text_items(space.vectors, space.known, code, density(space.vectors, space.known, _cache()))
        for space, code in zip(spaces, codes, strict=True)
    ]
    return parts, sizes


def _state(
    config: RunConfig, name: str, feature: Feature, sources: Sequence[Source], run_dir: Path | None
) -> FeatureState:
    """State of a feature: from the run's folder, or fitted on these catalogs and saved there."""
    if not isinstance(feature, Feature):
        raise InputError(f"items.{name} is {type(feature).__name__}, expected a feature of items")
    path = None if run_dir is None else run_dir / ITEMS / f"{name}.safetensors"
    if path is not None and path.is_file():
        return array_files.read(path).arrays
    if run_dir is not None and any((run_dir / CHECKPOINTS).glob("[0-9]*")) and (run_dir / ITEMS).is_dir():
        raise InputError(
            f"{path} is missing, and the checkpoints of the run were trained with this feature: bring it back from a "
            "copy of the folder"
        )
    state = feature.fit(sources, config.seed)
    if path is not None and jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        array_files.write(path, state)
    return state


def _made(
    feature: Feature, source: Source, state: FeatureState, ready: np.ndarray | Relation | None = None
) -> np.ndarray | Relation:
    """A feature of a catalog, cached by all that it is made of; `ready` where it was made by other means."""
    read = {
        column: np.asarray(source.items.columns[column]) for column in feature.reads if column in source.items.columns
    }
    if feature.counts_events:
        train = source.train.compact()
        read |= {"events": np.asarray(train.items), "lengths": train.lengths}
    texts = {
        "feature": json.dumps(to_json(feature)),
        "catalog": source.dataset.fingerprint,
        "version": str(feature.version),
        **({"made of": made_of} if (made_of := feature.fingerprint()) else {}),
    }
    key = array_files.content_digest({**{f"state/{path}": array for path, array in state.items()}, **read}, texts)

    def make() -> dict[str, np.ndarray]:
        found = feature.make(source, state) if ready is None else ready
        if isinstance(found, Relation):
            return {"ids": np.asarray(found.ids), "values": np.asarray(found.values)}
        return {"column": found}

    found = cached(cache_folder() / "features" / f"{type(feature).__name__}-{key[:16]}.safetensors", key, make)
    if "column" in found:
        return found["column"]
    return Relation(found["ids"], found["values"])  # pyright: ignore[reportArgumentType]


def tokenizer_input(space: SpaceVectors) -> np.ndarray:
    """Vectors that codes are made of: the first channel, whose coordinates mean the same in every catalog."""
    return space.vectors[:, : space.widths[0]]


def codes_of(config: RunConfig, space: SpaceVectors, state: State) -> Tokenized:
    """A catalog's codes by a fitted tokenizer."""
    return tokenize(config.tokenizer, tokenizer_input(space), space.known, state=state)


def tokenizer_state(config: RunConfig, spaces: Sequence[SpaceVectors], run_dir: Path | None) -> State:
    """The state of the tokenizer in the run's folder; where there is none, it is fitted on all of these.

    Raises:
        InputError: it is damaged, or the run has checkpoints and no longer the tokenizer that they were trained with.
    """
    kept = None if run_dir is None else run_dir / CODES
    if kept is not None and (kept / TOKENIZER).is_file():
        return load_state(kept)
    if run_dir is not None and any((run_dir / CHECKPOINTS).glob("[0-9]*")):
        raise InputError(
            f"{run_dir / CODES / TOKENIZER} is missing, and the checkpoints of the run were trained with its codes: "
            "bring it back from a copy of the folder"
        )
    vectors = np.concatenate([tokenizer_input(spaces[0])[:1], *(tokenizer_input(space)[1:] for space in spaces)])
    known = np.concatenate([spaces[0].known[:1], *(space.known[1:] for space in spaces)])
    fitted = tokenize(config.tokenizer, vectors, known, jax.random.key(config.seed))
    if kept is not None and jax.process_index() == 0:
        fitted.save(kept)
    return fitted.state
