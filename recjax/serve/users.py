"""Users whose events the server remembers between requests, as many as there is room for.

Where the mixers keep a state of one size, that is advanced event by event and no history is read again; elsewhere the
last events are stored, as many as the model reads, and read again for each list. Either way the lists are those of the
whole history. The least recently used one makes room for a new user.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict

import numpy as np

from recjax.data.features.evidence import TOGETHER
from recjax.evaluate.seen import SEEN_ITEMS, SeenEvents
from recjax.evaluate.stream import Stream
from recjax.serve.served import Served
from recjax.typing import Array

AT_ONCE = 8
"""Rows of the program that advances states: one event of one user is the common case."""

_NO_ITEMS, _NO_TIMES = np.zeros(0, np.int32), np.zeros(0, np.int64)


class UnknownUserError(LookupError):
    """A user of whom no event is remembered."""


class Users(ABC):
    """Users by name, each in a slot; the least recently used slot is emptied for a new user.

    Args:
        most: slots.

    Attributes:
        evicted: users who have made room for others.
    """

    def __init__(self, most: int):
        self._slots: OrderedDict[str, int] = OrderedDict()
        self._free = list(range(most))[::-1]
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, user: str) -> bool:
        return user in self._slots

    @property
    def states(self) -> Array | None:
        """User states by row; None where there are none."""
        return None

    def push(self, user: str, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        """Takes events of a user, oldest first; returns which were left out, bool [m].

        Args:
            user: any name.
            items: int32 [m], item numbers.
            times: int64 [m], unix seconds: events that are not after those taken before are left out. None where every
                event counts as new.
        """
        if (slot := self._slots.get(user)) is None:
            if not self._free:
                _, oldest = self._slots.popitem(last=False)
                self._empty(oldest)
                self._free.append(oldest)
                self.evicted += 1
            slot = self._slots[user] = self._free.pop()
        self._slots.move_to_end(user)
        return self._take(slot, items, times)

    def forget(self, user: str) -> bool:
        """Forgets a user; whether there was one of that name."""
        slot = self._slots.pop(user, None)
        if slot is not None:
            self._empty(slot)
            self._free.append(slot)
        return slot is not None

    def slot(self, user: str) -> int:
        """The slot of a user, who has been here just now.

        Raises:
            UnknownUserError: there is no such user.
        """
        if user not in self._slots:
            raise UnknownUserError(user)
        self._slots.move_to_end(user)
        return self._slots[user]

    @abstractmethod
    def length(self, slot: int) -> int:
        """Events of a user so far."""

    @abstractmethod
    def distinct(self, slot: int) -> np.ndarray:
        """Items of a user, int32 [m], at most the last `SEEN_ITEMS`."""

    @abstractmethod
    def history(self, slot: int) -> tuple[np.ndarray, np.ndarray, int | None]:
        """The source of a list: the last items and their times, or the row of the user's state."""

    @abstractmethod
    def _take(self, slot: int, items: np.ndarray, times: np.ndarray | None) -> np.ndarray: ...

    @abstractmethod
    def _empty(self, slot: int) -> None: ...


class Remembered(Users):
    """Users whose last events are stored.

    Args:
        last: events of each.
        most: slots.
    """

    def __init__(self, last: int, most: int):
        super().__init__(most)
        self._last = last
        self._seen = SeenEvents(SEEN_ITEMS)
        self._seen.grow(most)
        self._events = [(_NO_ITEMS, _NO_TIMES)] * most

    def length(self, slot: int) -> int:
        return int(self._seen.lengths[slot])

    def distinct(self, slot: int) -> np.ndarray:
        return self._seen.distinct(slot)

    def history(self, slot: int) -> tuple[np.ndarray, np.ndarray, int | None]:
        return *self._events[slot], None

    def _take(self, slot: int, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        rows = np.full(len(items), slot)
        skipped = np.zeros(len(items), bool) if times is None else self._seen.repeated(rows, items, times)
        items, rows = items[~skipped], rows[~skipped]
        times = None if times is None else times[~skipped]
        if len(items):
            self._seen.add(rows, items, times)
            held, before = self._events[slot]
            new = np.zeros(len(items), np.int64) if times is None else times
            self._events[slot] = (
                np.concatenate([held, items])[-self._last :],
                np.concatenate([before, new])[-self._last :],
            )
        return skipped

    def _empty(self, slot: int) -> None:
        self._seen.clear(slot)
        self._events[slot] = (_NO_ITEMS, _NO_TIMES)


class Streamed(Users):
    """Users whose states are advanced event by event."""

    def __init__(self, served: Served, most: int):
        super().__init__(most)
        self._stream = Stream(served.model, served.params, served.view, AT_ONCE, items=served.items, room=most)

    @property
    def states(self) -> Array | None:
        return self._stream.states

    def length(self, slot: int) -> int:
        return self._stream.length(str(slot))

    def distinct(self, slot: int) -> np.ndarray:
        return self._stream.distinct(str(slot))

    def history(self, slot: int) -> tuple[np.ndarray, np.ndarray, int | None]:
        return _NO_ITEMS, _NO_TIMES, self._stream.row(str(slot))

    def warm(self) -> None:
        """Compiles the programs that advance and empty states."""
        for length in (1, 2, 9):
            self._take(0, np.ones(length, np.int32), None)
        self._empty(0)
        self._stream.wait()

    def _take(self, slot: int, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        return self._stream.push([str(slot)] * len(items), items, times)

    def _empty(self, slot: int) -> None:
        if self._stream.length(str(slot)):
            self._stream.clear(str(slot))


def open_users(served: Served, most: int) -> Users:
    """Room for users, of the kind that suits the model; call it under its mesh.

    A state is used where it is of one size and on one device: one that grows with the history has room for no more
    events than are read again elsewhere, and would end there.
    """
    model = served.model
    bounded = model.streams and not (model.keeps_histories or model.learned_positions)
    if not bounded or served.mesh.size > 1:
        last = served.view.max_length
        return Remembered(last if served.counting is None else max(last, TOGETHER), most)
    users = Streamed(served, most)
    users.warm()
    return users
