"""Metrics against trec_eval, against a slow reference, and by hand."""

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, Success, nDCG

from recjax.evaluate.metrics import ACCURACY, MISS, coverage, mean_metrics, novelty, popularity_lift, user_metrics

TREC = {f"hr@{k}": Success @ k for k in (1, 5, 10, 20)} | {f"ndcg@{k}": nDCG @ k for k in (5, 10, 20)} | {"mrr": RR}


def slow_reference(scores: np.ndarray, seen: set[int], target: int) -> dict[str, float]:
    """The definition, item by item: sort what competes by (score desc, id asc), then look for the target."""
    competing = [item for item in range(1, len(scores)) if item not in seen]
    ranking = sorted(competing, key=lambda item: (-scores[item], item))
    rank = ranking.index(target) + 1 if target in ranking else math.inf
    values = {f"hr@{k}": float(rank <= k) for k in (1, 5, 10, 20)}
    values |= {f"ndcg@{k}": 1 / math.log2(rank + 1) if rank <= k else 0.0 for k in (5, 10, 20)}
    return values | {"mrr": 0.0 if rank == math.inf else 1 / rank}


def case(rng):
    """Scores with many ties, a history with repeats, and a target that may be seen."""
    scores = rng.integers(0, 9, 41).astype(float)
    seen = rng.integers(1, 41, rng.integers(0, 20))
    return scores, seen, int(rng.integers(1, 41))


def test_agree_with_trec_eval_and_with_the_slow_reference():
    rng = np.random.default_rng(0)
    qrels, run, ranks, slow = {}, {}, [], []
    for number in range(300):
        scores, seen, target = case(rng)
        own = scores[target]
        open_ = np.setdiff1d(np.arange(1, 41), seen)
        ahead = sum(scores[item] > own or (scores[item] == own and item < target) for item in open_)
        ranks.append(MISS if target in seen else 1 + ahead)
        slow.append(slow_reference(scores, set(seen.tolist()), target))
        # trec_eval gives ties to the larger document name.
        qrels[str(number)] = {f"{1000 - target}": 1}
        run[str(number)] = {f"{1000 - item}": scores[item] for item in open_}
    found = mean_metrics(np.array(ranks))
    assert set(found) == set(ACCURACY) == set(TREC)
    theirs = ir_measures.calc_aggregate(list(TREC.values()), qrels, run)
    for name, measure in TREC.items():
        assert found[name] == pytest.approx(theirs[measure], abs=1e-9), name
        assert found[name] == pytest.approx(np.mean([values[name] for values in slow]), abs=1e-12), name


def test_by_hand():
    values = user_metrics(np.array([1, 3, 10, 11, MISS]))
    assert values["hr@1"].tolist() == [1, 0, 0, 0, 0]
    assert values["hr@10"].tolist() == [1, 1, 1, 0, 0]
    assert values["ndcg@10"].tolist() == pytest.approx([1, 0.5, 1 / math.log2(11), 0, 0])
    assert values["ndcg@20"][3] == pytest.approx(1 / math.log2(12))
    assert values["mrr"].tolist() == pytest.approx([1, 1 / 3, 0.1, 1 / 11, 0])


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="rank 0"):
        user_metrics(np.array([1, 0]))


def test_coverage_counts_items_but_not_padding():
    assert coverage(np.array([[1, 2], [2, 0], [0, 0]]), 8) == 2 / 8


def test_novelty_is_mean_self_information():
    counts = np.array([0, 3, 1, 0])  # with one event more each: 4, 2, 1 of 7
    assert novelty(np.array([[1, 2], [3, 0]]), counts) == pytest.approx(np.mean(-np.log2(np.array([4, 2, 1]) / 7)))
    assert novelty(np.zeros((2, 3), int), counts) == 0.0


def test_popularity_lift_compares_lists_with_histories():
    counts = np.array([0, 10, 20, 40])
    lists = np.array([[3, 3], [2, 0], [0, 0]])  # means 40 and 20; the last user has no list
    lift = popularity_lift(lists, np.array([1, 1, 2, 3]), np.array([2, 1, 1]), counts)  # histories 10, 20
    assert lift == pytest.approx(30 / 15 - 1)
