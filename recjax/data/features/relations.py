"""Relations between items: counted from training events, or neighbours in a space of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recjax.data.batches.histories import sessions
from recjax.data.features.feature import Feature, Source, State, column
from recjax.data.items import Relation
from recjax.data.text_neighbours import kth_largest
from recjax.data.transitions import GAPS, best_of_rows, place_in, transition_counts, user_items
from recjax.late import sparse
from recjax.limits import SEED, SIZE, at_least, require

CHUNK = 1024
"""Items whose similarities to all others exist at a time."""

SORTED = 4096
"""Rows of sparse weights that are sorted at a time."""


def strongest(weights: sparse.csr_array, count: int) -> Relation:
    """The `count` largest entries of each row, largest first, ties by the smaller column; of sparse weights
    [v, v], none negative.
    """
    size = len(weights.indptr) - 1
    return strongest_by(lambda first, stop: sparse.csr_array(weights[first:stop]), size, count)


def strongest_by(rows: Callable[[int, int], sparse.csr_array], size: int, count: int) -> Relation:
    """`strongest` of weights made some rows at a time: first row, row to stop before -> [rows, v]."""
    ids, values = np.zeros((size, count), np.int32), np.zeros((size, count), np.float32)
    for first in range(0, size, SORTED):
        part = rows(first, min(first + SORTED, size))
        lengths = np.diff(part.indptr)
        near = part.data >= np.repeat(kth_largest(part.data, part.indptr, count), lengths)  # so that few are sorted
        row, column, value = np.repeat(np.arange(len(lengths)), lengths)[near], part.indices[near], part.data[near]
        best = best_of_rows(row, column, value, count)
        place = place_in(row[best])
        ids[first + row[best], place], values[first + row[best], place] = column[best], value[best]
    return Relation(ids, values)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Counted(Feature):
    """Relation counted from training events.

    Attributes:
        count: links of an item, the strongest.
    """

    count: int = 20

    def __post_init__(self) -> None:
        require(self, count=SIZE)

    @property
    def counts_events(self) -> bool:
        return True

    def shape(self) -> int:
        return self.count


@dataclass(frozen=True)
class Transitions(Counted):
    """Items that users had next, by their distance (`gaps`), as a share of an item's counts.

    Attributes:
        gaps: what an event counts at distance 1, 2, ...; (1.0,) for the very next alone.
        backward: weight of what came before, as a share of what came after; 0 counts forward alone.
    """

    gaps: tuple[float, ...] = GAPS
    backward: float = 0.0

    def __post_init__(self) -> None:
        require(self, count=SIZE, gaps=at_least(0), backward=at_least(0))

    def make(self, source: Source, state: State) -> Relation:
        counts = transition_counts(source.train, source.dataset.n_items, self.backward, self.gaps)
        sums = np.maximum(counts.sum(axis=1), 1e-9)
        return strongest(sparse.csr_array(sparse.diags_array(1 / sums) @ counts), self.count)


@dataclass(frozen=True)
class CoOccurrence(Counted):
    """Items that the same users had, by the cosine of their users: n_ab / sqrt(n_a n_b), n counting users once."""

    def make(self, source: Source, state: State) -> Relation:
        users = user_items(source.train, source.dataset.n_items)
        return strongest_by(user_cosines(users), source.dataset.n_items + 1, self.count)


def user_cosines(users: sparse.csr_array) -> Callable[[int, int], sparse.csr_array]:
    """Cosines n_ab / sqrt(n_a n_b) of the users of items, some rows at a time, as `strongest_by` wants them.

    Args:
        users: 1 where a user has an item; float64 [n, v] sparse.
    """
    items = sparse.csr_array(users.T)
    owners = np.maximum(np.diff(items.indptr), 1)

    def cosines(first: int, stop: int) -> sparse.csr_array:
        pairs = sparse.csr_array(items[first:stop] @ users)
        row = np.repeat(np.arange(first, stop), np.diff(pairs.indptr))
        pairs.data /= np.sqrt(owners[row] * owners[pairs.indices])
        pairs.data[row == pairs.indices] = 0.0
        pairs.eliminate_zeros()
        return pairs

    return cosines


@dataclass(frozen=True)
class SessionCoOccurrence(Counted):
    """Items of the same sessions (baskets), as shares of all that the item's sessions had beside it: n_ab / sum_b n_ab,
    n counting the sessions that have both."""

    def make(self, source: Source, state: State) -> Relation:
        has = user_items(sessions(source.train), source.dataset.n_items)
        pairs = sparse.csr_array(has.T @ has)
        pairs.setdiag(0)
        pairs.eliminate_zeros()
        sums = np.maximum(pairs.sum(axis=1), 1.0)
        return strongest(sparse.csr_array(sparse.diags_array(1 / sums) @ pairs), self.count)


@dataclass(frozen=True)
class Neighbours(Feature):
    """Items nearest to each by the cosine of their vectors.

    Attributes:
        of: column of vectors; items whose vector is zero have no neighbours and are none.
        count: neighbours of an item.
    """

    of: str = "vectors"
    count: int = 10

    def __post_init__(self) -> None:
        require(self, count=SIZE)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def shape(self) -> int:
        return self.count

    def make(self, source: Source, state: State) -> Relation:
        vectors = column(source, self.of).astype(np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.where(length > 0, length, 1.0)
        rows, count = len(unit), min(self.count, max(len(unit) - 2, 0))
        ids, values = np.zeros((rows, self.count), np.int32), np.zeros((rows, self.count), np.float32)
        without = np.flatnonzero(length[:, 0] == 0)
        for first in range(1, rows if count else 1, CHUNK):
            part = np.arange(first, min(first + CHUNK, rows))
            similar = unit[part] @ unit.T
            similar[:, without] = -np.inf
            similar[np.arange(len(part)), part] = -np.inf
            best = np.argpartition(-similar, count - 1, axis=1)[:, :count]
            found = np.take_along_axis(similar, best, axis=1)
            order = np.lexsort((best, -found), axis=1)
            best, found = (np.take_along_axis(x, order, axis=1) for x in (best, found))
            known = np.isfinite(found) & (length[part] > 0)
            ids[part, :count], values[part, :count] = np.where(known, best, 0), np.where(known, found, 0.0)
        return Relation(ids, values)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Drawn(Feature):
    """Items drawn at random for each: the control of what neighbours do.

    Attributes:
        count: links of an item.
        seed: of the draw.
    """

    count: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, count=SIZE, seed=SEED)

    def shape(self) -> int:
        return self.count

    def make(self, source: Source, state: State) -> Relation:
        items = source.dataset.n_items
        ids = np.random.default_rng(self.seed).integers(1, items + 1, (items + 1, self.count), np.int32)
        ids[0] = 0
        return Relation(ids, (ids > 0).astype(np.float32))  # pyright: ignore[reportArgumentType]
