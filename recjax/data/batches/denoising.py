"""Denoising views for pre-training: histories with noise in them, to be restored."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recjax.data.batches.derived import Derived
from recjax.data.batches.hash_random import draw, threshold
from recjax.data.batches.histories import Histories
from recjax.data.batches.views import Batch, Cloze, Placement, Relations, Samples, Shifted
from recjax.data.ranges import ranges
from recjax.limits import between, require
from recjax.typing import InputError


@dataclass(frozen=True)
class Corrupted(Derived):
    """Next item at every position, from a history some of whose items were replaced by random ones.

    A causal model has no mask item to put in their place, and a random item is the harder noise: the model has to find
    out from what comes before which events belong. Targets are the clean items. The noise is fresh in every epoch and
    a function of (seed, epoch, sample, place) alone.

    Attributes:
        view: of the clean histories.
        corrupt: share of input items replaced.
    """

    corrupt: float = 0.15

    def __post_init__(self) -> None:
        require(self, corrupt=between(0, 1))

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        samples = self.view.open(histories, n_items, seed, relations)

        def fill(placement: Placement) -> Batch:
            batch, lengths = samples.fill(placement), placement.lengths
            keys = np.repeat(draw(seed, placement.epochs, placement.samples), lengths)
            keys ^= ranges(0, lengths).astype(np.uint64)
            chosen = draw(0, keys) < threshold(self.corrupt)
            places = ranges(placement.starts, lengths)[chosen]
            noise = draw(1, keys[chosen]) % np.uint64(n_items) + np.uint64(1)
            items = np.array(batch.items)
            items.reshape(-1)[places] = noise.astype(np.int32)
            return replace(batch, items=items)  # pyright: ignore[reportArgumentType]

        return replace(samples, fill=fill)


def denoising_view(view: Any, corrupt: float) -> Corrupted | Cloze:
    """The view that pre-trains a model for a view: clean next items from noise for a causal one, masked items else.

    Raises:
        InputError: a view of another kind.
    """
    if isinstance(view, Shifted):
        return Corrupted(replace(view, targets=None), corrupt)
    if isinstance(view, Cloze):
        return replace(view, mask_prob=corrupt, last_copy=False)
    raise InputError(
        f"train.pretrain: there is no denoising for the view {type(view).__name__}, only for Shifted and Cloze"
    )
