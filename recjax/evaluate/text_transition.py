"""Transition counts smoothed towards where an item's text points: the posterior mean under a Dirichlet prior.

    P(b|a) = (c_ab + κ p(b|a)) / (n_a + κ)

c_ab are transition counts of the training events, n_a their sum, and p(b|a) a prior that sums to 1: half the popularity
of b, half the text neighbours of a. An item that nobody has had yet is judged by its text alone, one with many events
by what followed it. κ counts events, so it means the same in every catalog. The constants were fixed once for all
catalogs; nothing is fitted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from recjax.data.splits import Histories
from recjax.data.transitions import item_counts, recency_weights, transition_counts
from recjax.evaluate.neighbours import nearest

STRENGTH = 32.0
"""κ: the prior weighs as much as so many events."""

POPULAR = 0.5
"""Share of popularity in the prior; all of it for an item without text neighbours."""

NEIGHBOURS = 100
"""Items that a text points to."""

RECENT = 12
"""Items of a history that count, each step back half as much."""


def asked_items(histories: Histories) -> np.ndarray:
    """int64 [m], ascending: the items that count in any of the histories, the only ones whose neighbours matter."""
    return np.unique(np.asarray(histories.take(np.arange(len(histories)), last=RECENT).items, np.int64))


def text_prior(
    vectors: np.ndarray | sparse.csr_array, items: np.ndarray | None = None, neighbours: int = NEIGHBOURS
) -> sparse.csr_array:
    """Prior of each text: squared cosines with the nearest texts, divided by their sum; float64 [v, v] sparse.

    Args:
        vectors: float [v, d], dense or sparse, rows of length 1, or zeros where an item has no text.
        items: int64 [m], those that will be asked for; all by default.
        neighbours: of each item; of equally near ones the first.

    Returns:
        Rows that sum to 1, or are empty where no other text is near at all.
    """
    size = len(vectors) if isinstance(vectors, np.ndarray) else len(vectors.indptr) - 1
    rows = np.arange(size) if items is None else items
    found = nearest(_cosines(vectors, neighbours), rows, size, neighbours)
    found.data **= 2
    return scaled(found, found.sum(axis=1))


def _cosines(vectors: Any, neighbours: int) -> Callable[[np.ndarray], sparse.csr_array]:
    """Items -> their cosines with all; of dense vectors only those that can be among the nearest."""
    if sparse.issparse(vectors):
        columns = sparse.csr_array(vectors.T)
        return lambda rows: sparse.csr_array(vectors[rows] @ columns)

    def nearest_of_all(rows: np.ndarray) -> sparse.csr_array:
        found = vectors[rows] @ vectors.T
        place = max(found.shape[1] - neighbours - 1, 0)  # one more, as an item is its own nearest
        found[found < np.partition(found, place, axis=1)[:, [place]]] = 0.0
        return sparse.csr_array(found)

    return nearest_of_all


def scaled(matrix: sparse.csr_array, sums: np.ndarray) -> sparse.csr_array:
    """The rows of a matrix divided by `sums` [v]; rows whose sum is 0 stay as they are."""
    return sparse.csr_array(sparse.diags_array(1.0 / np.where(sums > 0, sums, 1.0)) @ matrix)


@dataclass(frozen=True, eq=False)
class TextTransitions:
    """P(b|a) of the formula above, its sparse part and its popularity apart.

    Attributes:
        weights: float64 [v, v] sparse, P(b|a) without the popularity of the prior.
        share: float64 [v], how much of each item's P is the popularity of the prior.
        popularity: float64 [v], share of each item in the training events.
    """

    weights: sparse.csr_array
    share: np.ndarray
    popularity: np.ndarray

    @classmethod
    def fit(
        cls,
        train: Histories,
        n_items: int,
        prior: sparse.csr_array,
        *,
        strength: float = STRENGTH,
        popular: float = POPULAR,
    ) -> "TextTransitions":
        """Counts the training histories, and mixes them with the prior.

        Args:
            train: training histories.
            n_items: size of the catalog.
            prior: float [v, v] sparse, rows that sum to 1 or are empty, see `text_prior`.
            strength: κ; 0 counts and nothing else.
            popular: share of popularity in the prior of items that `prior` knows.
        """
        counts = transition_counts(train, n_items, backward=0.0)
        popularity = item_counts(train.items, n_items).astype(np.float64)
        popularity /= max(popularity.sum(), 1.0)
        rest = np.where(prior.sum(axis=1) > 0, popular, 1.0)
        events = counts.sum(axis=1) + strength
        mixed = counts + strength * (sparse.diags_array(1.0 - rest) @ prior)
        share = np.divide(strength * rest, events, out=np.zeros(n_items + 1), where=events > 0)
        return cls(scaled(sparse.csr_array(mixed), events), share, popularity)

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 [n, v]: sum of P(b|a) over the last twelve items a, weighted by 0.5 ** age."""
        query = recency_weights(histories, len(self.popularity), RECENT)
        scores = sparse.csr_array(query @ self.weights).toarray()
        scores += (query @ self.share)[:, None] * self.popularity
        return scores
