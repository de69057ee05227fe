"""Record of the events that a stream has read of each user: their number, the latest ones, the last distinct items.

It is bounded: 4 bytes an item for the last `most` distinct items, which are those that can be left out of lists, and
some 30 bytes a user for the number of events and the time of the last. The time tells events that come a second time
from new ones.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

SEEN_ITEMS = 2_048
"""Distinct items of a user that are remembered, the last ones: at most 8 kB a user."""

NEVER = np.iinfo(np.int64).min
"""Time of the last event of a user of whom none had a time."""

_NOTHING = np.zeros(0, np.int32)


class SeenEvents:
    """Bounded memory of the events of users, by row number.

    Args:
        most: distinct items of a user that are remembered.

    Attributes:
        lengths: int64 [users], events read.
        last: int64 [users], unix seconds of the last one; `NEVER` where none had a time.
    """

    def __init__(self, most: int = SEEN_ITEMS):
        self.most = most
        self.lengths, self.last = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._items: list[np.ndarray] = []  # int32, distinct, the last one at the end
        self._latest: list[np.ndarray] = []  # int32, items of the events at the time `last`, `most` at most

    def grow(self, users: int) -> None:
        """Room for rows 0 .. users - 1."""
        more = users - len(self.lengths)
        if more > 0:
            self.lengths = np.concatenate([self.lengths, np.zeros(more, np.int64)])
            self.last = np.concatenate([self.last, np.full(more, NEVER)])
            self._items += [_NOTHING] * more
            self._latest += [_NOTHING] * more

    def repeated(self, rows: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Mask of the events that are not after those that have been read: bool [m].

        Those are the ones before the last time of their user, and those at that time, as often as their item was read
        there; an event of another item at the same time is new.

        Args:
            rows: int [m].
            items: int [m].
            times: int [m], unix seconds.
        """
        found = times < self.last[rows]
        counted: dict[int, Counter[int]] = {}
        for place in np.flatnonzero(times == self.last[rows]).tolist():
            row, item = int(rows[place]), int(items[place])
            left = counted.setdefault(row, Counter(self._latest[row].tolist()))
            found[place] = left[item] > 0
            left[item] -= 1
        return found

    def add(self, rows: np.ndarray, items: np.ndarray, times: np.ndarray | None) -> None:
        """Adds events; those of a row in their order.

        Args:
            rows: int [m].
            items: int [m].
            times: int [m], unix seconds, or None.
        """
        touched, which = np.unique(rows, return_inverse=True)
        self.lengths[touched] += np.bincount(which, minlength=len(touched))
        before = [self._items[row] for row in touched]
        for row, mine in zip(touched, _last_distinct(before, which, items, self.most), strict=True):
            self._items[row] = mine
        if times is None or not len(rows):
            return
        last = np.full(len(touched), NEVER)
        np.maximum.at(last, which, times)
        same = self.last[touched] == last
        self.last[touched] = last
        before = [self._latest[row] if again else _NOTHING for row, again in zip(touched, same, strict=True)]
        newest = times == last[which]
        for row, mine in zip(touched, _appended(before, which[newest], items[newest]), strict=True):
            self._latest[row] = mine[-self.most :]

    def clear(self, row: int) -> None:
        """Forgets everything about a row, which may then be another user's."""
        self.lengths[row], self.last[row] = 0, NEVER
        self._items[row] = self._latest[row] = _NOTHING

    def distinct(self, row: int) -> np.ndarray:
        """The items that are remembered of a row: int32 [m]."""
        return self._items[row]

    def items(self, rows: np.ndarray, size: int) -> np.ndarray:
        """The items that are remembered of some rows: int32 [size, width], zeros where there are fewer.

        The width is a power of two, so that shapes are few.
        """
        longest = max((len(self._items[row]) for row in rows), default=1)
        found = np.zeros((size, 1 << max(longest - 1, 0).bit_length()), np.int32)
        for number, row in enumerate(rows):
            found[number, : len(self._items[row])] = self._items[row]
        return found

    def full(self, rows: np.ndarray) -> int:
        """Number of rows that may have had more distinct items than are remembered."""
        return sum(len(self._items[row]) >= self.most for row in rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, as arrays by name."""
        return {
            "lengths": self.lengths,
            "last": self.last,
            **_flat("seen", self._items),
            **_flat("latest", self._latest),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts the memory that `arrays` returned in the place of this one."""
        self.lengths, self.last = arrays["lengths"].copy(), arrays["last"].copy()
        self._items = [items[-self.most :] for items in _parts("seen", arrays)]
        self._latest = _parts("latest", arrays)


def _sorted_by_part(parts: Sequence[np.ndarray], which: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parts with more items at their ends: the part and the item of each place, int64 and int32."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    owner = np.concatenate([np.repeat(np.arange(len(parts)), lengths), which])
    order = np.argsort(owner, kind="stable")
    return owner[order], np.concatenate([_NOTHING, *parts, items.astype(np.int32)])[order]


def _split(owner: np.ndarray, items: np.ndarray, count: int) -> list[np.ndarray]:
    """The items of each part as an array of its own, so that none holds on to those of others."""
    bounds = np.searchsorted(owner, np.arange(count + 1)).tolist()
    return [items[start:stop].copy() for start, stop in itertools.pairwise(bounds)]


def _appended(parts: Sequence[np.ndarray], which: np.ndarray, items: np.ndarray) -> list[np.ndarray]:
    """Parts with more items at their ends; `which` is the part of each item."""
    return _split(*_sorted_by_part(parts, which, items), len(parts))


def _last_distinct(parts: Sequence[np.ndarray], which: np.ndarray, items: np.ndarray, most: int) -> list[np.ndarray]:
    """As `_appended`, each item once, at its last place, and no more than the last `most`."""
    owner, items = _sorted_by_part(parts, which, items)
    _, from_end = np.unique((owner * (np.int64(1) << 32) + items)[::-1], return_index=True)
    places = np.sort(len(items) - 1 - from_end)
    owner, items = owner[places], items[places]
    ends = np.searchsorted(owner, np.arange(len(parts)), side="right")
    recent = ends[owner] - np.arange(len(owner)) <= most
    return _split(owner[recent], items[recent], len(parts))


def _flat(name: str, parts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of several lengths as one and their lengths."""
    counts = np.fromiter(map(len, parts), np.int64, len(parts))
    return {name: np.concatenate([_NOTHING, *parts]), f"{name}_counts": counts}


def _parts(name: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The inverse of `_flat`."""
    counts = arrays[f"{name}_counts"]
    return np.split(arrays[name], np.cumsum(counts)[:-1]) if len(counts) else []
