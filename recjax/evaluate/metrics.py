"""Metrics of one held-out target a user, from the rank of the target alone; and of the lists, from the items in them.

With a single relevant item, HR@k is Recall@k, and NDCG@k is 1 / log2(1 + rank) within the first k and 0 beyond (the
ideal DCG is 1). MRR is taken over the whole ranking.
"""

import numpy as np

MISS = np.int64(2**62)
"""The rank of a target that is not in the ranking at all."""

CUTOFFS = {"hr": (1, 5, 10, 20), "ndcg": (5, 10, 20)}
ACCURACY = (*(f"{name}@{k}" for name, cutoffs in CUTOFFS.items() for k in cutoffs), "mrr")
"""Names of the metrics that depend on ranks alone, in the order in which they are printed."""

LIST_LENGTH = 10
"""Items of a list that coverage, novelty and popularity lift look at."""


def accuracy(k: int | None = None) -> tuple[str, ...]:
    """Names of the metrics that depend on ranks alone, `ACCURACY` and those within the first `k`."""
    found = [f"{name}@{cutoff}" for name, cutoffs in CUTOFFS.items() for cutoff in _with(cutoffs, k)]
    return (*found, "mrr")


def _with(cutoffs: tuple[int, ...], k: int | None) -> tuple[int, ...]:
    return cutoffs if k is None or k in cutoffs else (*cutoffs, k)


def cutoff(metric: str) -> int | None:
    """k of a metric called `NAME@k`."""
    digits = metric.rpartition("@")[2]
    return int(digits) if digits.isdecimal() else None


def user_metrics(ranks: np.ndarray, k: int | None = None) -> dict[str, np.ndarray]:
    """Every accuracy metric of every user, float64 [n].

    Args:
        ranks: int64 [n], from 1; `MISS` where the target was not ranked.
        k: another cut-off beside those of `CUTOFFS`.
    """
    ranks = np.asarray(ranks, np.int64)
    if len(ranks) and ranks.min() < 1:
        raise ValueError(f"rank {ranks.min()} found, expected 1 or more")
    gain = 1.0 / np.log2(1.0 + ranks)
    values = {f"hr@{cut}": (ranks <= cut).astype(np.float64) for cut in _with(CUTOFFS["hr"], k)}
    values |= {f"ndcg@{cut}": np.where(ranks <= cut, gain, 0.0) for cut in _with(CUTOFFS["ndcg"], k)}
    return values | {"mrr": np.where(ranks < MISS, 1.0 / ranks, 0.0)}


def mean_metrics(ranks: np.ndarray, k: int | None = None) -> dict[str, float]:
    """Every accuracy metric, averaged over users."""
    return means(user_metrics(ranks, k))


def means(values: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean of each column."""
    return {name: float(column.mean()) for name, column in values.items()}


SET_CUTOFFS = (1, 5, 10, 20)
SET_ACCURACY = (*(f"{name}@{k}" for name in ("recall", "ndcg", "hr") for k in SET_CUTOFFS), "mrr")
"""Names of the metrics of several targets a user, in the order in which they are printed."""


def set_metrics(ranks: np.ndarray, users: np.ndarray, count: int, k: int | None = None) -> dict[str, np.ndarray]:
    """Every metric of several targets a user, float64 [count]; NaN for users without a target.

    recall@k is the share of a user's targets within the first k; ndcg@k sums 1 / log2(1 + rank) over these, divided by
    what the best order gives, the sum over the first min(k, targets) ranks; hr@k is whether any is there; mrr is 1 /
    the rank of the first one. With one target a user, they are those of `user_metrics`.

    >>> set_metrics(np.array([1, 3, 2]), np.array([0, 0, 1]), 2)["ndcg@5"].round(4).tolist()
    [0.9197, 0.6309]

    Args:
        ranks: int64 [m], of each target, from 1 and distinct for each user; `MISS` where it was not ranked.
        users: int [m], 0 to count - 1, whose target it is.
        count: number of users.
        k: another cut-off beside `SET_CUTOFFS`.
    """
    targets = np.bincount(users, minlength=count)
    gain, values = 1.0 / np.log2(1.0 + ranks), {}
    first = np.full(count, MISS)
    np.minimum.at(first, users, ranks)
    with np.errstate(invalid="ignore"):  # users without a target
        for cut in _with(SET_CUTOFFS, k):
            values[f"recall@{cut}"] = np.bincount(users, ranks <= cut, count) / targets
        for cut in _with(SET_CUTOFFS, k):
            ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2.0, cut + 2)))])
            values[f"ndcg@{cut}"] = np.bincount(users, gain * (ranks <= cut), count) / ideal[np.minimum(targets, cut)]
        for cut in _with(SET_CUTOFFS, k):
            values[f"hr@{cut}"] = np.where(targets > 0, first <= cut, np.nan)
        values["mrr"] = np.where(targets > 0, np.where(first < MISS, 1.0 / first, 0.0), np.nan)
    return values


def coverage(lists: np.ndarray, n_items: int) -> float:
    """Share of the catalog that stands in at least one list.

    Args:
        lists: int [n, k], item ids, 0 where a list ran out.
        n_items: catalog size.
    """
    items = np.unique(lists)
    return float((items > 0).sum() / n_items)


def novelty(lists: np.ndarray, counts: np.ndarray) -> float:
    """Mean self-information of the recommended items in bits, -log2 p(item) (Zhou et al. 2010, PNAS 107).

    p is the share of training events, with one event added to every item so that unseen items count and stay finite.

    Args:
        lists: int [n, k], item ids, 0 where a list ran out.
        counts: int [v], training events of each item.
    """
    bits = -np.log2((counts + 1.0) / (counts[1:] + 1.0).sum())
    items = lists[lists > 0]
    return float(bits[items].mean()) if len(items) else 0.0


def popularity_lift(
    lists: np.ndarray, profile_items: np.ndarray, profile_lengths: np.ndarray, counts: np.ndarray
) -> float:
    """Popularity lift of recommended items over those that users chose themselves (Abdollahpouri et al. 2020).

    (mean over users of the mean training count in their lists) / (the same in their histories) - 1: 0 is no bias, 1 is
    twice as popular. Users without a list or a history are left out.

    Args:
        lists: int [n, k], item ids, 0 where a list ran out.
        profile_items: int [m], the users' histories one after another.
        profile_lengths: int [n], their lengths.
        counts: int [v], training events of each item.
    """
    row = np.repeat(np.arange(len(profile_lengths)), profile_lengths)
    chosen = np.bincount(row, counts[profile_items], minlength=len(profile_lengths))
    listed = (lists > 0).sum(axis=1)
    use = (listed > 0) & (profile_lengths > 0)
    if not use.any():
        return 0.0
    shown = np.where(lists > 0, counts[lists], 0).sum(axis=1)[use] / listed[use]
    base = float((chosen[use] / profile_lengths[use]).mean())
    return float(shown.mean()) / base - 1.0 if base else 0.0
