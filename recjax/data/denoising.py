"""What a model is pre-trained on: histories with noise in them, to be restored."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recjax.data.draws import draw, threshold
from recjax.data.ranges import ranges
from recjax.data.views import Batch, Cloze, Placement, Queries, Shifted
from recjax.limits import between, require
from recjax.typing import InputError

if TYPE_CHECKING:
    from recjax.data.splits import Histories


@dataclass(frozen=True)
class Corrupted:
    """Next item at every position, from a history some of whose items were replaced by random ones.

    A causal model has no mask item to put in their place, and a random item is the harder noise: the model has to find
    out from what comes before which events belong. Targets are the clean items. The noise is fresh in every epoch and
    a function of (seed, epoch, history, place) alone.

    Attributes:
        view: of the clean histories.
        corrupt: share of input items replaced.
    """

    view: Shifted = field(default_factory=Shifted)
    corrupt: float = 0.15

    def __post_init__(self) -> None:
        require(self, corrupt=between(0, 1))

    @property
    def max_length(self) -> int:
        return self.view.max_length

    def token_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return self.view.token_lengths(lengths)

    def fill(self, source: "Histories", placement: Placement, n_items: int, seed: int) -> Batch:
        batch = self.view.fill(source, placement, n_items, seed)
        lengths = placement.lengths
        keys = np.repeat(draw(seed, placement.epochs, placement.histories), lengths) ^ ranges(0, lengths).astype(
            np.uint64
        )
        chosen = draw(0, keys) < threshold(self.corrupt)
        places = ranges(placement.starts, lengths)[chosen]
        noise = draw(1, keys[chosen]) % np.uint64(n_items) + np.uint64(1)
        items = np.array(batch.items)
        items.reshape(-1)[places] = noise.astype(np.int32)
        return replace(batch, items=items)  # pyright: ignore[reportArgumentType]

    def query_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return self.view.query_lengths(lengths)

    def queries(self, source: "Histories", length: int, n_items: int) -> Queries:
        return self.view.queries(source, length, n_items)


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
