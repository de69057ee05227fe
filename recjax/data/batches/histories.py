"""Item sequences as ranges of one event column, so that parts of them (prefixes, windows, baskets) copy no event."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recjax.data.batches.hash_random import draw
from recjax.data.ranges import exclusive_sum, ranges
from recjax.data.store.columns import StoredColumn
from recjax.typing import InputError


@dataclass(frozen=True, eq=False)
class Histories:
    """Item sequences, each a range of the same event columns; ranges may overlap and leave events out.

    A split and `take` give ranges that lie one after another and cover the columns; only then are `items` the events of
    all histories, each once. `compact` makes it so.

    Attributes:
        starts: int64 [n]; history i is `items[starts[i]:stops[i]]`, oldest first.
        stops: int64 [n].
        items: int32 [m], ids from 1.
        timestamps: int64 [m], unix seconds.
        users: int32 [n], index into the dataset's users.
    """

    starts: np.ndarray
    stops: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    users: np.ndarray

    @classmethod
    def concatenated(cls, lengths: np.ndarray, items: Any, timestamps: Any, users: np.ndarray) -> "Histories":
        """Histories of `lengths` events that lie one after another in the columns."""
        offsets = exclusive_sum(lengths)
        return cls(offsets[:-1], offsets[1:], items, timestamps, users.astype(np.int32))

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n], events of each history."""
        return self.stops - self.starts

    def history(self, index: int) -> np.ndarray:
        """int32 [length]: the items of history `index`, oldest first."""
        return self.items[self.starts[index] : self.stops[index]]

    def take(self, rows: np.ndarray, last: int | None = None) -> "Histories":
        """Copy of some of the histories, in the order of `rows`; only their `last` most recent events where given."""
        starts, stops = self.starts[rows], self.stops[rows]
        if last is not None:
            starts = np.maximum(starts, stops - last)
        return gathered(self.items, self.timestamps, starts, stops, self.users[rows])

    def compact(self) -> "Histories":
        """The same histories one after another, which is itself where they are so already."""
        ends = np.concatenate([[0], self.stops])
        if (self.starts == ends[:-1]).all() and ends[-1] == len(self.items):
            return self
        return gathered(self.items, self.timestamps, self.starts, self.stops, self.users)


def gathered(items: Any, timestamps: Any, starts: np.ndarray, stops: np.ndarray, users: np.ndarray) -> Histories:
    """Histories one after another, made of the ranges [starts, stops) of event columns; stored ones stay unread."""
    if isinstance(items, StoredColumn) and isinstance(timestamps, StoredColumn):
        columns = items.windows(starts, stops), timestamps.windows(starts, stops)
    else:
        rows = ranges(starts, stops - starts)
        columns = items[rows], timestamps[rows]
    return Histories.concatenated(stops - starts, *columns, users)


def shared(column: Any, places: np.ndarray) -> np.ndarray:
    """`column[places]` on every process; of a stored column each reads a share, so every process must call it."""
    return column.shared(places) if isinstance(column, StoredColumn) else column[places]


def prefixes(histories: Histories, least: int = 2, longest: int | None = None) -> Histories:
    """All prefixes of the histories as ranges of the same columns: of each history from short to long.

    Args:
        histories: of m events each; one gives max(m - least + 1, 0) prefixes, the last one being itself.
        least: events of the shortest prefix.
        longest: most events of a prefix, older ones being left out, or None for all.

    Raises:
        InputError: lengths that cannot be.
    """
    if least < 1 or (longest is not None and longest < least):
        raise InputError(f"prefixes from {least} to {longest} events, expected 1 or more and an order")
    counts = np.maximum(histories.lengths - least + 1, 0)
    starts, stops = np.repeat(histories.starts, counts), ranges(histories.starts + least, counts)
    if longest is not None:
        np.maximum(starts, stops - longest, out=starts)
    return replace(histories, starts=starts, stops=stops, users=np.repeat(histories.users, counts))


def windows(histories: Histories, length: int, step: int = 1) -> Histories:
    """Windows over the histories as ranges of the same columns: of each history from old to recent.

    The last window ends where its history does, each one before it `step` events earlier, and the oldest is shorter
    where the events do not come out even; a history of up to `length` events is one window.

    Args:
        histories: of any lengths; an empty one gives no window.
        length: most events of a window.
        step: events between the ends of two windows, up to `length`.

    Raises:
        InputError: numbers that cannot be.
    """
    if not 1 <= step <= length:
        raise InputError(f"windows of {length} events every {step}, expected a step from 1 to the length")
    lengths = histories.lengths
    counts = np.where(lengths > 0, 1 + -(-np.maximum(lengths - length, 0) // step), 0)
    stops = np.repeat(histories.stops, counts) - step * (np.repeat(counts, counts) - 1 - ranges(0, counts))
    starts = np.maximum(np.repeat(histories.starts, counts), stops - length)
    return replace(histories, starts=starts, stops=stops, users=np.repeat(histories.users, counts))


def shuffled(histories: Histories, seed: int, keys: np.ndarray) -> Histories:
    """Copy of the histories with the events of each in a random order.

    Reads all events; of stored ones each process reads a share, so every process must call it.

    Args:
        histories: of any lengths.
        seed: of the orders.
        keys: int [n], of each history: those of equal key and length have one order.
    """
    lengths = histories.lengths
    row, place = np.repeat(np.arange(len(lengths)), lengths), ranges(0, lengths)
    order = np.lexsort((draw(seed, np.repeat(keys, lengths), place), row))
    events = ranges(histories.starts, lengths)[order]
    columns = shared(histories.items, events), shared(histories.timestamps, events)
    return Histories.concatenated(lengths, *columns, histories.users)


def sessions(histories: Histories) -> Histories:
    """Sessions (baskets) of the histories: maximal runs of events with one time stamp, as ranges of the same columns.

    In the order of the histories and of time. Reads the time of every event; of stored ones each process reads a share,
    so every process must call it.
    """
    lengths = histories.lengths
    places = ranges(histories.starts, lengths)
    times = shared(histories.timestamps, places)
    first = np.ones(len(places), bool)
    first[1:] = times[1:] != times[:-1]
    first[exclusive_sum(lengths)[:-1][lengths > 0]] = True
    last = np.append(first[1:], True)[: len(places)]
    users = np.repeat(histories.users, lengths)[first]
    return replace(histories, starts=places[first], stops=places[last] + 1, users=users)


def session_numbers(timestamps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int64 [m]: of each event the number of its session in its sequence, from 0.

    Args:
        timestamps: int64 [m], of sequences that lie one after another.
        lengths: int64 [n], events of each sequence; their sum is m.
    """
    begins = np.zeros(len(timestamps), np.int64)
    begins[1:] = timestamps[1:] != timestamps[:-1]
    first = exclusive_sum(lengths)[:-1][lengths > 0]
    begins[first] = 0
    counted = np.cumsum(begins)
    return counted - np.repeat(counted[first], lengths[lengths > 0])
