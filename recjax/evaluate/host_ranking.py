"""Ranks users by a function that scores the whole catalog on the host: the rules that floors and models share.

Scores are float64 [n, v], -inf where an item is not recommended at all. Users go through in chunks, so that a chunk's
scores stay in the processor's cache.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recjax.data.splits import Examples, Histories
from recjax.evaluate.metrics import MISS
from recjax.evaluate.ranking import Rankings

CHUNK_SCORES = 2**20
"""Scores held at a time (8 MB), but at least one user's."""

GROUP = 32
"""Items whose best score stands for them when a list is cut off."""


@dataclass(frozen=True)
class Rules:
    """Items that compete with a target.

    Attributes:
        mask_seen: items of the history leave the ranking, and a target among them is a miss.
        k: length of the lists; 0 for none.
        candidates: int32 [n, c], the only items that compete with each target, 0-padded; None for the whole catalog.
    """

    mask_seen: bool = True
    k: int = 20
    candidates: np.ndarray | None = None


def rank_scored(score: Callable[[Histories], np.ndarray], examples: Examples, n_items: int, rules: Rules) -> Rankings:
    """Ranks every example by `score`.

    Args:
        score: histories -> float64 [n, v], a fresh array; column 0 (padding) is ignored.
        examples: histories and targets.
        n_items: catalog size.
        rules: what competes.
    """
    size = max(1, CHUNK_SCORES // (n_items + 1))
    lists_wanted = rules.k and rules.candidates is None
    ranks = np.zeros(len(examples), np.int64)
    lists = np.zeros((len(examples), rules.k), np.int32) if lists_wanted else None
    for start in range(0, len(examples), size):
        rows = np.arange(start, min(start + size, len(examples)))
        part = examples.take(rows)
        scores = score(part.histories)
        scores[:, 0] = -np.inf
        own = scores[np.arange(len(part)), part.targets]
        if rules.mask_seen:
            scores[np.repeat(np.arange(len(part)), part.histories.lengths), part.histories.items] = -np.inf
        if rules.candidates is None:
            ranks[rows] = target_ranks(scores, own, part.targets)
        else:
            ids = rules.candidates[rows]
            ahead = beats(np.take_along_axis(scores, ids, axis=1), ids, own, part.targets) & (ids > 0)
            ranks[rows] = 1 + ahead.sum(axis=1)
        ranks[rows[own == -np.inf]] = MISS
        if lists is not None:
            lists[rows] = top_items(scores, rules.k)
    if rules.mask_seen:
        ranks[examples.repeats()] = MISS
    return Rankings(ranks, lists)


def beats(scores: np.ndarray, ids: np.ndarray, own: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """bool [n, c]: whether each item ranks before the target: a higher score, or the same and a smaller id."""
    own, targets = own[:, None], targets[:, None]
    return (scores > own) | ((scores == own) & (ids < targets))


def target_ranks(scores: np.ndarray, own: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """int64 [n], the rank of a target with score `own` [n] among all items; -inf never competes."""
    ranks = 1 + _counts(scores > own[:, None])
    equal = scores == own[:, None]
    tied = np.flatnonzero(_counts(equal) > 1)
    ids = np.arange(scores.shape[1])
    ranks[tied] += _counts(equal[tied] & (ids < targets[tied, None]))
    return ranks


def _counts(mask: np.ndarray) -> np.ndarray:
    """int64 [n], the true entries of each row: NumPy counts a whole array much faster than along an axis."""
    return np.array([np.count_nonzero(row) for row in mask], np.int64)


def top_items(scores: np.ndarray, k: int) -> np.ndarray:
    """int32 [n, k], the best items in order, equal scores by id; 0 where fewer than k have a score above -inf.

    The k-th best of the groups' best scores cannot exceed the k-th best score, so everything below it is left out
    before anything is sorted.
    """
    count, size = scores.shape
    groups = size // GROUP
    floor = np.full(count, np.finfo(np.float64).min)  # above -inf
    if groups >= k:
        best = scores[:, : groups * GROUP].reshape(count, GROUP, groups).max(axis=1)
        floor = np.maximum(floor, np.partition(best, groups - k, axis=1)[:, groups - k])
    rows, ids = np.nonzero(scores >= floor[:, None])
    order = np.lexsort((ids, -scores[rows, ids], rows))
    rows, ids = rows[order], ids[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    lists = np.zeros((count, k), np.int32)
    kept = place < k
    lists[rows[kept], place[kept]] = ids[kept]
    return lists
