"""Views: training samples of histories, and the queries of evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.hash_random import draw, threshold
from recjax.data.batches.histories import Histories, session_numbers, shared
from recjax.data.ranges import ranges
from recjax.limits import COUNT, LENGTH, between, require
from recjax.typing import Array, Bool, Float, InputError, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Packed rows: several histories share a row, told apart by `segments`.

    Attributes:
        items: item ids, 0 where padded.
        segments: 1, 2, ... for the histories of a row in order, 0 = padding.
        positions: index into the position table, as the view numbers it.
        targets: the item to predict at each position, 0 = none.
        weights: loss weight of each position, 0 = none.
        timestamps: unix seconds of each event, or None.
        more: arrays by name that one system needs, [b, ...]; they travel with the rows and nothing counts them.
    """

    items: Int[Array, "b l"]
    segments: Int[Array, "b l"]
    positions: Int[Array, "b l"]
    targets: Int[Array, "b l"]
    weights: Float[Array, "b l"]
    timestamps: Int[Array, "b l"] | None = None
    more: dict[str, Array] = field(default_factory=dict)

    @property
    def last(self) -> Int[Array, " b"]:
        """Index of each row's last token, of rows with one history from the left; 0 for an empty row."""
        return jnp.maximum(jnp.sum(self.segments > 0, axis=1) - 1, 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Queries:
    """Histories to recommend for, one a row, aligned to the left.

    Attributes:
        items: item ids (or the mask id a cloze view appends), 0 beyond `lengths`.
        positions: index into the position table, as the view numbers it.
        lengths: tokens of each row; 0 marks a row that only fills the batch up.
        seen: items never to be recommended to this user (the whole history, not only the window), 0-padded.
        timestamps: unix seconds of each event, or None.
    """

    items: Int[Array, "q l"]
    positions: Int[Array, "q l"]
    lengths: Int[Array, " q"]
    seen: Int[Array, "q s"]
    timestamps: Int[Array, "q l"] | None = None

    @property
    def segments(self) -> Int[Array, "q l"]:
        """1 where there is a token, 0 beyond."""
        return (jnp.arange(self.items.shape[1])[None] < self.lengths[:, None]).astype(jnp.int32)

    @property
    def last(self) -> Int[Array, " q"]:
        """Index of each row's last token; 0 for a row that only fills the batch up."""
        return jnp.maximum(self.lengths - 1, 0)

    @property
    def valid(self) -> Bool[Array, " q"]:
        return self.lengths > 0


Align = Literal["right", "left"]


@dataclass(frozen=True, eq=False)
class Placement:
    """Places of samples in a block of packed rows.

    Attributes:
        samples: int [k], index of each sample.
        lengths: int [k], tokens of each sample.
        starts: int [k], flat position (row x row_length + column) of each sample's first token.
        segments: int [k], number of each sample in its row, from 1.
        epochs: int [k], the epoch each sample belongs to.
        rows: rows of the block.
        row_length: positions of a row.
        packed: whether samples may share a row; else each stands at the start of a row of its own.
    """

    samples: np.ndarray
    lengths: np.ndarray
    starts: np.ndarray
    segments: np.ndarray
    epochs: np.ndarray
    rows: int
    row_length: int
    packed: bool = True


@dataclass(frozen=True, eq=False)
class Samples:
    """All that an epoch trains on, opened once by a view: any number of samples a history.

    Attributes:
        histories: the events of each sample; the last one is its target, or the last of its targets.
        lengths: int [n], tokens of each sample; 0 leaves it out.
        fill: a block of rows, as NumPy arrays, from the places of the samples in it. All that is random is a function
            of (seed, epoch, sample, place), so the stream does not depend on how rows are spread over processes.
    """

    histories: Histories
    lengths: np.ndarray
    fill: Callable[[Placement], Batch]


Relations = Mapping[str, np.ndarray]
"""Items related to each item, by name: int32 [n_items + 1, k], 0 where there are fewer than k."""


class View(Protocol):
    """A training sample and a query, made of a history: all that the loader knows of either."""

    @property
    def max_length(self) -> int:
        """Most tokens of a sample, and of a query."""
        ...

    @property
    def packing(self) -> bool:
        """True if samples may share a row."""
        ...

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        """The samples of some histories.

        Args:
            histories: what to train on.
            n_items: catalog size.
            seed: of everything random.
            relations: of items, for views that draw from them.
        """
        ...

    def query_lengths(self, lengths: np.ndarray) -> np.ndarray:
        """int64 [n], tokens of the query of histories with `lengths` items."""
        ...

    def queries(self, source: Histories, length: int, n_items: int) -> Queries:
        """One query a history, as NumPy arrays of `length` positions; `seen` has no columns."""
        ...


def _first_position(view: Any, lengths: np.ndarray) -> np.ndarray:
    """Position of the first token, so that the last (right) or the first (left) token has a fixed one."""
    return view.max_length - lengths if view.align == "right" else np.zeros_like(lengths)


def _seconds(timestamps: np.ndarray) -> np.ndarray:
    """Unix seconds as int32, JAX's default integer; it lasts until January 2038."""
    if len(timestamps) and np.abs(timestamps).max() > np.iinfo(np.int32).max:
        raise InputError(f"timestamp {timestamps[np.abs(timestamps).argmax()]} is no time in unix seconds before 2038")
    return timestamps.astype(np.int32)


def _empty_batch(placement: Placement, with_times: bool) -> Batch:
    shape = (placement.rows, placement.row_length)
    items, segments, positions, targets = (np.zeros(shape, np.int32) for _ in range(4))
    times = np.zeros(shape, np.int32) if with_times else None
    return Batch(items, segments, positions, targets, np.zeros(shape, np.float32), times)  # pyright: ignore


def _scatter(array: Any, places: np.ndarray, values: Any) -> None:
    array.reshape(-1)[places] = values


def _query_arrays(
    view: Any, source: Histories, kept: np.ndarray, tokens: np.ndarray, length: int
) -> tuple[Queries, np.ndarray]:
    """Queries that hold the last `kept` items of each history, and the flat place of each query's last token."""
    rows = len(source)
    items, positions = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    starts = np.arange(rows) * length
    read, write = ranges(source.stops - kept, kept), ranges(starts, kept)
    _scatter(items, write, source.items[read])
    _scatter(positions, ranges(starts, tokens), ranges(_first_position(view, tokens), tokens))
    times = None
    if view.times:
        times = np.zeros((rows, length), np.int32)
        _scatter(times, write, _seconds(source.timestamps[read]))
    seen = np.zeros((rows, 0), np.int32)
    return Queries(items, positions, tokens.astype(np.int32), seen, times), starts + tokens - 1  # pyright: ignore


@dataclass(frozen=True)
class Shifted:
    """Next item at every position: what causal models train on.

    A history of m items gives its last `max_length + 1` items, i.e. min(m - 1, max_length) tokens, each with the item
    after it as target; older items are not used. A history of one item gives no sample.

    Attributes:
        max_length: most tokens of a sample, and of a query.
        align: "right" numbers positions so that the last token always has position max_length - 1, as left-padding
            would; "left" counts from 0 at the first token.
        times: carry timestamps (of the input items).
        targets: how many positions at the end of a sample have a loss, or None for all.
    """

    max_length: int = 200
    align: Align = "right"
    times: bool = False
    targets: int | None = None

    @property
    def packing(self) -> bool:
        """True if samples may share a row."""
        return True

    def __post_init__(self) -> None:
        require(self, max_length=LENGTH, targets=COUNT)

    def token_lengths(self, lengths: np.ndarray) -> np.ndarray:
        """int64 [n], tokens of the samples of histories with `lengths` items; 0 = no sample."""
        return np.clip(lengths - 1, 0, self.max_length)

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        """One sample a history."""
        return Samples(histories, self.token_lengths(histories.lengths), partial(self._fill, histories))

    def _fill(self, source: Histories, placement: Placement) -> Batch:
        lengths = placement.lengths
        batch = _empty_batch(placement, self.times)
        read = ranges(source.stops[placement.samples] - lengths - 1, lengths)
        write = ranges(placement.starts, lengths)
        _scatter(batch.items, write, source.items[read])
        _scatter(batch.targets, write, source.items[read + 1])
        _scatter(batch.segments, write, np.repeat(placement.segments, lengths))
        _scatter(batch.positions, write, ranges(_first_position(self, lengths), lengths))
        left = np.repeat(lengths, lengths) - ranges(0, lengths)
        _scatter(batch.weights, write, 1.0 if self.targets is None else left <= self.targets)
        if self.times:
            _scatter(batch.timestamps, write, _seconds(source.timestamps[read]))
        return batch

    def query_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return np.minimum(lengths, self.max_length)

    def queries(self, source: Histories, length: int, n_items: int) -> Queries:
        tokens = self.query_lengths(source.lengths)
        return _query_arrays(self, source, tokens, tokens, length)[0]


@dataclass(frozen=True)
class Cloze:
    """Masked items, predicted from both sides (BERT4Rec, Sun et al. 2019, section 3.6).

    A history of m items gives its last `max_length` items with some replaced by the mask id, `n_items + 1`; only
    masked positions have a target. Masks are fresh in every epoch and a function of (seed, epoch, history) alone; a
    sample in which chance masks nothing has one position masked. A query is the last `max_length - 1` items and a mask.

    With `last_copy`, one pass in `random_copies + 1` over a history masks its last item only, which is what a query
    looks like. The paper writes `duplicates` randomly masked copies of the data and one such copy; here an epoch is one
    pass, and the history's turn comes round as (history + epoch) does, so the share is the same in every epoch and
    exact for every history over `random_copies + 1` epochs, and the extra copies cost no extra rows.

    Attributes:
        max_length: most tokens of a sample, and of a query.
        mask_prob: share of items masked.
        last_copy: include samples with only the last item masked.
        random_copies: randomly masked samples for each of those; 10 in the paper's code.
        align: see `Shifted`.
        times: carry timestamps (a query's mask has the time of the last event).
    """

    max_length: int = 200
    mask_prob: float = 0.2
    last_copy: bool = True
    random_copies: int = 10
    align: Align = "right"
    times: bool = False

    @property
    def packing(self) -> bool:
        """True if samples may share a row."""
        return True

    def __post_init__(self) -> None:
        require(self, max_length=LENGTH, mask_prob=between(0, 1), random_copies=COUNT)

    def token_lengths(self, lengths: np.ndarray) -> np.ndarray:
        """int64 [n], tokens of the samples of histories with `lengths` items; 0 = no sample."""
        return np.where(lengths < 2, 0, np.minimum(lengths, self.max_length))

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        """One sample a history."""
        fill = partial(self._fill, histories, n_items, seed)
        return Samples(histories, self.token_lengths(histories.lengths), fill)

    def masks(self, placement: Placement, seed: int) -> np.ndarray:
        """bool [tokens], which tokens are masked, sample after sample."""
        lengths, samples, epochs = placement.lengths, placement.samples, placement.epochs
        first = np.cumsum(lengths) - lengths
        keys = np.repeat(draw(seed, epochs, samples), lengths)
        drawn = draw(0, keys ^ ranges(0, lengths).astype(np.uint64))
        lowest = np.repeat(np.minimum.reduceat(drawn, first), lengths)
        masked = (drawn < threshold(self.mask_prob)) | (drawn == lowest)
        if self.last_copy:
            turn = (samples + epochs) % (self.random_copies + 1) == self.random_copies
            masked &= ~np.repeat(turn, lengths)
            masked[(first + lengths - 1)[turn]] = True
        return masked

    def _fill(self, source: Histories, n_items: int, seed: int, placement: Placement) -> Batch:
        lengths = placement.lengths
        batch = _empty_batch(placement, self.times)
        if not len(lengths):
            return batch
        read = ranges(source.stops[placement.samples] - lengths, lengths)
        write = ranges(placement.starts, lengths)
        masked = self.masks(placement, seed)
        items = source.items[read]
        _scatter(batch.items, write, np.where(masked, np.int32(n_items + 1), items))
        _scatter(batch.targets, write, np.where(masked, items, 0))
        _scatter(batch.segments, write, np.repeat(placement.segments, lengths))
        _scatter(batch.positions, write, ranges(_first_position(self, lengths), lengths))
        _scatter(batch.weights, write, masked)
        if self.times:
            _scatter(batch.timestamps, write, _seconds(source.timestamps[read]))
        return batch

    def query_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return np.minimum(lengths, self.max_length - 1) + 1

    def queries(self, source: Histories, length: int, n_items: int) -> Queries:
        tokens = self.query_lengths(source.lengths)
        queries, last = _query_arrays(self, source, tokens - 1, tokens, length)
        _scatter(queries.items, last, n_items + 1)
        if self.times:
            _scatter(queries.timestamps, last, _seconds(source.timestamps[source.stops - 1]))
        return queries


@dataclass(frozen=True)
class NextSession:
    """Every event as one of its session, to be predicted from the sessions before: what models of sessions train on.

    A session is a run of events with one time stamp. A history gives its last `max_length` events, all of them tokens;
    the target of a token is its own item, and the first session of a sample has no loss. A sample of one session is
    none. `positions` number the sessions of a sample, or query, from 0.

    Attributes:
        max_length: most tokens of a sample, and of a query.
        times: carry timestamps.
    """

    max_length: int = 128
    times: bool = False

    packing: ClassVar[bool] = True
    align: ClassVar[Align] = "left"

    def __post_init__(self) -> None:
        require(self, max_length=LENGTH)

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        """One sample a history."""
        lengths = np.minimum(histories.lengths, self.max_length)
        used = np.flatnonzero(lengths > 1)
        ends = (histories.stops[used] - lengths[used], histories.stops[used] - 1)
        first, last = np.split(shared(histories.timestamps, np.concatenate(ends)), 2)
        several = np.zeros(len(lengths), bool)
        several[used] = first < last
        return Samples(histories, np.where(several, lengths, 0), partial(self._fill, histories))

    def _fill(self, source: Histories, placement: Placement) -> Batch:
        batch, lengths = _empty_batch(placement, self.times), placement.lengths
        read, write = ranges(source.stops[placement.samples] - lengths, lengths), ranges(placement.starts, lengths)
        items, numbers = source.items[read], session_numbers(source.timestamps[read], lengths)
        segments, targets = np.repeat(placement.segments, lengths), np.where(numbers > 0, items, 0)
        for name, values in (("items", items), ("segments", segments), ("positions", numbers), ("targets", targets)):
            _scatter(getattr(batch, name), write, values)
        _scatter(batch.weights, write, targets > 0)
        if self.times:
            _scatter(batch.timestamps, write, _seconds(source.timestamps[read]))
        return batch

    def query_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return np.minimum(lengths, self.max_length)

    def queries(self, source: Histories, length: int, n_items: int) -> Queries:
        tokens = self.query_lengths(source.lengths)
        queries = _query_arrays(self, source, tokens, tokens, length)[0]
        numbers = session_numbers(source.timestamps[ranges(source.stops - tokens, tokens)], tokens)
        _scatter(queries.positions, ranges(np.arange(len(source)) * length, tokens), numbers)
        return queries
