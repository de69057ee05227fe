"""Training, validation and test events of a dataset: leave-one-out, global time, by user.

Every history is a prefix of a user's whole sequence; of the splits with several targets a user, which are in
`recjax.data.target_sets`, `RandomSplit` alone is not so.
"""

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from recjax.data.batches.histories import Histories, gathered, shared
from recjax.data.dataset import Dataset
from recjax.data.importers.timestamps import PLACES
from recjax.limits import SEED, Limit, between, refuse, require
from recjax.typing import InputError

Which = Literal["validation", "test"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Questions of an evaluation: a target a history, or a set of them.

    Attributes:
        histories: everything that happened before the target.
        targets: int32 [n], the item to find; the first of several.
        times: int64 [n], unix seconds of the target event.
        sets: where there are several targets, the target events of each example in order of time, one or more, as
            histories; an item may occur more than once. None where each example has one target.
    """

    histories: Histories
    targets: np.ndarray
    times: np.ndarray
    sets: Histories | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def all_targets(self) -> np.ndarray:
        """int32 [m], the items of all target events, example after example."""
        return self.targets if self.sets is None else self.sets.items

    def take(self, rows: np.ndarray) -> "Examples":
        """Some of the examples, in the order of `rows`."""
        sets = None if self.sets is None else self.sets.take(rows)
        return Examples(self.histories.take(rows), self.targets[rows], self.times[rows], sets)

    def repeats(self) -> np.ndarray:
        """bool [n]: the target stands in its own history."""
        row = np.repeat(np.arange(len(self)), self.histories.lengths)
        return np.bincount(row[self.histories.items == self.targets[row]], minlength=len(self)) > 0


@dataclass(frozen=True, eq=False)
class Split:
    """A dataset cut into training histories, validation examples and test examples.

    Attributes:
        name: which split, with its parameters.
        train: the histories to learn from.
        validation: examples for early stopping.
        test: examples for the final figures.
        notes: counts of what the split left out, and the cut times where there are any.
        few: whether `train` has been reduced to some of its users, so that nothing may be counted of the others.
        before_test: every event before the test, where that is more than training events and validation targets.
    """

    name: str
    train: Histories
    validation: Examples
    test: Examples
    notes: dict[str, Any] = field(default_factory=dict)
    few: bool = False
    before_test: Histories | None = None

    def examples(self, which: Which) -> Examples:
        """The examples named `which`."""
        if which not in ("validation", "test"):
            raise InputError(f"no split part named {which!r}, expected 'validation' or 'test'")
        if self.name == NO_SPLIT:
            raise InputError(f"there is nothing to evaluate on: {self.notes['reason']}")
        return self.validation if which == "validation" else self.test


SHARE_SEED = 0
"""Of the order in which users are added as the share to learn from grows."""


def few_shot(split: Split, share: float) -> Split:
    """The split with the histories of only some of the training users to learn from; its targets stay as they are.

    The users are the first ones of a fixed random order, so the 1 % are among the 10 %.

    Args:
        split: of all users.
        share: of the training users, rounded to a number of users, at least one.
    """
    everyone = len(split.train)
    count = max(1, round(share * everyone))
    rows = np.sort(np.random.default_rng(SHARE_SEED).permutation(everyone)[:count])
    before = split.before_test
    if before is not None:
        before = before.take(np.flatnonzero(np.isin(before.users, split.train.users[rows])))
    return replace(
        split,
        before_test=before,
        name=f"{split.name}, learning from {share:.6g} of the users",
        train=split.train.take(rows),
        notes=split.notes | {"users_to_learn_from": count},
        few=True,
    )


def last_events(examples: Examples, most: int, n_users: int, seed: int) -> Examples:
    """The same targets after histories cut to a random number, 1 to `most`, of their last events (cold start).

    Args:
        examples: histories and targets.
        most: events that the longest window has; a shorter history stays as it is.
        n_users: users of the dataset; the length of a window depends on the user and the seed alone.
        seed: of the lengths.
    """
    histories = examples.histories
    wanted = np.random.default_rng(seed).integers(1, most + 1, n_users)[histories.users]
    cut = replace(histories, starts=np.maximum(histories.starts, histories.stops - wanted))
    return replace(examples, histories=cut.compact())


def first_events(dataset: Dataset, users: np.ndarray, lengths: np.ndarray) -> Histories:
    """The first `lengths` events of each of `users`."""
    starts = dataset.offsets[:-1][users]
    return gathered(dataset.items, dataset.timestamps, starts, starts + lengths, users)


def _examples(dataset: Dataset, users: np.ndarray, places: np.ndarray) -> Examples:
    """Examples whose target is event number `places` (from 0) of each of `users`."""
    rows = dataset.offsets[:-1][users] + places
    items, times = shared(dataset.items, rows), shared(dataset.timestamps, rows)
    return Examples(first_events(dataset, users, places), items, times)


def nonempty(split: Split, advice: str) -> Split:
    """The split; InputError, ending in the advice, where one of its parts is empty."""
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
        return nonempty(
            Split(
                name="leave-one-out",
                train=first_events(dataset, everyone, np.where(long, lengths - 2, lengths)),
                validation=_examples(dataset, users, ends - 2),
                test=_examples(dataset, users, ends - 1),
                notes={"train_only_users": int((~long).sum())},
            ),
            "leave-one-out needs users with three events or more",
        )


def unsplit(dataset: Dataset, reason: str) -> Split:
    """All events to learn from and none to evaluate on: of a dataset that can be ranked but not evaluated.

    Args:
        dataset: perhaps without events.
        reason: why it has no other split, for those who ask for its targets.
    """
    everyone = np.arange(dataset.n_users)
    nobody = _examples(dataset, everyone[:0], everyone[:0])
    return Split(
        NO_SPLIT, first_events(dataset, everyone, np.diff(dataset.offsets)), nobody, nobody, {"reason": reason}
    )


NO_SPLIT = "none"
"""Name of a split without targets."""


TIME = Limit(-62_135_596_800, 253_402_300_799)
"""Unix seconds of the years 1 to 9999, which a date can have."""


@dataclass(frozen=True)
class GlobalTime:
    """One calendar for all users: training sees nothing at or after the validation cut.

    Attributes:
        validation: where validation begins: a share of all events in time order (0.8), an ISO date ("2014-01-01") or a
            date and time (UTC where it says nothing else), or unix seconds.
        test: where the test begins, likewise.
        target: which events of each user's window are asked: its "first", its "last", or "all" (one example an event,
            each with its whole history: memory grows with events x history length).

    An event at exactly a cut belongs to the later part. A target without any event before it is left out and counted.
    """

    validation: float | int | str = 0.8
    test: float | int | str = 0.9
    target: Literal["first", "last", "all"] = "first"

    def __post_init__(self) -> None:
        require(self, validation=TIME, test=TIME)
        for name in ("validation", "test"):
            if not _is_cut(getattr(self, name)):
                refuse(self, name, "a share of the events between 0 and 1, a date such as 2014-01-31 or unix seconds")

    def split(self, dataset: Dataset) -> Split:
        if dataset.time_unit == PLACES:
            raise InputError(f"dataset {dataset.name!r} has no times, so it cannot be split in time: say leave-one-out")
        cuts = [_cut(value, dataset) for value in (self.validation, self.test)]
        if cuts[0] >= cuts[1]:
            shown = " and ".join(_date(cut) for cut in cuts)
            raise InputError(f"the test must begin after validation, but the cuts are {shown}")
        everyone = np.arange(dataset.n_users)
        owner = np.repeat(everyone, np.diff(dataset.offsets))
        # Events are sorted by time inside a user, so counting those before a cut gives the place of the first after it.
        before = [np.bincount(owner[dataset.timestamps < cut], minlength=dataset.n_users) for cut in cuts]
        trained = before[0] > 0
        notes: dict[str, Any] = {
            "validation_from": _date(cuts[0]),
            "test_from": _date(cuts[1]),
            "users_without_training": int((~trained).sum()),
        }
        parts = []
        for part, first, stop in (
            ("validation", before[0], before[1]),
            ("test", before[1], np.diff(dataset.offsets)),
        ):
            users, places = self._targets(first, stop)
            known = places > 0
            notes[f"{part}_targets_without_history"] = int((~known).sum())
            parts.append(_examples(dataset, users[known], places[known]))
        return nonempty(
            Split(
                name=f"global time (validation from {notes['validation_from']}, test from {notes['test_from']}, "
                f"{self.target} target)",
                train=first_events(dataset, everyone[trained], before[0][trained]),
                validation=parts[0],
                test=parts[1],
                notes=notes,
                before_test=first_events(dataset, everyone, before[1]),
            ),
            "move the cuts inside the time span of the events",
        )

    def _targets(self, first: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(users, places) of the targets among events `first` to `stop` of each user."""
        users = np.flatnonzero(stop > first)
        if self.target == "first":
            return users, first[users]
        if self.target == "last":
            return users, stop[users] - 1
        sizes = (stop - first)[users]
        starts = np.cumsum(sizes) - sizes
        return np.repeat(users, sizes), np.repeat(first[users] - starts, sizes) + np.arange(sizes.sum())


def _is_cut(value: float | int | str) -> bool:
    if not isinstance(value, str):
        return isinstance(value, int) or 0 < value < 1
    try:
        return bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _cut(value: float | int | str, dataset: Dataset) -> int:
    """Unix seconds of a cut given as a share of events, a date or seconds."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return math.ceil(moment.timestamp())
    if isinstance(value, int):
        return value
    return int(np.quantile(dataset.timestamps, value, method="higher"))


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ").removesuffix("+00:00").removesuffix(" 00:00:00")


@dataclass(frozen=True)
class ByUser:
    """Whole users are held out: the model meets them only at evaluation, with their history, and ranks their last item.

    Attributes:
        validation: share of the users who have two events or more.
        test: likewise.
        seed: chooses them.
    """

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, validation=between(0, 1), test=between(0, 1), seed=SEED)
        if self.validation + self.test >= 1:
            refuse(self, "test", f"a share that leaves users for training beside validation = {self.validation}")

    def split(self, dataset: Dataset) -> Split:
        lengths = np.diff(dataset.offsets)
        able = np.flatnonzero(lengths >= 2)
        drawn = np.random.default_rng(self.seed).permutation(able)
        sizes = [round(share * len(able)) for share in (self.validation, self.test)]
        validation, test = np.sort(drawn[: sizes[0]]), np.sort(drawn[sizes[0] : sum(sizes)])
        train = np.setdiff1d(np.arange(len(lengths)), drawn[: sum(sizes)])
        return nonempty(
            Split(
                name=f"by user (validation {self.validation:g}, test {self.test:g}, seed {self.seed})",
                train=first_events(dataset, train, lengths[train]),
                validation=_examples(dataset, validation, lengths[validation] - 1),
                test=_examples(dataset, test, lengths[test] - 1),
                notes={"train_only_users": int((lengths < 2).sum())},
            ),
            "it needs more users with two events or more",
        )
