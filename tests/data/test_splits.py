"""Splits: exact small cases, and the laws every split obeys on random data."""

from datetime import UTC, datetime

import numpy as np
import pytest

from recjax.data.prepare.build import build
from recjax.data.splits import ByUser, GlobalTime, LeaveOneOut
from recjax.typing import InputError
from tests.data.samples import logs, random_logs

SPLITS = [
    LeaveOneOut(),
    GlobalTime(),
    GlobalTime(0.5, 0.7, target="last"),
    GlobalTime(20, 35, target="all"),
    ByUser(0.2, 0.3, seed=1),
]


def as_lists(histories):
    return [histories.history(i).tolist() for i in range(len(histories))]


def test_leave_one_out():
    rows = [("a", item, time) for time, item in enumerate("pqrs")] + [("b", "p", 0), ("b", "q", 1)]
    rows += [("c", "s", 5), ("d", "r", 1), ("d", "q", 2), ("d", "p", 3)]
    dataset = build(logs(rows))  # p q r s are items 1 2 3 4
    split = LeaveOneOut().split(dataset)
    assert as_lists(split.train) == [[1, 2], [1, 2], [4], [3]]
    assert split.train.users.tolist() == [0, 1, 2, 3]
    assert as_lists(split.validation.histories) == [[1, 2], [3]]
    assert split.validation.targets.tolist() == [3, 2]
    assert as_lists(split.test.histories) == [[1, 2, 3], [3, 2]]
    assert split.test.targets.tolist() == [4, 1]
    assert split.test.times.tolist() == [3, 3]
    assert split.test.histories.users.tolist() == [0, 3]
    assert split.notes == {"train_only_users": 2}
    assert split.examples("test") is split.test and split.examples("validation") is split.validation
    with pytest.raises(InputError, match="'train'"):
        split.examples("train")


def test_one_item_users_only_train():
    rows = [("a", item, time) for time, item in enumerate("pqr")] + [("b", "p", 9)]
    split = LeaveOneOut().split(build(logs(rows)))
    assert as_lists(split.train) == [[1], [1]]
    assert len(split.test) == 1 and split.notes["train_only_users"] == 1
    with pytest.raises(InputError, match="validation part is empty; leave-one-out needs users with three events"):
        LeaveOneOut().split(build(logs([("a", "p", 1), ("b", "q", 2)])))


@pytest.mark.parametrize("config", SPLITS, ids=lambda config: f"{config}")
@pytest.mark.parametrize("seed", range(4))
def test_every_history_is_the_users_whole_past(config, seed):
    dataset = build(random_logs(seed))
    split = config.split(dataset)
    for examples in (split.validation, split.test):
        assert len(examples) > 0
        for row in range(len(examples)):
            history, user = examples.histories.history(row), examples.histories.users[row]
            whole = dataset.history(user)
            assert len(history) > 0
            np.testing.assert_array_equal(history, whole[: len(history)])
            assert examples.targets[row] == whole[len(history)]
            assert examples.times[row] == dataset.timestamps[dataset.offsets[user] + len(history)]
    for row in range(len(split.train)):
        history = split.train.history(row)
        np.testing.assert_array_equal(history, dataset.history(split.train.users[row])[: len(history)])
    assert split.train.items.dtype == split.train.users.dtype == np.int32
    assert split.train.starts.dtype == split.train.stops.dtype == split.train.timestamps.dtype == np.int64


@pytest.mark.parametrize("config", [c for c in SPLITS if isinstance(c, GlobalTime)], ids=lambda config: f"{config}")
@pytest.mark.parametrize("seed", range(4))
def test_global_time_never_trains_on_the_future(config, seed):
    dataset = build(random_logs(seed, span=40))
    split = config.split(dataset)
    assert split.train.timestamps.max() < split.validation.times.min()
    assert split.validation.times.max() < split.test.times.min()
    cut = split.validation.times.min()
    # and misses nothing of the past
    assert len(split.train.items) >= (dataset.timestamps < split.train.timestamps.max() + 1).sum()
    assert (dataset.timestamps < cut).sum() >= len(split.train.items)


def test_global_time_targets():
    rows = [("a", item, time) for time, item in enumerate("pqrstu")] + [("b", "p", 4), ("b", "q", 5), ("c", "r", 0)]
    dataset = build(logs(rows))  # items 1..6 = p..u
    first = GlobalTime(2, 4).split(dataset)
    assert as_lists(first.train) == [[1, 2], [3]]
    assert (as_lists(first.validation.histories), first.validation.targets.tolist()) == ([[1, 2]], [3])
    assert (as_lists(first.test.histories), first.test.targets.tolist()) == ([[1, 2, 3, 4]], [5])
    assert first.notes["test_targets_without_history"] == 1  # b begins in the test
    assert first.notes["users_without_training"] == 1
    last = GlobalTime(2, 4, target="last").split(dataset)
    assert last.test.targets.tolist() == [6, 2]
    everything = GlobalTime(2, 4, target="all").split(dataset)
    assert everything.test.targets.tolist() == [5, 6, 2]
    assert as_lists(everything.test.histories) == [[1, 2, 3, 4], [1, 2, 3, 4, 5], [1]]


def test_global_time_takes_dates():
    day = 86_400
    start = int(datetime(2014, 1, 1, tzinfo=UTC).timestamp())
    rows = [("a", item, start + time * day) for time, item in enumerate("pqrs")]
    split = GlobalTime("2014-01-02", "2014-01-03T12:00").split(build(logs(rows)))
    assert as_lists(split.train) == [[1]]
    assert (split.validation.targets.tolist(), split.test.targets.tolist()) == ([2], [4])
    assert split.notes["validation_from"] == "2014-01-02"
    assert split.notes["test_from"] == "2014-01-03 12:00:00"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": "soon"}, "validation is 'soon', expected a share of the events between 0 and 1, a date"),
        ({"validation": 1.5}, "validation is 1.5, expected a share"),
        ({"validation": 0.9, "test": 0.5}, "must begin after validation"),
        ({"validation": 1, "test": 10_000}, "test part is empty; move the cuts"),
        ({"target": "best"}, "target is 'best'"),
    ],
)
def test_global_time_refuses_impossible_cuts(arguments, message):
    with pytest.raises(InputError, match=message):
        GlobalTime(**arguments).split(build(random_logs(0)))


def test_by_user_holds_out_whole_users():
    dataset = build(random_logs(3, users=50))
    split = ByUser(0.2, 0.1, seed=4).split(dataset)
    parts = [split.train.users, split.validation.histories.users, split.test.histories.users]
    assert sorted(np.concatenate(parts)) == list(range(dataset.n_users))
    assert [len(part) for part in parts[1:]] == [10, 5]
    assert [split.train.history(i).tolist() for i in range(len(split.train))] == [
        dataset.history(user).tolist() for user in split.train.users
    ]
    last = [dataset.history(user)[-1] for user in split.test.histories.users]
    assert split.test.targets.tolist() == last
    again, other = (ByUser(0.2, 0.1, seed=seed).split(dataset) for seed in (4, 5))
    np.testing.assert_array_equal(again.test.histories.users, split.test.histories.users)
    assert other.test.histories.users.tolist() != split.test.histories.users.tolist()
    with pytest.raises(InputError, match=r"ByUser\.test is 0.5, expected a share that leaves users for training"):
        ByUser(0.6, 0.5)
    with pytest.raises(InputError, match="more users with two events"):
        ByUser().split(build(logs([("a", "p", 1), ("b", "p", 1)])))


def test_take_selects_and_truncates():
    rows = [("a", item, time) for time, item in enumerate("pqrs")] + [
        ("b", item, time) for time, item in enumerate("srq")
    ]
    histories = LeaveOneOut().split(build(logs(rows))).test.histories
    taken = histories.take(np.array([1, 0, 0]), last=2)
    assert as_lists(taken) == [[4, 3], [2, 3], [2, 3]]
    assert taken.timestamps.tolist() == [0, 1, 1, 2, 1, 2]
    assert taken.users.tolist() == [1, 0, 0]
    assert as_lists(histories.take(np.array([], int))) == []
