"""Rankings compiled ahead for a few shapes, so that no request waits for a compiler.

Queries are laid into batches of the next larger size, histories into the next larger width, and every program makes the
longest list that a request may want, whose beginning is every shorter one. Items that some query may not get beyond the
first `HIDDEN` are taken out by a mask over the catalog, which the queries of a batch share.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.data.batches.views import Queries
from recjax.data.splits import Histories
from recjax.evaluate.ranking import NonFiniteScoresError, prepared
from recjax.serve.columns import item_columns, listed
from recjax.serve.served import Served
from recjax.typing import Array

SIZES = (1, 8, 32)
"""Queries of a batch."""

HIDDEN = 256
"""Items of a query that are left out one by one; what is beyond goes into a mask, and the query into a batch of its
own."""


@dataclass(frozen=True, eq=False)
class Query:
    """One list that is wanted.

    Attributes:
        items: int32 [m], numbers of the history's items, oldest first, at least one; unused where there is a row.
        times: int64 [m], their unix seconds.
        hidden: int32 [h], distinct items that may not be listed.
        allowed: bool [items + 1], the only items that may be listed, or None for all.
        k: length of the list.
        row: of the user's state among those handed to `Programs.lists`, or None to read the history.
    """

    items: np.ndarray
    times: np.ndarray
    hidden: np.ndarray
    allowed: np.ndarray | None
    k: int
    row: int | None = None


@dataclass(frozen=True, eq=False)
class Listed:
    """One list: numbers of items int32 [k or fewer], best first, and their scores float32."""

    items: np.ndarray
    scores: np.ndarray


class Programs:
    """The compiled rankings of a model.

    Args:
        served: what ranks.
        most: length of the longest list.
        states: user states that queries may point into, float32 [room, d], or None where there are none.

    Attributes:
        items: that are ranked; others of the same shapes may take their place.
    """

    def __init__(self, served: Served, most: int, states: Array | None = None):
        self.served, self.most = served, min(most, len(served.catalog))
        self.widths = _widths(served.view.max_length)
        self._everything = np.ones(len(served.catalog) + 1, bool)
        self._compiled: dict[tuple[bool, int, int], Callable[..., Any]] = {}
        with jax.set_mesh(served.mesh):
            self.items = prepared(served.model, served.params, served.items)
            self._columns = item_columns(served.model, served.params, self._example(1, self.widths[0]), self.items)
            self._open = jax.device_put(self._everything, NamedSharding(served.mesh, PartitionSpec()))
            for size in SIZES:
                for width in self.widths:
                    self._compile(size, width)
                if states is not None:
                    self._compile_by_state(size, states)

    @property
    def count(self) -> int:
        """Programs compiled; it never changes."""
        return len(self._compiled)

    def lists(self, queries: Sequence[Query], states: Array | None = None) -> list[Listed | NonFiniteScoresError]:
        """The lists of some queries; of a query whose scores are no finite numbers, the error.

        Args:
            queries: in any order, of any lengths.
            states: user states, of the shape given at first; needed for queries with a row.
        """
        queries = [_masked(query, self._everything) for query in queries]
        found: list[Any] = [None] * len(queries)
        with jax.set_mesh(self.served.mesh):
            for places in _batches(queries, lambda query: query.times.size):
                batch = [queries[place] for place in places]
                for place, answer in zip(places, self._answered(batch, states), strict=True):
                    found[place] = answer
        return found

    def _answered(self, batch: list[Query], states: Array | None) -> Iterator[Listed | NonFiniteScoresError]:
        size = next(size for size in SIZES if size >= len(batch))
        allowed = self._open if batch[0].allowed is None else batch[0].allowed
        hidden = np.zeros((size, HIDDEN), np.int32)
        for number, query in enumerate(batch):
            hidden[number, : len(query.hidden)] = query.hidden
        if batch[0].row is not None:
            rows = np.zeros(size, np.int32)
            rows[: len(batch)] = np.array([query.row for query in batch])
            program, inputs = self._compiled[True, size, 0], (states, rows, hidden)
        else:
            queries = self._queries(batch, size, hidden)
            program, inputs = self._compiled[False, size, queries.items.shape[1]], (queries,)
        items, scores = map(np.asarray, program(self.served.params, *inputs, allowed, self.items, self._columns))
        for query, mine, theirs in zip(batch, items, scores, strict=False):
            if np.isnan(theirs).any():
                yield NonFiniteScoresError("the scores are not finite: the parameters are damaged or have diverged")
            else:
                listed = mine[: query.k] > 0
                yield Listed(mine[: query.k][listed], theirs[: query.k][listed])

    def _queries(self, batch: list[Query], size: int, hidden: np.ndarray) -> Queries:
        lengths = np.array([len(query.items) for query in batch])
        items, times = np.concatenate([q.items for q in batch]), np.concatenate([q.times for q in batch])
        histories = Histories.concatenated(lengths, items, times, np.arange(len(batch)))
        view = self.served.view
        longest = int(view.query_lengths(lengths).max())
        width = next(width for width in self.widths if width >= longest)
        return _filled(view.queries(histories, width, self.served.model.n_items), size, hidden)

    def _example(self, size: int, width: int) -> Queries:
        view, count = self.served.view, self.served.model.n_items
        one = Histories.concatenated(np.ones(1, np.int64), np.ones(1, np.int32), np.zeros(1, np.int64), np.zeros(1))
        return _filled(view.queries(one, width, count), size, np.zeros((size, HIDDEN), np.int32))

    def _compile(self, size: int, width: int) -> None:
        program = jax.jit(partial(_from_history, self.served.model, self.most))
        queries = self._example(size, width)
        lowered = program.lower(self.served.params, queries, self._open, self.items, self._columns)
        self._compiled[False, size, width] = lowered.compile()

    def _compile_by_state(self, size: int, states: Array) -> None:
        rows, hidden = np.zeros(size, np.int32), np.zeros((size, HIDDEN), np.int32)
        program = jax.jit(partial(_from_state, self.served.model, self.most))
        inputs = (states, rows, hidden)
        lowered = program.lower(self.served.params, *inputs, self._open, self.items, self._columns)
        self._compiled[True, size, 0] = lowered.compile()

    def warm(self) -> float:
        """Runs every program on histories once; returns the seconds of one query by itself after that."""
        for width in self.widths:
            for size in SIZES:
                self.lists([self._probe(width)] * size)
        start = time.perf_counter()
        self.lists([self._probe(self.widths[-1])])
        return time.perf_counter() - start

    def _probe(self, width: int) -> Query:
        items = np.ones(width, np.int32)
        return Query(items, np.zeros(width, np.int64), np.ones(1, np.int32), None, self.most)


def _from_history(model, most, params, queries, allowed, items, columns):
    return listed(model.scoring(params, queries, items), columns, queries.seen, most, allowed)


def _from_state(model, most, params, states, rows, hidden, allowed, items, columns):
    found = jnp.take(states, rows, axis=0, mode="clip")
    return listed(model.state_scoring(params, found, items), columns, hidden, most, allowed)


def _filled(queries: Queries, size: int, hidden: np.ndarray) -> Queries:
    """Queries with rows that only fill the batch up."""
    fill = size - queries.items.shape[0]
    padded = jax.tree.map(lambda array: np.pad(array, [(0, fill)] + [(0, 0)] * (array.ndim - 1)), queries)
    return Queries(padded.items, padded.positions, padded.lengths, hidden, padded.timestamps)  # pyright: ignore


def _masked(query: Query, everything: np.ndarray) -> Query:
    """The query with what it hides in its mask, where that is too much to be left out item by item."""
    if len(query.hidden) <= HIDDEN:
        return query
    allowed = (everything if query.allowed is None else query.allowed).copy()
    allowed[query.hidden] = False
    return Query(query.items, query.times, np.zeros(0, np.int32), allowed, query.k, query.row)


def _batches(queries: Sequence[Query], length: Callable[[Query], int]) -> Iterator[list[int]]:
    """Places of the queries that may share a batch: of one kind, with one mask, of similar length."""
    groups: dict[tuple[bool, bytes], list[int]] = {}
    for place, query in enumerate(queries):
        mask = b"" if query.allowed is None else np.packbits(query.allowed).tobytes()
        groups.setdefault((query.row is None, mask), []).append(place)
    for places in groups.values():
        places.sort(key=lambda place: length(queries[place]))
        for start in range(0, len(places), SIZES[-1]):
            yield places[start : start + SIZES[-1]]


def _widths(longest: int) -> tuple[int, ...]:
    """Positions of a query: the view's, and a quarter of it for short histories."""
    return tuple(sorted({min(-(-max(longest // 4, 1) // 8) * 8, longest), longest}))
