"""Datasets that stay in their shards: a process reads the records of its own rows, when it needs them.

A column of events (`StoredColumn`) stands where others have an array. Indexed, it reads the records of the users asked
for; cut into histories, it stays unread; handed to NumPy whole, it reads everything, so nothing is ever wrong, only
slow. What every process must know of all users is little: where each history ends (`offsets.i64`, 8 bytes a user), and
of the events what the split and the losses ask for, of which each process reads its share and hands it to the others.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recjax.data.ranges import exclusive_sum, ranges
from recjax.data.store import records
from recjax.typing import InputError

_STEP = 65_536  # users read at a time where many are


class Shards:
    """The records of a prepared dataset, by user number.

    Args:
        folder: of the dataset.

    Attributes:
        offsets: int64 [users + 1], as in `recjax.data.dataset.Dataset`; mapped from the file.

    Raises:
        InputError: a shard or `offsets.i64` is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._source = records.open_source(folder)
        file = folder / records.OFFSETS
        if not file.is_file():
            raise InputError(f"{folder} was prepared without {records.OFFSETS}, where histories end: prepare it again")
        self.offsets = np.memmap(file, "<i8", "r")
        if len(self.offsets) != len(self._source) + 1:
            raise InputError(
                f"the prepared dataset in {folder} is damaged: {records.OFFSETS} is of {len(self.offsets) - 1:,} "
                f"users, the shards of {len(self._source):,}"
            )
        # A batch asks for the same users once for each of its columns.
        self._read = lru_cache(maxsize=8)(self._take)

    def __len__(self) -> int:
        return len(self._source)

    def take(self, users: np.ndarray) -> records.Records:
        """The histories of `users`, int64, in that order; reads their records and no others.

        Raises:
            InputError: a record is damaged (ArrayRecord compares checksums), or is not as long as the offsets say.
        """
        return self._read(np.ascontiguousarray(users, np.int64).tobytes())

    def _take(self, users: bytes) -> records.Records:
        numbers = np.frombuffer(users, np.int64)
        found = records.take(self.folder, self._source, numbers)
        if not np.array_equal(np.diff(found.offsets), self.offsets[numbers + 1] - self.offsets[numbers]):
            raise InputError(
                f"the prepared dataset in {self.folder} is damaged: its records are of other lengths than "
                f"{records.OFFSETS} says"
            )
        return found


class StoredColumn(np.lib.mixins.NDArrayOperatorsMixin):
    """A column of events, some histories one after another, of which nothing is read before it is asked for.

    Args:
        shards: where the events are.
        name: "items" or "timestamps".
        starts: int64 [n], place in the dataset's events of the first event of each history.
        offsets: int64 [n + 1], place in this column of the same.
    """

    def __init__(self, shards: Shards, name: str, starts: np.ndarray, offsets: np.ndarray):
        self.shards, self.name, self.starts, self.offsets = shards, name, starts, offsets
        self.dtype = np.dtype(np.int32 if name == "items" else np.int64)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    @property
    def size(self) -> int:
        return len(self)

    def __getitem__(self, places: Any) -> Any:
        if isinstance(places, slice):
            places = np.arange(*places.indices(len(self)))
        places = np.asarray(places)
        if places.dtype == bool:
            places = np.flatnonzero(places)
        flat = np.where(places < 0, places + len(self), places).reshape(-1)
        return self._values(self._in_dataset(flat)).reshape(places.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        whole = [self[start : start + (1 << 22)] for start in range(0, len(self), 1 << 22)]
        return np.concatenate([np.zeros(0, self.dtype), *whole]).astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **named: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(i) if i is self else i for i in inputs), **named)

    def astype(self, dtype: Any) -> np.ndarray:
        """The whole column, read."""
        return np.asarray(self, dtype)

    def windows(self, starts: np.ndarray, stops: np.ndarray) -> "StoredColumn":
        """The ranges [starts, stops) of this column, one after another, unread."""
        return StoredColumn(self.shards, self.name, self._in_dataset(starts), exclusive_sum(stops - starts))

    def shared(self, places: np.ndarray) -> np.ndarray:
        """`self[places]` on every process, of which each reads a share. Every process must call it."""
        first, stop = _share(len(places))
        parts = [self[places[start : min(start + _STEP, stop)]] for start in range(first, stop, _STEP)]
        return _gathered(np.concatenate([np.zeros(0, self.dtype), *parts]), len(places))

    def shared_counts(self, size: int) -> np.ndarray:
        """int64 [size]: how often each number occurs; each process counts a share. Every process must call it."""
        first, stop = _share(len(self.starts))
        counts = np.zeros(size, np.int64)
        for start in range(first, stop, _STEP):
            bounds = self.offsets[[start, min(start + _STEP, stop)]]
            counts += np.bincount(self[slice(*bounds.tolist())], minlength=size)
        if jax.process_count() == 1:
            return counts
        return _gathered(counts, size * jax.process_count(), equal=True).reshape(-1, size).sum(axis=0)

    def _in_dataset(self, places: np.ndarray) -> np.ndarray:
        history = np.minimum(np.searchsorted(self.offsets, places, side="right") - 1, len(self.starts) - 1)
        return self.starts[history] + places - self.offsets[history]

    def _values(self, places: np.ndarray) -> np.ndarray:
        """Events of the dataset by their places in it."""
        if not len(places):
            return np.zeros(0, self.dtype)
        user = np.searchsorted(self.shards.offsets, places, side="right") - 1
        users, which = np.unique(user, return_inverse=True)
        found = self.shards.take(users)
        column = found.items if self.name == "items" else found.timestamps
        return column[found.offsets[which] + places - self.shards.offsets[user]]


class StoredIds(Sequence[str]):
    """The users' raw ids, read when they are asked for."""

    def __init__(self, shards: Shards):
        self._shards = shards

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, user: Any) -> Any:
        if isinstance(user, slice):
            return self._shards.take(np.arange(*user.indices(len(self)))).user_ids
        return self._shards.take(np.array([range(len(self))[user]])).user_ids[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _STEP):
            yield from self[start : start + _STEP]


def _share(count: int) -> tuple[int, int]:
    """The part of `count` things that is this process's: first, and one past the last."""
    number, processes = jax.process_index(), jax.process_count()
    return count * number // processes, count * (number + 1) // processes


def _gathered(mine: np.ndarray, count: int, equal: bool = False) -> np.ndarray:
    """The shares of all processes, one after another; `equal` = all are as long as `mine`.

    Sent as 32-bit words, because JAX would cut wider ones.
    """
    processes = jax.process_count()
    if processes == 1:
        return mine
    from jax.experimental import multihost_utils  # late: it is slow, and needed on several processes only

    longest = len(mine) if equal else -(-count // processes)
    padded = np.zeros(longest, mine.dtype)
    padded[: len(mine)] = mine
    words = np.asarray(multihost_utils.process_allgather(padded.view(np.int32)))
    rows = np.ascontiguousarray(words.reshape(processes, -1)).view(mine.dtype)
    lengths = np.full(processes, longest)
    if not equal:
        lengths = np.diff([count * number // processes for number in range(processes + 1)])
    return rows.reshape(-1)[ranges(np.arange(processes) * longest, lengths)]
