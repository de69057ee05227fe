"""Packing: histories that share a row, laid out ahead from lengths alone.

Lengths are small integers, so bins are packed by the histogram of lengths, not history by history: the work does not
grow with the number of histories (the idea of Krell et al., "Efficient Sequence Packing without Cross-contamination",
2021; the rule here is best-fit decreasing). Every epoch uses the same row shapes; which history fills which slot of its
length, and the order of the rows, are shuffled.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recjax.data.batches.hash_random import permutation
from recjax.data.ranges import exclusive_sum, ranges
from recjax.typing import InputError


@dataclass(frozen=True, eq=False)
class Plan:
    """The packed rows of one epoch.

    Attributes:
        offsets: int64 [rows + 1]; row r holds `members[offsets[r]:offsets[r + 1]]`.
        members: int32 [histories], index of each history, row after row, from left to right.
    """

    offsets: np.ndarray
    members: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class Packing:
    """The row shapes of every epoch; `plan` fills them.

    Attributes:
        lengths: int64 [n], tokens of each history; 0 leaves a history out.
        row_length: positions of a row.
        counts: int64 [rows], histories in each row.
        slots: int64 [histories], the length of each place, row after row.
    """

    lengths: np.ndarray
    row_length: int
    counts: np.ndarray
    slots: np.ndarray

    @property
    def rows(self) -> int:
        """Rows of an epoch: the same in every epoch."""
        return len(self.counts)

    @property
    def tokens(self) -> int:
        return int(self.slots.sum())

    @property
    def padding(self) -> float:
        """Share of positions that hold no token."""
        return 1.0 - self.tokens / max(self.rows * self.row_length, 1)

    @cached_property
    def _by_length(self) -> np.ndarray:
        """Slots from short to long."""
        return np.argsort(self.slots, kind="stable")

    def plan(self, seed: int, epoch: int) -> Plan:
        """The rows of an epoch: a pure function of (lengths, row_length, seed, epoch)."""
        order = permutation(len(self.lengths), seed, epoch, 0)
        order = order[np.argsort(self.lengths[order], kind="stable")]
        order = order[np.searchsorted(self.lengths[order], 1) :]
        members = np.empty(len(order), np.int32)
        members[self._by_length] = order
        rows = permutation(self.rows, seed, epoch, 1)
        starts = exclusive_sum(self.counts)[:-1]
        return Plan(exclusive_sum(self.counts[rows]), members[ranges(starts[rows], self.counts[rows])])


def pack(lengths: np.ndarray, row_length: int) -> Packing:
    """Row shapes for histories of the given lengths, by best-fit decreasing.

    Raises:
        InputError: a history is longer than a row.
    """
    lengths = _checked(lengths, row_length)
    shapes = _best_fit(np.bincount(lengths, minlength=row_length + 1), row_length)
    counts = [np.repeat(sum(count for _, count in shape), rows) for rows, shape in shapes]
    slots = [np.tile(np.repeat(*np.asarray(shape).T), rows) for rows, shape in shapes]
    return Packing(
        lengths.astype(np.int32),
        row_length,
        np.concatenate(counts) if counts else np.zeros(0, np.int64),
        np.concatenate(slots) if slots else np.zeros(0, np.int64),
    )


def alone(lengths: np.ndarray, row_length: int) -> Packing:
    """Row shapes that give every history a row of its own.

    Raises:
        InputError: a history is longer than a row.
    """
    lengths = _checked(lengths, row_length)
    slots = np.sort(lengths[lengths > 0])
    return Packing(lengths.astype(np.int32), row_length, np.ones(len(slots), np.int64), slots)


def _checked(lengths: np.ndarray, row_length: int) -> np.ndarray:
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.max() > row_length:
        raise InputError(f"a history has {lengths.max()} tokens, more than row_length = {row_length}")
    return lengths


def plan(lengths: np.ndarray, row_length: int, *, seed: int = 0, epoch: int = 0) -> Plan:
    """The packed rows of one epoch; `pack(...)` once and `.plan(seed, epoch)` where there are several."""
    return pack(lengths, row_length).plan(seed, epoch)


Shape = tuple[tuple[int, int], ...]
"""Content of a row: (length, how many) pairs."""


def _best_fit(histogram: np.ndarray, row_length: int) -> list[tuple[int, Shape]]:
    """Rows by shape: (number of rows, shape).

    Best-fit decreasing puts the longest history left into the tightest row it fits. Rows of equal shape are handled
    together: a row with `space` left takes `space // length` histories of a length before the next row is touched.
    """
    rows: dict[int, list[tuple[int, Shape]]] = defaultdict(list)
    for length in range(row_length, 0, -1):
        left = int(histogram[length])
        for space in range(length, row_length + 1):
            while left and rows[space]:
                left = _place(rows, space, *rows[space].pop(), length, left)
        if left:
            _place(rows, row_length, left, (), length, left, keep=False)
    return [group for groups in rows.values() for group in groups]


def _place(
    rows: dict[int, list[tuple[int, Shape]]],
    space: int,
    number: int,
    shape: Shape,
    length: int,
    left: int,
    keep: bool = True,
) -> int:
    """Put up to `left` histories of `length` into `number` rows of a shape; returns how many remain."""
    each = space // length
    filled = min(number, left // each)
    if filled:
        rows[space - each * length].append((filled, (*shape, (length, each))))
        number, left = number - filled, left - filled * each
    if number and 0 < left < each:
        rows[space - left * length].append((1, (*shape, (length, left))))
        number, left = number - 1, 0
    if number and keep:
        rows[space].append((number, shape))
    return left
