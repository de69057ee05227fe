"""An order of catalogs for a curriculum, by what their texts say: advice, which nothing applies by itself.

An order starts with a catalog whose items are alike and proceeds by steps (after the curriculum designer of "Learning
to Learn", which orders tasks so). It scores

    1 - spread(first) + sum over steps of [1 - D(current, end)] + D(current, next),

where D is the distance between two catalogs, each row divided by its largest entry, and `end` the one of the order's
two ends that is farther from the current catalog: so it stays near both ends, and each step says something new. What
"end" means is not published; this is our reading.
"""

from collections.abc import Sequence
from itertools import pairwise, permutations

import numpy as np

from recjax.typing import InputError

MOST = 7
"""Catalogs of which all orders are tried."""


def spread(vectors: np.ndarray) -> float:
    """Spread of the items of a catalog: 0 for equal vectors, up to 1.

    Args:
        vectors: float [n, d], of length 1 or 0.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    return float(1.0 - mean @ mean)


def distances(catalogs: Sequence[np.ndarray], directions: int = 64, seed: int = 0) -> np.ndarray:
    """Sliced Wasserstein distances between clouds of vectors, float64 [k, k].

    The distance along a direction is the mean difference of the quantiles of the two clouds there.

    Args:
        catalogs: float [n, d] each.
        directions: how many are drawn.
        seed: of the draw.
    """
    drawn = np.random.default_rng(seed).normal(size=(catalogs[0].shape[1], directions))
    levels = (np.arange(100) + 0.5) / 100
    along = [np.quantile(vectors @ (drawn / np.linalg.norm(drawn, axis=0)), levels, axis=0) for vectors in catalogs]
    return np.array([[np.abs(one - other).mean() for other in along] for one in along])


def order_score(order: Sequence[int], between: np.ndarray, spreads: Sequence[float]) -> float:
    """Score of an order, see the top of this file.

    >>> between, spreads = np.array([[0.0, 0.5, 1.0], [1.0, 0.0, 1.0], [1.0, 0.5, 0.0]]), [0.2, 0.5, 0.5]
    >>> round(order_score([0, 1, 2], between, spreads), 3)
    2.3

    Args:
        order: numbers of the catalogs.
        between: float [k, k], distances, each row divided by its largest.
        spreads: of the catalogs.
    """
    first, last = order[0], order[-1]
    steps = (1 - max(between[now, first], between[now, last]) + between[now, after] for now, after in pairwise(order))
    return float(1 - spreads[first] + sum(steps))


def relative(between: np.ndarray) -> np.ndarray:
    """Distances with each row divided by its largest entry, float64 [k, k]."""
    return between / np.maximum(between.max(axis=1, keepdims=True), 1e-12)


def advised_order(between: np.ndarray, spreads: Sequence[float]) -> list[int]:
    """The order with the best score, of all there are.

    Args:
        between: float [k, k], distances, each row divided by its largest.
        spreads: of the catalogs.

    Raises:
        InputError: fewer than two catalogs, or more than `MOST`.
    """
    if not 2 <= len(spreads) <= MOST:
        raise InputError(f"{len(spreads)} catalogs were given to be ordered, expected 2 to {MOST}")
    return list(max(permutations(range(len(spreads))), key=lambda order: order_score(order, between, spreads)))
