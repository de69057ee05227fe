"""Cold start: short windows of the histories, the same for models, floors and masks."""

import dataclasses

import numpy as np
import pytest

from recjax.data.splits import Examples, LeaveOneOut
from recjax.evaluate.metrics import MISS
from recjax.evaluate.protocol import Evaluate, evaluate, examples_of
from recjax.typing import InputError
from tests.evaluate import toy
from tests.evaluate.test_protocol import rendered

DATA = toy.dataset()
SPLIT = LeaveOneOut().split(DATA)
MODEL = toy.TwoTables(DATA.n_items)
PARAMS = MODEL.init(None, None, None)
COLD = Evaluate(users_per_batch=16, bootstrap=0, max_history=3)


def window(row: int) -> np.ndarray:
    """View of a test history under the protocol, after its length was checked by the test below."""
    length = int(examples_of(COLD, DATA, SPLIT).histories.lengths[row])
    return SPLIT.test.histories.history(row)[-length:]


def reference(mask_seen: bool, score) -> list[int]:
    """Rank of every target, by sorting the catalog; `score`: a history -> [items + 1], -inf: never recommended."""
    ranks = []
    for row, target in enumerate(SPLIT.test.targets.tolist()):
        shown = window(row)
        scores = score(shown)
        hidden = set(shown.tolist()) if mask_seen else set()
        items = [item for item in range(1, DATA.n_items + 1) if item not in hidden and scores[item] > -np.inf]
        order = sorted(items, key=lambda item: (-scores[item], item))
        ranks.append(order.index(target) + 1 if target in order else int(MISS))
    return ranks


def test_windows_end_right_before_the_target_and_have_every_length():
    whole, cut = SPLIT.test, examples_of(COLD, DATA, SPLIT)
    np.testing.assert_array_equal(cut.targets, whole.targets)
    np.testing.assert_array_equal(cut.histories.users, whole.histories.users)
    for row in range(len(whole)):
        shown = cut.histories.history(row)
        assert 1 <= len(shown) <= 3
        np.testing.assert_array_equal(shown, whole.histories.history(row)[-len(shown) :])
    assert np.bincount(cut.histories.lengths).min(initial=99, where=np.arange(4) > 0) >= len(whole) // 6


def test_a_user_keeps_the_window_whatever_else_is_asked():
    cut = examples_of(COLD, DATA, SPLIT).histories.lengths
    rows = np.arange(5, 30)
    some = dataclasses.replace(SPLIT, test=Examples(SPLIT.test.histories.take(rows), *_columns(rows)))
    np.testing.assert_array_equal(examples_of(COLD, DATA, some).histories.lengths, cut[rows])
    other = examples_of(dataclasses.replace(COLD, seed=1), DATA, SPLIT).histories.lengths
    assert (other != cut).any()
    whole = SPLIT.test.histories.lengths
    long = examples_of(dataclasses.replace(COLD, max_history=1000), DATA, SPLIT).histories.lengths
    assert (long <= whole).all() and (long == whole).any()


def _columns(rows):
    return SPLIT.test.targets[rows], SPLIT.test.times[rows]


@pytest.mark.parametrize("mask_seen", ["history", "none"])
def test_ranks_equal_a_slow_reference(mask_seen):
    report = evaluate(MODEL, PARAMS, DATA, SPLIT, toy.VIEW, dataclasses.replace(COLD, mask_seen=mask_seen))
    masked = mask_seen == "history"
    np.testing.assert_array_equal(report.ranks(), reference(masked, lambda shown: toy.scores(PARAMS, shown)))

    def recency(shown):
        scores = np.full(DATA.n_items + 1, -np.inf)
        for place, item in enumerate(shown):
            scores[item] = place
        return scores

    found = np.array(reference(masked, recency))
    assert report.floors["repeat_last"]["hr@10"] == pytest.approx((found <= 10).mean())
    assert masked or report.floors["repeat_last"]["hr@10"] > 0
    if masked:  # of the seven in a hundred repeats, only those inside the window are misses
        repeats = sum(int(t) in window(row) for row, t in enumerate(SPLIT.test.targets))
        whole = sum(int(t) in SPLIT.test.histories.history(row) for row, t in enumerate(SPLIT.test.targets))
        assert report.counts["repeat"] == repeats < whole


def test_the_report_says_so():
    plain = evaluate(MODEL, PARAMS, DATA, SPLIT, toy.VIEW, dataclasses.replace(COLD, max_history=None), floors=False)
    assert "max_history" not in plain.to_json()["protocol"] and "cold start" not in rendered(plain.table())
    report = evaluate(MODEL, PARAMS, DATA, SPLIT, toy.VIEW, COLD, floors=False)
    assert report.to_json()["protocol"]["max_history"] == 3
    assert "cold start, last 1 to 3 events" in rendered(report.table()).replace("\n", " ")
    assert report.audit == plain.audit  # of the split, not of what is shown


def test_a_length_that_cannot_be():
    with pytest.raises(InputError, match=r"max_history is 0, expected 1 or more, or none"):
        Evaluate(max_history=0)
