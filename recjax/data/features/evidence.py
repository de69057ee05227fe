"""Evidence of a catalog: raw counts of what its users had together, and where each item's text points.

Counts are of events, not shares, so that they can be smoothed by a prior worth so many events, one more event is added
in place, and what a user contributed can be taken out again. Each relation has the strongest links of an item; the
sums over all links stand in `Totals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.dataset import Dataset
from recjax.data.features.feature import Feature, Source, State
from recjax.data.features.relations import Counted, strongest, strongest_by, user_cosines
from recjax.data.items import Relation
from recjax.data.store.locate import cache_folder
from recjax.data.text_neighbours import scaled, text_prior
from recjax.data.transitions import item_counts, transition_counts, user_items
from recjax.late import sparse
from recjax.limits import SIZE, require
from recjax.text.tfidf import name_texts, tfidf
from recjax.text.vectors import TextEncoder, item_vectors
from recjax.text.whiten import whitened
from recjax.text.words import WordVectors

TOGETHER = 50
"""Last events of a user that count as had together, which bounds what one user costs."""

MOST_COMPARED = 50_000
"""Items whose vectors are compared all with all, which takes half a minute of a core here and grows with the square."""

SENTENCE, LONGEST = "{title}. {categories}. {genres}. {brand}", 64
"""Text that a sentence encoder reads of an item, and its tokens at most: names are short, and reading takes minutes."""

FADING = tuple(0.8**gap for gap in range(8))
"""Weight of b after a at distance 1, 2, ... 8. The order of events that are near in time is often chance."""

TOTALS = EVENTS, FOLLOWED, PRECEDED, USERS, SHARE, POPULARITY, TRUST = range(7)
"""Columns of `Totals`."""


def together_counts(histories: Histories, n_items: int) -> sparse.csr_array:
    """Users that had both a and b among their last 50 events, float64 [v, v] sparse; on the diagonal those of a."""
    users = recent_items(histories, n_items)
    return sparse.csr_array(users.T @ users)


def recent_items(histories: Histories, n_items: int) -> sparse.csr_array:
    """1 where a history has an item among its last 50 events; float64 [n, v] sparse."""
    return user_items(histories.take(np.arange(len(histories)), last=TOGETHER), n_items)


def catalog_prior(dataset: Dataset, encoder: str | None = None) -> sparse.csr_array:
    """Prior of each item by its name, rows that sum to 1 or are empty; float64 [v, v] sparse.

    Half of it goes to items that share words and word pairs, half to those that mean alike, by vectors whitened within
    the catalog. In catalogs of more than `MOST_COMPARED` items words alone count. Categories beside names helped the
    words of some catalogs a little and hurt others more; a sentence encoder gains by them.

    Args:
        dataset: the catalog.
        encoder: of the meanings, a sentence encoder's folder or name (`SENTENCE`); None for `WordVectors` of the names.

    Raises:
        InputError: there is no such encoder.
    """
    texts = name_texts(dataset.catalog)
    shared = text_prior(tfidf(["", *texts]))
    if not 1 < len(texts) <= MOST_COMPARED:
        return shared
    if encoder is None:
        vectors = np.pad(WordVectors().encode(texts), ((1, 0), (0, 0)))
    else:
        vectors = item_vectors(_reader(encoder), dataset.catalog, cache_folder() / "vectors", progress=True).vectors
    known = np.any(vectors != 0, axis=1)
    alike = text_prior(whitened(vectors, known))
    both = sparse.csr_array(shared + alike)
    return scaled(both, both.sum(axis=1))


def _reader(encoder: str) -> TextEncoder:
    from recjax.text.encoder import SentenceEncoder  # late: importing it takes as long as a list does without

    return SentenceEncoder(encoder, template=SENTENCE, max_tokens=LONGEST)


def following_counts(histories: Histories, n_items: int) -> sparse.csr_array:
    """Counts of b after a, weighted by `FADING`; float64 [v, v] sparse."""
    return transition_counts(histories, n_items, 0.0, FADING)


def _following(source: Source) -> sparse.csr_array:
    """Counts of what users had after each item; float64 [v, v] sparse."""
    return source.once("following", lambda: following_counts(source.train, source.dataset.n_items))


def _users(source: Source) -> sparse.csr_array:
    return source.once("recent", lambda: recent_items(source.train, source.dataset.n_items))


@dataclass(frozen=True)
class Following(Counted):
    """Counts of what users had after an item, less the further away, see `FADING`.

    Attributes:
        before: what they had before it instead.
    """

    count: int = 64
    before: bool = False
    version: ClassVar[int] = 2

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
        encoder: a sentence encoder that says which texts are near, its folder or name (`recjax.text.hub.find_folder`);
            None for the table of word pieces that comes with recjax.
    """

    count: int = 100
    encoder: str | None = None
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self, count=SIZE)

    def shape(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        return "" if self.encoder is None else _reader(self.encoder).fingerprint()

    def make(self, source: Source, state: State) -> Relation:
        return strongest(catalog_prior(source.dataset, self.encoder), self.count)


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
    version: ClassVar[int] = 3

    @property
    def counts_events(self) -> bool:
        return True

    def shape(self) -> tuple[int, ...]:
        return (len(TOTALS),)

    def make(self, source: Source, state: State) -> np.ndarray:
        n_items, train = source.dataset.n_items, source.train.compact()
        counts, users = _following(source), _users(source).sum(axis=0)
        events = item_counts(np.asarray(train.items), n_items).astype(np.float64)
        found = foreseen(counts, near_texts(np.asarray(source.items.relation(self.text).ids)))
        return totals_of(events, counts.sum(axis=1), counts.sum(axis=0), users, found)


def totals_of(
    events: np.ndarray, followed: np.ndarray, preceded: np.ndarray, users: np.ndarray, foreseen: float
) -> np.ndarray:
    """`Totals` of sums, float32 [v, 7].

    Args:
        events: [v], of each item.
        followed: [v], counts after it.
        preceded: [v], counts before it.
        users: [v], that had it.
        foreseen: counts of all items that lead to one of the text neighbours.
    """
    scaled = np.log1p(events) / max(np.log1p(events.max()), 1.0)
    trusted = np.full(len(events), trust(foreseen, float(followed.sum())))
    columns = [events, followed, preceded, users, events / max(events.sum(), 1.0), scaled, trusted]
    return np.stack(columns, axis=1).astype(np.float32)


def near_texts(text: np.ndarray) -> np.ndarray:
    """The links of text neighbours, int32 [v, k], that trust is measured by: no more than one in 24 of the catalog.

    The neighbours of a catalog of 150 items are most of it, and would foresee whatever follows.
    """
    return text[:, : max(1, (len(text) - 1) // 24)]


def foreseen(following: sparse.csr_array, text: np.ndarray) -> float:
    """Counts of transitions that lead to one of the text neighbours, int32 [v, k]; see `near_texts`."""
    rows = np.repeat(np.arange(len(text)), text.shape[1])[text.ravel() > 0]
    links = sparse.csr_array((np.ones(len(rows)), (rows, text[text > 0])), shape=following.shape)
    return float(following.multiply(links).sum())


def trust(hit: float, counted: float) -> float:
    """Trust in the texts of a catalog: the share of its counted transitions that they foresaw, smoothed."""
    return (hit + 0.5) / (counted + 10.0)
