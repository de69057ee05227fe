"""Features of a run's catalogs: texts to vectors to codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from recjax.config import RunConfig
from recjax.data.dataset import Dataset
from recjax.data.items import Items, joined, on_devices, text_items
from recjax.data.locate import cache_folder
from recjax.text.space import Channel, SpaceVectors, TextSpace, density
from recjax.tokenizers.item_codes import TOKENIZER, State, load_state
from recjax.tokenizers.tokenizer import Tokenized, tokenize
from recjax.train.folder import CHECKPOINTS
from recjax.typing import InputError

CODES = "codes"
"""Folder of a run that holds its tokenizer and the codes of its catalogs."""


@dataclass(frozen=True, eq=False)
class Catalogs:
    """The joined items of some catalogs.

    Attributes:
        items: on the devices of the current mesh; `start` and `size` are those of the first catalog.
        starts: row before the first item of each catalog.
        code_sizes: vocabulary size of each slot; empty without a tokenizer.
    """

    items: Items
    starts: tuple[int, ...]
    code_sizes: tuple[int, ...]


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


def open_catalogs(config: RunConfig, datasets: Sequence[Dataset], run_dir: Path | None) -> Catalogs | None:
    """The items of catalogs, or None where the run reads no text.

    The tokenizer is the one in the run's folder; where there is none yet, it is fitted on all of these catalogs, and
    kept there.

    Args:
        config: of the run.
        datasets: whose items to read.
        run_dir: the run's folder, or None to keep nothing.
    """
    if config.text is None:
        if config.tokenizer is not None:
            raise InputError("the recipe has a `tokenizer` but no `text` to make vectors of")
        return None
    spaces = [found for dataset in datasets if (found := space_vectors(config, dataset)) is not None]
    codes: list[np.ndarray | None] = [None] * len(spaces)
    sizes: tuple[int, ...] = ()
    if config.tokenizer is not None:
        state = tokenizer_state(config, spaces, run_dir)
        found = [codes_of(config, space, state) for space in spaces]
        codes, sizes = [tokenized.codes.codes for tokenized in found], found[0].codes.sizes
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
    items, starts = joined(parts)
    return Catalogs(on_devices(items), tuple(starts.tolist()), sizes)


def tokenizer_input(space: SpaceVectors) -> np.ndarray:
    """What codes are made of: the first channel, whose coordinates mean the same in every catalog."""
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
