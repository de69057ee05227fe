"""Uncertainty of figures: bootstrap over users, spread over seeds, paired tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recjax.evaluate.metrics import accuracy, cutoff, user_metrics

LEVEL = 0.95


def p_text(p: float, digits: int = 2) -> str:
    """A p-value in words; one too small for a number is not called zero.

    >>> p_text(0.0312), p_text(0.0)
    ('p = 0.031', 'p < 1e-300')
    """
    return f"p = {p:.{digits}g}" if p else "p < 1e-300"


def bootstrap(
    ranks: np.ndarray, resamples: int, seed: int = 0, level: float = LEVEL, k: int | None = None
) -> dict[str, list[float]]:
    """Percentile bootstrap intervals of the accuracy metrics, users resampled with replacement.

    A mean depends on how often each distinct rank was drawn and on nothing else, so resamples are drawn as counts of
    distinct ranks (multinomial): the same distribution as drawing users, without `resamples x n` draws.

    Args:
        ranks: int64 [n].
        resamples: how many; 0 gives no intervals.
        seed: of the draw.
        level: coverage.
        k: see `user_metrics`.

    Returns:
        Metric -> [low, high].
    """
    if not resamples or not len(ranks):
        return {}
    distinct, counts = np.unique(ranks, return_counts=True)
    found = user_metrics(distinct, k)
    values = np.stack([found[name] for name in accuracy(k)], axis=1)
    drawn = np.random.default_rng(seed).multinomial(len(ranks), counts / len(ranks), size=resamples)
    means = drawn @ values / len(ranks)
    tails = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: [float(low), float(high)] for name, low, high in zip(accuracy(k), *tails, strict=True)}


def bootstrap_values(
    values: dict[str, np.ndarray], resamples: int, seed: int = 0, level: float = LEVEL
) -> dict[str, list[float]]:
    """Percentile bootstrap intervals of means over users, users resampled with replacement.

    Args:
        values: metric -> float64 [n], its value for every user.
        resamples: how many; 0 gives no intervals.
        seed: of the draw.
        level: coverage.

    Returns:
        Metric -> [low, high].
    """
    users = len(next(iter(values.values()), ()))
    if not resamples or not users:
        return {}
    table, rng, means = np.stack(list(values.values()), axis=1), np.random.default_rng(seed), []
    for _ in range(resamples):
        means.append(np.bincount(rng.integers(0, users, users), minlength=users) @ table / users)
    tails = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: [float(low), float(high)] for name, low, high in zip(values, *tails, strict=True)}


def spread(figures: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (n - 1), smallest and largest of each metric over several seeds.

    Of several seeds also `low` and `high`, the 95 % interval of the mean by Student's t: what other seeds would give.
    """
    shared = [name for name in figures[0] if all(name in other for other in figures)]
    result = {}
    for name in shared:
        values = np.array([figure[name] for figure in figures], np.float64)
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        result[name] = {
            "mean": float(values.mean()),
            "std": deviation,
            "min": float(values.min()),
            "max": float(values.max()),
            "runs": len(values),
        }
        if len(values) > 1:
            from scipy import stats  # slow to import, and training imports this file

            half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * deviation / len(values) ** 0.5
            result[name] |= {"low": result[name]["mean"] - half, "high": result[name]["mean"] + half}
    return result


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many tests were made (Holm 1979), in the order given.

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1. Whoever calls differences
    real whose corrected p is below 0.05 is wrong about any of them in at most 5 % of such comparisons.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]), 1.0)
    return corrected.tolist()


def paired(first: Sequence[np.ndarray], second: Sequence[np.ndarray], metric: str = "ndcg@10") -> dict[str, Any]:
    """True if two systems differ for the same users; the seeds of each are averaged per user before.

    Args:
        first: ranks int64 [n] of one system, one array a seed.
        second: ranks of the other, users in the same order.
        metric: which metric.

    Returns:
        Mean of each, difference (second - first) with its 95 % interval (t), and p-values of the paired t-test and of
        Wilcoxon's signed-rank test. p-values are 1 where no user differs.
    """
    a, b = (
        np.mean([user_metrics(ranks, cutoff(metric))[metric] for ranks in system], axis=0) for system in (first, second)
    )
    return paired_values(a, b, metric)


def paired_values(a: np.ndarray, b: np.ndarray, metric: str) -> dict[str, Any]:
    """`paired` from what each user has of the metric under either system, float64 [n]."""
    difference = b - a
    result = {"metric": metric, "users": len(a), "first": float(a.mean()), "second": float(b.mean())}
    result["difference"] = float(difference.mean())
    if len(a) < 2 or not np.ptp(difference):
        same = float(difference.mean())
        return result | {
            "interval": [same, same],
            "p_t": 1.0 if same == 0 else 0.0,
            "p_wilcoxon": 1.0 if same == 0 else 0.0,
        }
    from scipy import stats  # slow to import, and training imports this file

    test = stats.ttest_rel(b, a)
    interval = test.confidence_interval(LEVEL)
    wilcoxon: Any = stats.wilcoxon(b, a, zero_method="zsplit", method="approx")
    return result | {
        "interval": [float(interval.low), float(interval.high)],
        "p_t": float(test.pvalue),
        "p_wilcoxon": float(wilcoxon.pvalue),
    }
