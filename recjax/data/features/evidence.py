"""Evidence of a catalog: raw counts of what its users had together, and where each item's text points.

Counts are of events, not shares, so that they can be smoothed by a prior worth so many events, one more event is added
in place, and what a user contributed can be taken out again. Each relation has the strongest links of an item; the
sums over all links stand in `Totals`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.dataset import Dataset
from recjax.data.features.feature import Feature, Source, State
from recjax.data.features.relations import Counted, strongest, strongest_by, user_cosines
from recjax.data.items import Relation
from recjax.data.text_neighbours import text_prior
from recjax.data.transitions import item_counts, transition_counts, user_items
from recjax.late import sparse
from recjax.limits import SIZE, require
from recjax.text.tfidf import name_texts, tfidf

TOGETHER = 50
"""Last events of a user that count as had together, which bounds what one user costs."""

TOTALS = EVENTS, FOLLOWED, PRECEDED, USERS, SHARE, POPULARITY, TRUST = range(7)
"""Columns of `Totals`."""


def together_counts(histories: Histories, n_items: int) -> sparse.csr_array:
    """Users that had both a and b among their last 50 events, float64 [v, v] sparse; on the diagonal those of a."""
    users = _recent_items(histories, n_items)
    return sparse.csr_array(users.T @ users)


def _recent_items(histories: Histories, n_items: int) -> sparse.csr_array:
    """1 where a history has an item among its last 50 events; float64 [n, v] sparse."""
    return user_items(histories.take(np.arange(len(histories)), last=TOGETHER), n_items)


def catalog_prior(dataset: Dataset) -> sparse.csr_array:
    """Prior of each item by its text, rows that sum to 1 or are empty; float64 [v, v] sparse.

    Texts are the words and word pairs of names. Categories beside them, at half the weight, helped some catalogs a
    little and hurt others more.
    """
    return text_prior(tfidf(["", *name_texts(dataset.catalog)]))


def _following(source: Source) -> sparse.csr_array:
    """Counts of what users had after each item; float64 [v, v] sparse."""
    return source.once("following", lambda: transition_counts(source.train, source.dataset.n_items, backward=0.0))


def _users(source: Source) -> sparse.csr_array:
    return source.once("recent", lambda: _recent_items(source.train, source.dataset.n_items))


@dataclass(frozen=True)
class Following(Counted):
    """Counts of what users had after an item: 1, 1/2, 1/4 an event at distance 1, 2, 3.

    Attributes:
        before: what they had before it instead.
    """

    count: int = 64
    before: bool = False

    def make(self, source: Source, state: State) -> Relation:
        counts = _following(source)
        return strongest(sparse.csr_array(counts.T) if self.before else counts, self.count)


@dataclass(frozen=True)
class Together(Counted):
    """Counts of users that had both items, the strongest by the cosine n_ab / sqrt(n_a n_b)."""

    count: int = 64

    def make(self, source: Source, state: State) -> Relation:
        users = _users(source)
        owners = np.maximum(np.asarray(users.sum(axis=0)), 1)
        found = strongest_by(user_cosines(users), len(owners), self.count)
        ids = np.asarray(found.ids)
        values = np.rint(np.asarray(found.values) * np.sqrt(owners[:, None] * owners[ids]))
        return Relation(found.ids, values.astype(np.float32))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class TextLinks(Feature):
    """Items with the nearest texts, weighted so that the weights of an item sum to 1; see `catalog_prior`.

    Attributes:
        count: links of an item.
    """

    count: int = 100

    def __post_init__(self) -> None:
        require(self, count=SIZE)

    def shape(self) -> int:
        return self.count

    def make(self, source: Source, state: State) -> Relation:
        return strongest(catalog_prior(source.dataset), self.count)


@dataclass(frozen=True)
class Totals(Feature):
    """Sums of each item's counts and what is known of its catalog, float32 [rows, 7].

    The item's events, the counts after it, those before it, its users; its share of all events; the logarithm of its
    events as a share of the largest; and, the same for all items, the trust in text: the share of counted transitions
    that lead to one of the text neighbours, one in twenty until events say otherwise.

    Attributes:
        text: the relation of text neighbours, made before.
    """

    text: str = "text"

    @property
    def counts_events(self) -> bool:
        return True

    def shape(self) -> tuple[int, ...]:
        return (len(TOTALS),)

    def make(self, source: Source, state: State) -> np.ndarray:
        n_items, train = source.dataset.n_items, source.train.compact()
        counts, users = _following(source), _users(source).sum(axis=0)
        events = item_counts(np.asarray(train.items), n_items).astype(np.float64)
        scaled = np.log1p(events) / max(np.log1p(events.max()), 1.0)
        columns = [events, counts.sum(axis=1), counts.sum(axis=0), users, events / max(events.sum(), 1.0), scaled]
        trust = np.full(n_items + 1, self._foreseen(counts, source.items.relation(self.text)))
        return np.stack([*columns, trust], axis=1).astype(np.float32)

    def _foreseen(self, counts: sparse.csr_array, text: Relation) -> float:
        ids = np.asarray(text.ids)
        rows = np.repeat(np.arange(len(ids)), ids.shape[1])[ids.ravel() > 0]
        links = sparse.csr_array((np.ones(len(rows)), (rows, ids[ids > 0])), shape=counts.shape)
        return float((counts.multiply(links).sum() + 0.5) / (counts.sum() + 10.0))
