"""The tokenizer of a run on its own: fitted as training would fit it, or read from the run's folder, and looked at."""

from dataclasses import dataclass
from pathlib import Path

import jax

from recjax.config import RunConfig, to_json
from recjax.data.batches.loader import open_data
from recjax.data.batches.mixture import Mixture
from recjax.data.dataset import Dataset
from recjax.text.space import SpaceVectors
from recjax.tokenizers.item_codes import DESCRIPTION, TOKENIZER, load_description
from recjax.tokenizers.tokenizer import Tokenized
from recjax.train.catalogs import CODES, codes_of, space_vectors, tokenizer_state
from recjax.train.folder import run_folder
from recjax.train.stages import resolved
from recjax.typing import InputError


@dataclass(frozen=True, eq=False)
class TokenizedCatalog:
    """A dataset's items as codes.

    Attributes:
        dataset: whose items.
        tokenized: their codes, with diagnostics.
        fitted_on: whether the tokenizer is fitted on it (it is one of those trained on).
    """

    dataset: Dataset
    tokenized: Tokenized
    fitted_on: bool


def tokenize_catalogs(
    config: RunConfig, run_dir: Path | None = None, other: str | None = None
) -> list[TokenizedCatalog]:
    """The codes of the catalogs that a run trains on, and of another one.

    The tokenizer is the one in the run's folder. Where there is none, it is fitted on the catalogs to train on, and
    with a folder it is kept there with their codes: training into that folder then uses it.

    Args:
        config: of the run.
        run_dir: the run's folder, or None to keep nothing.
        other: name or folder of a dataset that the tokenizer is not fitted on; its codes are not kept.

    Raises:
        InputError: the configuration has no tokenizer or no text; or the folder is of another configuration.
    """
    if config.tokenizer is None:
        raise InputError("the recipe has no `tokenizer`, so there are no item codes to make or look at")
    if config.text is None:
        raise InputError("the recipe has a `tokenizer` but no `text` to make vectors of")
    if run_dir is not None:
        run_folder.check_config(run_dir, config)
        _check_kept(config, run_dir / CODES)
        config = resolved(config, run_dir)
    data = config.data
    names = list(data.datasets if isinstance(data, Mixture) else (data.dataset,))
    with jax.set_mesh(config.mesh.build()):
        opened = [_opened(config, name) for name in [*names, *([] if other is None else [other])]]
        state = tokenizer_state(config, [space for _, space in opened[: len(names)]], run_dir)
        found = [
            TokenizedCatalog(dataset, codes_of(config, space, state), number < len(names))
            for number, (dataset, space) in enumerate(opened)
        ]
    if run_dir is not None and jax.process_index() == 0:
        for catalog in found:
            if catalog.fitted_on:
                catalog.tokenized.save(run_dir / CODES / catalog.dataset.name)
    return found


def _opened(config: RunConfig, name: str) -> tuple[Dataset, SpaceVectors]:
    dataset, _ = open_data(config.data.on(name))
    space = space_vectors(config, dataset)
    assert space is not None
    return dataset, space


def _check_kept(config: RunConfig, kept: Path) -> None:
    """A folder may hold a tokenizer only, from an earlier call; it must be of this configuration."""
    if not (kept / TOKENIZER).is_file() or not (kept / DESCRIPTION).is_file():
        return
    held = load_description(kept).get("tokenizer")
    if held != to_json(config.tokenizer):
        raise InputError(
            f"{kept} holds a tokenizer of other settings than the recipe's: {held}. Give the run another folder"
        )
