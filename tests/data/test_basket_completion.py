"""Baskets of which one item is missing, by hand."""

import pytest

from recjax.data.basket_completion import BasketCompletion
from recjax.data.prepare.audit import audit
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.settings import SettingError
from recjax.typing import InputError
from tests.data.samples import logs


def test_later_baskets_miss_one_item_each():
    rows = [("a", item, 10) for item in "pqr"] + [("a", item, 50) for item in "ppqs"] + [("a", "t", 60)]
    rows += (
        [("b", item, 20) for item in "rst"]
        + [("b", item, 90) for item in "pst"]
        + [("b", item, 40) for item in "pqrst"]
    )
    dataset = build(logs(rows))  # p .. t are items 1 .. 5
    split = BasketCompletion(3, 4, validation=0.25, test=0.25).split(dataset)
    assert [split.train.history(i).tolist() for i in range(len(split.train))] == [[1, 2, 3], [3, 4, 5]]
    assert split.notes == {"baskets_of_other_sizes": 2}
    for asked, basket, user in ((split.validation, [1, 2, 4], 0), (split.test, [1, 4, 5], 1)):
        assert sorted([*asked.histories.history(0), *asked.targets]) == basket
        assert asked.histories.users.tolist() == [user] and len(asked) == 1
    audit(dataset, split)
    other = {BasketCompletion(3, 4, 0.25, 0.25, seed).split(dataset).test.targets[0] for seed in range(9)}
    assert other == {1, 4, 5}


def test_what_has_no_baskets_says_so():
    lonely = build(logs([(user, item, time) for user in "ab" for time, item in enumerate("pqrs")]))
    assert len(LeaveOneOut().split(lonely).test) == 2
    with pytest.raises(InputError, match="runs of one time stamp"):
        BasketCompletion().split(lonely)
    for wrong in ({"least": 5, "most": 4}, {"validation": 0.5, "test": 0.5}):
        with pytest.raises(SettingError):
            BasketCompletion(**wrong)
