"""Few-shot splits: fewer users to learn from, the same targets for all."""

import dataclasses

import jax
import numpy as np
import pytest

from recjax.config import from_json, to_json
from recjax.data.batches.loader import Data, open_data
from recjax.data.embedded.synthetic import synthetic
from recjax.data.prepare.audit import audit
from recjax.data.splits import ByUser, GlobalTime, LeaveOneOut, few_shot
from recjax.data.transitions import item_counts
from recjax.evaluate.floors import events_before
from recjax.typing import InputError
from tests.evaluate import toy

DATA = toy.dataset(users=400)
SPLITS = [LeaveOneOut(), ByUser(), GlobalTime()]


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, *(dataclasses.asdict(part) for part in (one, other)))


@pytest.mark.parametrize("how", SPLITS)
def test_shares_are_nested_and_of_the_right_size(how):
    split = how.split(DATA)
    chosen = [few_shot(split, share).train for share in (0.0001, 0.01, 0.1, 0.5)]
    everyone = len(split.train)
    assert [len(train) for train in chosen] == [1, *(round(share * everyone) for share in (0.01, 0.1, 0.5))]
    for small, large in zip(chosen, [*chosen[1:], split.train], strict=False):
        assert set(small.users) < set(large.users)
    where = {int(user): row for row, user in enumerate(split.train.users)}
    for row, user in enumerate(chosen[2].users.tolist()):
        np.testing.assert_array_equal(chosen[2].history(row), split.train.history(where[user]))


@pytest.mark.parametrize("how", SPLITS)
def test_targets_and_their_histories_stay_those_of_all_users(how):
    split = how.split(DATA)
    few = few_shot(split, 0.1)
    same(few.validation, split.validation)
    same(few.test, split.test)
    same(few.train, few_shot(how.split(DATA), 0.1).train)
    audit(DATA, few)  # targets are found in the dataset as before


def test_floors_count_the_chosen_users_only():
    split = LeaveOneOut().split(DATA)
    few = few_shot(split, 0.1)
    expected = np.zeros(DATA.n_items + 1, np.int64)
    for user in few.train.users:
        events = DATA.items[DATA.offsets[user] : DATA.offsets[user + 1]]
        # All but the test target, where there is one.
        np.add.at(expected, events[:-1] if len(events) >= 3 else events, 1)
    np.testing.assert_array_equal(events_before(few, "test", DATA.n_items), expected)
    np.testing.assert_array_equal(
        events_before(few, "validation", DATA.n_items), item_counts(few.train.items, DATA.n_items)
    )


def test_the_setting(tmp_path, monkeypatch):
    raw = synthetic(users=80, items=100)
    (tmp_path / "small").mkdir()
    raw.interactions.write_csv(tmp_path / "small" / "interactions.csv")
    raw.catalog.write_csv(tmp_path / "small" / "items.csv")
    monkeypatch.setenv("RECJAX_DATA", str(tmp_path))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    config = Data("small", user_share=0.1)
    assert from_json(to_json(config)) == config and config.on("other").user_share == 0.1
    (dataset, few), (_, split) = open_data(config), open_data(Data("small"))
    assert len(few.train) == 8 and len(split.train) == 80 and len(few.test) == len(split.test)
    assert "learning from 0.1 of the users" in few.name and "learning" not in split.name
    assert audit(dataset, few).to_json()["notes"]["users_to_learn_from"] == 8


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_that_cannot_be(share):
    with pytest.raises(InputError, match=r"user_share is .*expected"):
        Data("small", user_share=share)
