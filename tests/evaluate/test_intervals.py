"""Bootstrap and paired tests against SciPy used the plain way."""

import numpy as np
import pytest
from scipy import stats

from recjax.evaluate.intervals import bootstrap, holm, paired, spread
from recjax.evaluate.metrics import MISS, mean_metrics, user_metrics


def ranks(count: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).geometric(0.05, count).astype(np.int64)
    drawn[::9] = MISS
    return drawn


def test_bootstrap_agrees_with_scipy():
    found = bootstrap(ranks(400, 0), 4_000, seed=1)
    for name in ("hr@10", "ndcg@10", "mrr"):
        values = user_metrics(ranks(400, 0))[name]
        plain = stats.bootstrap((values,), np.mean, n_resamples=4_000, method="percentile", rng=2).confidence_interval
        width = plain.high - plain.low
        assert found[name] == pytest.approx([plain.low, plain.high], abs=0.08 * width)
        low, high = found[name]
        assert low < mean_metrics(ranks(400, 0))[name] < high


def test_bootstrap_is_reproducible_and_can_be_left_out():
    assert bootstrap(ranks(50, 0), 100) == bootstrap(ranks(50, 0), 100)
    assert bootstrap(ranks(50, 0), 0) == {}


def test_paired_is_the_paired_test_on_users_averaged_over_seeds():
    first, second = [ranks(300, 0), ranks(300, 1)], [np.maximum(ranks(300, 0) // 2, 1), ranks(300, 1)]
    result = paired(first, second)
    a = np.mean([user_metrics(r)["ndcg@10"] for r in first], axis=0)
    b = np.mean([user_metrics(r)["ndcg@10"] for r in second], axis=0)
    assert result["difference"] == pytest.approx((b - a).mean())
    assert result["p_t"] == pytest.approx(stats.ttest_rel(b, a).pvalue)
    low, high = result["interval"]
    assert low < result["difference"] < high
    assert result["p_wilcoxon"] < 0.01


def test_equal_systems_do_not_differ():
    result = paired([ranks(30, 0)], [ranks(30, 0)])
    assert (result["p_t"], result["p_wilcoxon"], result["difference"]) == (1.0, 1.0, 0.0)


def test_spread_over_seeds():
    result = spread([{"mrr": 0.1, "x": 1.0}, {"mrr": 0.3}])
    assert set(result) == {"mrr"}
    assert result["mrr"] == pytest.approx(
        {
            "mean": 0.2,
            "std": np.std([0.1, 0.3], ddof=1),
            "min": 0.1,
            "max": 0.3,
            "runs": 2,
            "low": 0.2 - 12.7062 * 0.1,  # the t quantile of one degree of freedom; the standard error is 0.1
            "high": 0.2 + 12.7062 * 0.1,
        },
        rel=1e-5,
    )
    assert "low" not in spread([{"mrr": 0.1}])["mrr"]


def test_holm_by_hand():
    # Sorted: 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, of which the last may not fall.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
