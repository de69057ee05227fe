"""Histories of which some events were dropped, to be inserted again."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from recjax.data.batches.hash_random import draw
from recjax.data.batches.histories import Histories
from recjax.data.batches.views import Align, Batch, Placement, Queries, Relations, Samples
from recjax.data.ranges import ranges
from recjax.limits import LENGTH, require
from recjax.typing import Array, InputError, Int


@dataclass(frozen=True)
class Insertions:
    """A class token and the events that were kept, and behind them, as targets alone, those that were dropped.

    Of the n events of a window a number drawn uniformly from 0 to n is dropped; which ones is drawn, too, afresh in
    every epoch and as a function of (seed, epoch, sample) alone. The tokens of a sample are n + 1 places of a row:

        place            items          positions                targets          weights
        0                n_items + 1    0                        n_items + 1 or 0 1
        1 .. k           kept events    1 .. k                   0                0
        k + 1 .. n       0              gap of the dropped event dropped event    1 / (n - k)

    Gap j is behind the token at position j: 0 before the first kept event, k behind the last. The class token has a
    target where nothing was dropped: then insertion is to stop. A query is the class token and the last events.

    Attributes:
        max_length: most tokens of a sample, and of a query: one more than events.
        windows: "random" takes a stretch of each history, its length drawn once from 2 events to what there is room
            for, its place anew in every epoch, so that no number of events says that none is missing. "last" takes the
            last events, all where there is room: for sets and sequences whose size is to be learned.
    """

    max_length: int = 51
    windows: Literal["random", "last"] = "random"

    packing: ClassVar[bool] = True
    align: ClassVar[Align] = "left"
    times: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self, max_length=LENGTH)

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        """One sample a history of two events or more."""
        events = np.minimum(histories.lengths, self.max_length - 1)
        if self.windows == "random":
            span = np.maximum(events - 1, 1).astype(np.uint64)
            events = np.minimum(events, 2 + (draw(seed, np.arange(len(events))) % span).astype(np.int64))
        lengths = np.where(histories.lengths < 2, 0, events + 1)
        return Samples(histories, lengths, partial(self._fill, histories, n_items, seed))

    def _fill(self, source: Histories, n_items: int, seed: int, placement: Placement) -> Batch:
        samples, events = placement.samples, placement.lengths - 1
        keys = draw(seed, placement.epochs, samples)
        room = (source.lengths[samples] - events) * (self.windows == "random")
        behind = (draw(0, keys) % (room + 1).astype(np.uint64)).astype(np.int64)
        shown = source.items[ranges(source.stops[samples] - behind - events, events)]
        count = (draw(1, keys) % (events + 1).astype(np.uint64)).astype(np.int64)
        gone = _dropped(keys, events, count)
        first, kept = np.cumsum(events) - events, events - count
        before = np.cumsum(~gone) - ~gone  # kept events before each, of all samples, then of its own
        gaps = (before - np.repeat(before[first], events))[gone]
        starts = placement.starts
        left, right = ranges(starts + 1, kept), ranges(starts + 1 + kept, count)
        shape = (placement.rows, placement.row_length)
        items, segments, positions, targets = (np.zeros(shape, np.int32) for _ in range(4))
        weights = np.zeros(shape, np.float32)
        _put(items, (starts, n_items + 1), (left, shown[~gone]))
        _put(segments, (ranges(starts, placement.lengths), np.repeat(placement.segments, placement.lengths)))
        _put(positions, (left, ranges(1, kept)), (right, gaps))
        _put(targets, (starts, np.where(count == 0, n_items + 1, 0)), (right, shown[gone]))
        _put(weights, (starts, 1.0), (right, np.repeat(1.0 / np.maximum(count, 1), count)))
        return Batch(items, segments, positions, targets, weights)  # pyright: ignore[reportArgumentType]

    def query_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return np.minimum(lengths, self.max_length - 1) + 1

    def queries(self, source: Histories, length: int, n_items: int) -> Queries:
        tokens = self.query_lengths(source.lengths)
        if len(tokens) and tokens.max() > length:
            raise InputError(f"queries of {tokens.max()} tokens in rows of {length}")
        items = np.zeros((len(source), length), np.int32)
        items[:, 0] = n_items + 1
        starts = np.arange(len(source)) * length
        items.reshape(-1)[ranges(starts + 1, tokens - 1)] = source.items[ranges(source.stops - tokens + 1, tokens - 1)]
        positions = np.where(np.arange(length) < tokens[:, None], np.arange(length), 0).astype(np.int32)
        seen = np.zeros((len(source), 0), np.int32)
        return Queries(items, positions, tokens.astype(np.int32), seen)  # pyright: ignore[reportArgumentType]


def _dropped(keys: np.ndarray, events: np.ndarray, count: np.ndarray) -> np.ndarray:
    """bool [sum of events], `count` drawn ones of the events of each sample."""
    place, row = ranges(0, events), np.repeat(np.arange(len(events)), events)
    gone = np.zeros(len(row), bool)
    gone[np.lexsort((draw(2, keys[row] ^ place.astype(np.uint64)), row))] = place < count[row]
    return gone


def _put(array: np.ndarray, *parts: tuple[np.ndarray, np.ndarray | float]) -> None:
    for places, values in parts:
        array.reshape(-1)[places] = values


def with_token(items: Int[Array, "q c"], lengths: Int[Array, " q"], n_items: int) -> Queries:
    """Queries of events on the devices, as `Insertions` makes them: a class token before each; nothing is seen."""
    token = jnp.full_like(items[:, :1], n_items + 1)
    place = jnp.arange(items.shape[1] + 1)
    there = place <= lengths[:, None]
    shown = jnp.where(there, jnp.concatenate([token, items], axis=1), 0)
    return Queries(shown, jnp.where(there, place, 0), lengths + 1, jnp.zeros_like(items[:, :0]))
