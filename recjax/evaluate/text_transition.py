"""Transition counts smoothed towards where an item's text points: the posterior mean under a Dirichlet prior.

    P(b|a) = (c_ab + κ p(b|a)) / (n_a + κ)

c_ab are transition counts of the training events, n_a their sum, and p(b|a) a prior that sums to 1: half the popularity
of b, half the text neighbours of a. An item that nobody has had yet is judged by its text alone, one with many events
by what followed it. κ counts events, so it means the same in every catalog. The constants were fixed once for all
catalogs; nothing is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recjax.data.splits import Histories
from recjax.data.text_neighbours import scaled
from recjax.data.transitions import item_counts, recency_weights, transition_counts
from recjax.late import sparse

STRENGTH = 32.0
"""κ: the prior weighs as much as so many events."""

POPULAR = 0.5
"""Share of popularity in the prior; all of it for an item without text neighbours."""

RECENT = 12
"""Items of a history that count, each step back half as much."""


def asked_items(histories: Histories) -> np.ndarray:
    """int64 [m], ascending: the items that count in any of the histories, the only ones whose neighbours matter."""
    return np.unique(np.asarray(histories.take(np.arange(len(histories)), last=RECENT).items, np.int64))


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
    ) -> TextTransitions:
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
