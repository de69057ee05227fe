"""Splits with several targets a user: small cases by hand, and the laws on random logs."""

import dataclasses

import numpy as np
import pytest

from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.prepare.audit import audit
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut, few_shot, last_events
from recjax.data.store.columns import StoredColumn
from recjax.data.store.prepared import load, load_unread, save
from recjax.data.target_sets import LastBasket, RandomSplit, Sessions
from recjax.evaluate.floors import events_before
from recjax.typing import InputError
from tests.data.samples import logs, random_logs

SPLITS = [RandomSplit(), RandomSplit(0.5, 0.2, 0.3, seed=3), Sessions(), Sessions(2, 3), LastBasket()]


def numbered(seed: int, **settings):
    """A random dataset in which every event has an item of its own, in the dataset's order."""
    dataset = build(random_logs(seed, **settings))
    return dataclasses.replace(dataset, items=np.arange(1, dataset.n_interactions + 1, dtype=np.int32))


def as_lists(histories):
    return [histories.history(i).tolist() for i in range(len(histories))]


def test_sessions_are_runs_of_one_time_stamp():
    rows = [("a", item, time) for item, time in zip("pqrstuv", (1, 1, 2, 3, 3, 3, 4), strict=True)]
    rows += [("b", "p", 1), ("b", "q", 1), ("b", "r", 2), ("c", "s", 5)]
    dataset = build(logs(rows))  # p .. v are items 1 .. 7
    split = LastBasket().split(dataset)
    assert as_lists(split.train) == [[1, 2, 3], [1, 2, 3], [4]]
    assert as_lists(split.validation.histories) == [[1, 2, 3]]
    assert as_lists(split.validation.sets) == [[4, 5, 6]]
    assert (split.validation.targets.tolist(), split.validation.times.tolist()) == ([4], [3])
    assert as_lists(split.test.histories) == [[1, 2, 3, 4, 5, 6]] and as_lists(split.test.sets) == [[7]]
    assert split.notes == {"train_only_users": 2}
    two = Sessions(1, 2).split(dataset).test
    assert as_lists(two.histories) == [[1, 2, 3], [1, 2, 3, 4, 5, 6]] and as_lists(two.sets) == [[4, 5, 6], [7]]
    with pytest.raises(InputError, match="users with 5 sessions"):
        Sessions(2, 2).split(dataset)


@pytest.mark.parametrize("config", SPLITS, ids=str)
def test_every_event_is_in_one_part_and_none_is_both_known_and_asked(config):
    dataset = numbered(1, users=40, events=900, span=60)
    split = config.split(dataset)
    train, validation, test = (
        set(part.tolist()) for part in (split.train.items, split.validation.all_targets, split.test.all_targets)
    )
    assert train | validation | test == set(range(1, dataset.n_interactions + 1))
    assert len(train) + len(validation) + len(test) == dataset.n_interactions
    owner = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    for examples, known in ((split.validation, train), (split.test, train | validation)):
        assert examples.sets is not None and len(examples.sets) == len(examples)
        for row in range(len(examples)):
            history, asked = examples.histories.history(row), examples.sets.history(row)
            assert len(history) > 0 and len(asked) > 0 and not set(asked.tolist()) & set(history.tolist())
            assert sorted(history.tolist()) == history.tolist(), "in order of time"
            assert set(owner[np.r_[history, asked] - 1].tolist()) == {int(examples.histories.users[row])}
            assert examples.targets[row] == asked[0]
            assert examples.times[row] == dataset.timestamps[asked[0] - 1]
            if not isinstance(config, Sessions):
                assert set(history.tolist()) <= known
            if not isinstance(config, RandomSplit):
                assert history.tolist() == list(range(dataset.offsets[examples.histories.users[row]] + 1, asked[0]))
    loader = Loader(split.train, Prefixes(Shifted(8, targets=1)), 8, None, 0, dataset.n_interactions)
    for step in range(loader.steps(1)):
        assert set(loader.host_batch(step).targets.ravel().tolist()) <= train | {0}


def test_random_shares_are_of_each_user():
    dataset = numbered(2, users=30, events=2_000)
    split = RandomSplit(seed=1).split(dataset)
    lengths = np.diff(dataset.offsets)
    for examples in (split.validation, split.test):
        asked = lengths[examples.histories.users]
        np.testing.assert_array_equal(examples.sets.lengths, np.maximum(asked // 10, 1))
    places = (
        split.test.all_targets - 1 - np.repeat(dataset.offsets[split.test.histories.users], split.test.sets.lengths)
    )
    assert 0.3 < np.mean(places / np.repeat(lengths[split.test.histories.users], split.test.sets.lengths)) < 0.7
    assert RandomSplit(seed=2).split(dataset).test.all_targets.tolist() != split.test.all_targets.tolist()


@pytest.mark.parametrize("config", SPLITS[1:4], ids=str)
def test_examples_of_sets_go_through_what_examples_go_through(config, tmp_path):
    dataset = build(random_logs(4, users=40, events=900, span=60))
    split = config.split(dataset)
    rows = np.array([2, 0])
    some = split.test.take(rows)
    assert as_lists(some.sets) == [as_lists(split.test.sets)[row] for row in rows]
    assert last_events(split.test, 2, dataset.n_users, 0).sets is split.test.sets
    counts = events_before(split, "test", dataset.n_items)
    assert counts.sum() == len(split.train.items) + len(split.validation.all_targets)
    few = few_shot(split, 0.5)
    mine = np.isin(few.validation.histories.users, few.train.users)
    expected = len(few.train.items) + few.validation.sets.lengths[mine].sum()
    assert events_before(few, "test", dataset.n_items).sum() == expected
    assert audit(dataset, split).split == split.name
    save(dataset, tmp_path / "dataset")
    here, stored = (config.split(opened(tmp_path / "dataset")) for opened in (load, load_unread))
    assert isinstance(stored.train.items, StoredColumn) and isinstance(stored.test.sets.items, StoredColumn)
    for one, other in ((here.train, stored.train), (here.test.histories, stored.test.histories)):
        assert as_lists(one) == as_lists(other)
    assert as_lists(here.test.sets) == as_lists(stored.test.sets)
    np.testing.assert_array_equal(here.test.targets, stored.test.targets)


def test_a_target_is_tied_where_its_time_is_shared():
    rows = [("a", item, time) for item, time in zip("pqrs", (1, 2, 3, 3), strict=True)]
    rows += [("b", item, time) for item, time in zip("pqrs", (3, 4, 5, 6), strict=True)]
    dataset = build(logs(rows))
    assert audit(dataset, LeaveOneOut().split(dataset)).tied_targets == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSplit(0.8, 0.1, 0.2), "RandomSplit.train is 0.8, expected what validation and test leave, 0.7"),
        (lambda: RandomSplit(0.9, 0.1, 0.0), "RandomSplit.test is 0.0, expected a number between 0 and 1"),
        (lambda: Sessions(0, 1), "Sessions.validation is 0, expected 1 or more"),
    ],
)
def test_impossible_splits_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
