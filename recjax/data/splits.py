"""Which events train, validate and test: leave-one-out, global time, by user.

Every history is a prefix of a user's whole sequence, so the target's place in the dataset is
`offsets[user] + len(history)`; the audit relies on it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from recjax.data.dataset import Dataset
from recjax.typing import InputError

Which = Literal["validation", "test"]


@dataclass(frozen=True, eq=False)
class Histories:
    """Item sequences of several users, one after another.

    Attributes:
        offsets: int64 [n + 1]; history i is `items[offsets[i]:offsets[i + 1]]`, oldest first.
        items: int32 [m], ids from 1.
        timestamps: int64 [m], unix seconds.
        users: int32 [n], index into the dataset's users.
    """

    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    users: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n], events of each history."""
        return np.diff(self.offsets)

    def history(self, index: int) -> np.ndarray:
        """int32 [length]: the items of history `index`, oldest first."""
        return self.items[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: np.ndarray, last: int | None = None) -> "Histories":
        """Some of the histories, in the order of `rows`; only their `last` most recent events where given."""
        starts, stops = self.offsets[:-1][rows], self.offsets[1:][rows]
        if last is not None:
            starts = np.maximum(starts, stops - last)
        return _gather(self.items, self.timestamps, starts, stops, self.users[rows])


@dataclass(frozen=True, eq=False)
class Examples:
    """What is asked at evaluation time: one target a history.

    Attributes:
        histories: everything that happened before the target.
        targets: int32 [n], the item to find.
        times: int64 [n], unix seconds of the target event.
    """

    histories: Histories
    targets: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> "Examples":
        """Some of the examples, in the order of `rows`."""
        return Examples(self.histories.take(rows), self.targets[rows], self.times[rows])


@dataclass(frozen=True, eq=False)
class Split:
    """A dataset cut into training histories, validation examples and test examples.

    Attributes:
        name: which split, with its parameters.
        train: the histories to learn from.
        validation: examples for early stopping.
        test: examples for the final figures.
        notes: counts of what the split left out, and the cut times where there are any.
    """

    name: str
    train: Histories
    validation: Examples
    test: Examples
    notes: dict[str, Any] = field(default_factory=dict)

    def examples(self, which: Which) -> Examples:
        """The examples named `which`."""
        if which not in ("validation", "test"):
            raise InputError(f"no split part named {which!r}, expected 'validation' or 'test'")
        return self.validation if which == "validation" else self.test


def _gather(
    items: np.ndarray, timestamps: np.ndarray, starts: np.ndarray, stops: np.ndarray, users: np.ndarray
) -> Histories:
    """Histories made of the ranges [starts, stops) of the event columns."""
    lengths = stops - starts
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    rows = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    return Histories(offsets, items[rows], timestamps[rows], users.astype(np.int32))


def _histories(dataset: Dataset, users: np.ndarray, lengths: np.ndarray) -> Histories:
    """The first `lengths` events of each of `users`."""
    starts = dataset.offsets[:-1][users]
    return _gather(dataset.items, dataset.timestamps, starts, starts + lengths, users)


def _examples(dataset: Dataset, users: np.ndarray, places: np.ndarray) -> Examples:
    """Examples whose target is event number `places` (from 0) of each of `users`."""
    rows = dataset.offsets[:-1][users] + places
    return Examples(_histories(dataset, users, places), dataset.items[rows], dataset.timestamps[rows])


def _require(split: Split, advice: str) -> Split:
    for part in ("train", "validation", "test"):
        if not len(getattr(split, part)):
            raise InputError(f"split {split.name}: the {part} part is empty; {advice}")
    return split


@dataclass(frozen=True)
class LeaveOneOut:
    """Last event of each user tests, the one before validates, the rest trains.

    Users with fewer than three events only train; `notes["train_only_users"]` counts them.
    """

    def split(self, dataset: Dataset) -> Split:
        lengths = np.diff(dataset.offsets)
        everyone = np.arange(len(lengths))
        long = lengths >= 3
        users, ends = everyone[long], lengths[long]
        return _require(
            Split(
                name="leave-one-out",
                train=_histories(dataset, everyone, np.where(long, lengths - 2, lengths)),
                validation=_examples(dataset, users, ends - 2),
                test=_examples(dataset, users, ends - 1),
                notes={"train_only_users": int((~long).sum())},
            ),
            "leave-one-out needs users with three events or more",
        )
