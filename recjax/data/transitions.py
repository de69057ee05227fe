"""Windowed transition counts: what followed what, and the score they give the next item.

This counting model is the floor every sequential model is held against, and the audit's probe of whether the order of a
dataset's events says anything. Its constants were fixed by hand before any result was seen and are not tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.ranges import ranges
from recjax.data.store.columns import StoredColumn
from recjax.late import sparse

HEAD_SHARE = 0.2
"""Share of the items that is called head, unless another is given."""
GAPS = (1.0, 0.5, 0.25)
"""Weight of b after a at distance 1, 2, 3."""
BACKWARD = 0.5
"""Weight of a after b when b was seen after a, as a share of the forward weight."""
RECENT = 5
"""Items of a history that count, each step back half as much."""
POPULARITY = 1e-7


def item_counts(items: np.ndarray, n_items: int) -> np.ndarray:
    """int64 [v]: how often each item occurs in `items`; index 0 is padding."""
    if isinstance(items, StoredColumn):
        return items.shared_counts(n_items + 1)
    return np.bincount(items, minlength=n_items + 1)


def head_items(counts: np.ndarray, share: float = HEAD_SHARE, unseen: int = 0) -> np.ndarray:
    """bool [v]: the share of the items, rounded up, that has the most training events; ties by the smaller id.

    Args:
        counts: int [v], training events of each item; index 0 is padding.
        share: of the items.
        unseen: items without any event that are not counted as items.
    """
    order = np.argsort(-counts[1:], kind="stable") + 1
    head = np.zeros(len(counts), bool)
    head[order[: int(np.ceil(share * (len(counts) - 1 - unseen)))]] = True
    return head


def ages(histories: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Of each event its history, and how many events of that came after it; both int64 [m]."""
    lengths = histories.lengths
    return np.repeat(np.arange(len(histories)), lengths), np.repeat(lengths, lengths) - 1 - ranges(0, lengths)


def recency_weights(histories: Histories, size: int, last: int) -> sparse.csr_array:
    """Sum of 0.5 ** age over the `last` most recent events of each item, float64 [n, size] sparse."""
    recent = histories.take(np.arange(len(histories)), last=last)
    row, age = ages(recent)
    return sparse.csr_array((0.5**age, (row, recent.items)), shape=(len(recent), size))


def best_of_rows(row: np.ndarray, column: np.ndarray, value: np.ndarray, k: int) -> np.ndarray:
    """int64 [m]: which entries are among the k largest of their row, best first; equal values by column.

    Args:
        row: int [n], row of each entry.
        column: int [n].
        value: float [n].
        k: entries a row, at most.
    """
    order = np.lexsort((column, np.negative(value), row))
    return order[place_in(row[order]) < k]


def place_in(rows: np.ndarray) -> np.ndarray:
    """int64 [n], place of each entry among those of its row, from 0; `rows` ascend."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)


def user_items(histories: Histories, n_items: int) -> sparse.csr_array:
    """1 where a history has an item, however often; float64 [n, v] sparse."""
    histories = histories.compact()
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    shape = (len(histories), n_items + 1)
    found = sparse.csr_array((np.ones(len(row)), (row, np.asarray(histories.items))), shape=shape)
    found.sum_duplicates()
    found.data[:] = 1.0
    return found


def transition_counts(
    histories: Histories, n_items: int, backward: float = BACKWARD, gaps: Sequence[float] = GAPS
) -> sparse.csr_array:
    """Counts of b near a, float64 [v, v] sparse.

    For each distance g inside a history, `gaps[g - 1]` is added to (a, b) and `backward` times that to (b, a); a = b is
    skipped.
    """
    size, histories = n_items + 1, histories.compact()
    row = np.repeat(np.arange(len(histories), dtype=np.int32), histories.lengths)
    counts = sparse.csr_array((size, size), dtype=np.float64)
    for gap, weight in enumerate(gaps, start=1):
        before, after = histories.items[:-gap], histories.items[gap:]
        keep = (row[:-gap] == row[gap:]) & (before != after)
        pairs = (before[keep], after[keep])
        forward = sparse.csr_array((np.full(len(pairs[0]), weight), pairs), shape=(size, size))
        counts = sparse.csr_array(counts + forward)
        if backward:
            counts = sparse.csr_array(counts + backward * forward.T)
    return counts


@dataclass(frozen=True, eq=False)
class Transitions:
    """The fitted counting model.

    Attributes:
        weights: float64 [v, v] sparse, the scaled counts: rows by `(row sum) ** -0.5`, columns by
            `(count + 1) ** -0.25`.
        popularity: float64 [v], what breaks ties between items the counts do not tell apart.
    """

    weights: sparse.csr_array
    popularity: np.ndarray

    @classmethod
    def fit(cls, train: Histories, n_items: int, popularity: np.ndarray | None = None) -> Transitions:
        """Counts over training histories.

        Args:
            train: training histories (under leave-one-out, all but each user's last two events).
            n_items: size of the catalog.
            popularity: [v], events of each item before the test (under leave-one-out: training and validation);
                default: training only.
        """
        counts = transition_counts(train, n_items)
        trained = item_counts(train.items, n_items)
        sums = counts.sum(axis=1)
        rows = np.divide(1.0, np.sqrt(sums), out=np.zeros_like(sums), where=sums > 0)
        columns = (trained + 1.0) ** -0.25
        weights = sparse.csr_array(sparse.diags_array(rows) @ counts @ sparse.diags_array(columns))
        return cls(weights, np.asarray(trained if popularity is None else popularity, np.float64))

    def scores(self, histories: Histories) -> np.ndarray:
        """Score of every item after each history, float64 [n, v]; column 0 (padding) is -inf.

        Sum over the last five items of their weights, halved with each step back, plus `1e-7 * popularity`. Seen items
        are not masked. Dense: ask for some hundred histories at a time.
        """
        query = recency_weights(histories, len(self.popularity), RECENT)
        scores = sparse.csr_array(query @ self.weights).toarray()
        scores += POPULARITY * self.popularity
        scores[:, 0] = -np.inf
        return scores


def target_ranks(scores: np.ndarray, histories: Histories, targets: np.ndarray, mask_seen: bool = True) -> np.ndarray:
    """Rank of each target, int64 [n]: 1 + the unseen items that score higher + those that tie and have a smaller id.

    Args:
        scores: float64 [n, v]; overwritten where `mask_seen`.
        histories: what each row has seen.
        targets: int32 [n]; a target that was seen before still stands in the list.
        mask_seen: whether seen items leave the list.
    """
    rows = np.arange(len(targets))
    own = scores[rows, targets]
    if mask_seen:
        scores[np.repeat(rows, histories.lengths), histories.items] = -np.inf
    better = (scores > own[:, None]).sum(axis=1)
    ids = np.arange(scores.shape[1])
    tied = ((scores == own[:, None]) & (ids < targets[:, None])).sum(axis=1)
    return 1 + better + tied
