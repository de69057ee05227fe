"""Batches of pairs of items that one user had within a few events of each other, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from recjax.data.batches.hash_random import EndlessOrder, draw
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import RowLoader
from recjax.typing import Array, InputError, Int

EVENT, GAP = 1, 2
"""Streams of random numbers of a user in an epoch: the later event of the pair, and how far back the other one is."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairBatch:
    """Pairs of items of one catalog.

    Attributes:
        items: ids; both of a pair may be the same where a history repeats itself.
        tokens: of their texts, 0 beyond the length.
        lengths: tokens of each text; 0 for none.
    """

    items: Int[Array, "b 2"]
    tokens: Int[Array, "b 2 l"]
    lengths: Int[Array, "b 2"]


class PairLoader(RowLoader[PairBatch]):
    """Training batches: `batch(step)` is a pure function of (histories, tokens, rows, window, seed, step).

    Users come in an endless list of random orders, a new one every epoch, so each gives one pair an epoch: two events
    of its history, at most `window` apart.

    Args:
        histories: of the users; those with one event give no pair.
        tokens: of each item's text, item i at place i - 1; none where there is no text.
        length: tokens of a row, at least those of any text.
        rows: pairs of a global batch.
        window: events between the two, at most.
        seed: of orders and pairs.

    Raises:
        InputError: rows that cannot be, or no history with two events.
    """

    def __init__(
        self, histories: Histories, tokens: Sequence[np.ndarray], length: int, rows: int, window: int, seed: int = 0
    ):
        if rows < 2:
            raise InputError(f"rows is {rows}, expected 2 or more: the pairs of a batch are each other's negatives")
        self.histories, self.row_length, self.window, self.seed = histories, length, window, seed
        self.users = np.flatnonzero(histories.lengths >= 2)
        if not len(self.users):
            raise InputError(f"none of the {len(histories)} training histories has two events or more")
        self.lengths = np.array([0, *map(len, tokens)], np.int32)
        self.tokens = np.zeros((len(tokens) + 1, length), np.int32)
        for item, text in enumerate(tokens, 1):
            self.tokens[item, : len(text)] = text
        self._order = EndlessOrder(self.users, seed)
        super().__init__(rows, len(self.users))

    def _fill(self, step: int, local: np.ndarray) -> PairBatch:
        items: Any = self.pairs(step * self.rows + local)
        tokens: Any = self.tokens[items]
        lengths: Any = self.lengths[items]
        return PairBatch(items, tokens, lengths)

    def pairs(self, places: np.ndarray) -> np.ndarray:
        """int32 [n, 2], the pairs at these places of the endless list, earlier event first."""
        epochs, users = self._order.at(places)
        lengths, starts = self.histories.lengths[users], self.histories.starts[users]
        later = 1 + (draw(self.seed, EVENT, epochs, users) % (lengths - 1).astype(np.uint64)).astype(np.int64)
        furthest = np.minimum(later, self.window)
        gap = 1 + (draw(self.seed, GAP, epochs, users) % furthest.astype(np.uint64)).astype(np.int64)
        return self.histories.items[starts[:, None] + np.stack([later - gap, later], axis=1)]
