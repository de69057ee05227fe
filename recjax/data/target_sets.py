"""Splits with several targets a user: random shares of the events, sessions, the last basket.

`Examples.sets` holds all targets of an example; `Examples.targets`, for evaluators of one target, is the first of them.
"""

from dataclasses import dataclass

import numpy as np

from recjax.data.batches.hash_random import draw
from recjax.data.batches.histories import Histories, gathered, sessions, shared
from recjax.data.dataset import Dataset
from recjax.data.ranges import exclusive_sum, ranges
from recjax.data.splits import Examples, Split, first_events, nonempty
from recjax.data.store.columns import StoredColumn
from recjax.limits import COUNT, SEED, between, refuse, require


@dataclass(frozen=True)
class RandomSplit:
    """Random shares of each user's events: for recommendation without order (LightGCN, ColaRec).

    The held-out numbers of a user of n events are `validation` and `test` times n, rounded down but at least one. The
    history of a validation example is the user's training events, that of a test example training and validation, each
    in order of time, so a history holds events later than its targets. Users of fewer than three events only train;
    `notes["train_only_users"]` counts them.

    Attributes:
        train: share of the events.
        validation: share of the events.
        test: share of the events.
        seed: of the choice.
    """

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, train=between(0, 1), validation=between(0, 1), test=between(0, 1), seed=SEED)
        if abs(self.train + self.validation + self.test - 1) >= 1e-9:
            rest = 1 - self.validation - self.test
            refuse(self, "train", f"what validation and test leave, {rest:g}: shares of the events sum to 1")

    def split(self, dataset: Dataset) -> Split:
        lengths = np.diff(dataset.offsets)
        owner, place = np.repeat(np.arange(dataset.n_users), lengths), ranges(0, lengths)
        order = np.lexsort((draw(self.seed, owner, place), owner))
        rank = np.empty(len(order), np.int64)
        rank[order] = place  # of each event in its user's random order: the first ones test, the next ones validate
        able = lengths >= 3
        test, validation = (
            np.where(able, np.maximum((share * lengths).astype(np.int64), 1), 0)
            for share in (self.test, self.validation)
        )
        tests = rank < test[owner]
        trains = rank >= (test + validation)[owner]
        validates, asked = ~(tests | trains), able[owner]
        return nonempty(
            Split(
                name=f"random (train {self.train:g}, validation {self.validation:g}, test {self.test:g}, "
                f"seed {self.seed})",
                train=_scattered(dataset, trains, owner),
                validation=_asked(_scattered(dataset, trains & asked, owner), _scattered(dataset, validates, owner)),
                test=_asked(_scattered(dataset, ~tests & asked, owner), _scattered(dataset, tests, owner)),
                notes={"train_only_users": int((~able).sum())},
            ),
            "it needs users with three events or more",
        )


@dataclass(frozen=True)
class Sessions:
    """Last sessions of each user: the last ones test, those before validate, the rest trains.

    A session, or basket, is a maximal run of a user's events with one time stamp. Each held-out session is an example:
    its targets are its events, its history all events before it. Users with too few sessions only train;
    `notes["train_only_users"]` counts them.

    Attributes:
        validation: sessions of a user.
        test: sessions of a user.
    """

    validation: int = 1
    test: int = 1

    def __post_init__(self) -> None:
        require(self, validation=COUNT, test=COUNT)

    def split(self, dataset: Dataset) -> Split:
        lengths, everyone = np.diff(dataset.offsets), np.arange(dataset.n_users)
        whole = Histories.concatenated(lengths, dataset.items, dataset.timestamps, everyone)
        runs = sessions(whole)
        counts = np.bincount(runs.users, minlength=dataset.n_users)
        first = exclusive_sum(counts)
        long = counts > self.validation + self.test
        users = everyone[long]
        kept = lengths.copy()  # events to train on
        kept[long] = runs.starts[first[1:][long] - self.validation - self.test] - dataset.offsets[:-1][long]

        def examples(count: int, later: int) -> Examples:
            """The `count` sessions of each user that come before its `later` last ones."""
            chosen = ranges(first[1:][users] - later - count, np.full(len(users), count))
            begins = dataset.offsets[:-1][runs.users[chosen]]
            histories = gathered(whole.items, whole.timestamps, begins, runs.starts[chosen], runs.users[chosen])
            return _asked(histories, runs.take(chosen))

        return nonempty(
            Split(
                name=f"sessions (validation {self.validation}, test {self.test})",
                train=first_events(dataset, everyone, kept),
                validation=examples(self.validation, self.test),
                test=examples(self.test, 0),
                notes={"train_only_users": int((~long).sum())},
            ),
            f"it needs users with {self.validation + self.test + 1} sessions (runs of one time stamp) or more",
        )


@dataclass(frozen=True)
class LastBasket:
    """Last basket of each user tests, the one before validates: the protocol of next-basket recommendation.

    `Sessions(1, 1)` by its usual name; users with fewer than three baskets only train.
    """

    def split(self, dataset: Dataset) -> Split:
        return Sessions(1, 1).split(dataset)


def _asked(histories: Histories, sets: Histories) -> Examples:
    """Examples with all events of `sets` as targets."""
    items, times = shared(sets.items, sets.starts), shared(sets.timestamps, sets.starts)
    return Examples(histories, items, times, sets)


def _scattered(dataset: Dataset, chosen: np.ndarray, owner: np.ndarray) -> Histories:
    """The chosen events of each user that has one, as its history."""
    rows = np.flatnonzero(chosen)
    users, lengths = np.unique(owner[rows], return_counts=True)
    items, times = (
        column.windows(rows, rows + 1) if isinstance(column, StoredColumn) else column[rows]
        for column in (dataset.items, dataset.timestamps)
    )
    return Histories.concatenated(lengths, items, times, users)
