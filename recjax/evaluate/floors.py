"""Rivals that any model must beat: five floors without training, ranked by the same rules for the same users.

| floor           | score of an item                                                                               |
|-----------------|------------------------------------------------------------------------------------------------|
| popularity      | its events before the test                                                                     |
| repeat_last     | how recently the user had it; items that are new to the user are not recommended (so that with |
|                 | masked histories nothing is, and every figure is 0)                                            |
| transition      | windowed transition counts with the last five items, see `recjax.data.transitions`             |
| text_knn        | similarity of its text with that of the user's last ten items, each step back counting half    |
| text_transition | transition counts smoothed towards text, see `recjax.evaluate.text_transition`                 |

Baselines that learn in seconds are ranked beside them where asked for:

| baseline          |                                                                                              |
|-------------------|----------------------------------------------------------------------------------------------|
| item_knn          | item-based nearest neighbours, see `recjax.evaluate.item_knn`                                |
| ease              | linear item-item weights in closed form, see `recjax.evaluate.ease`                          |
| session_knn       | nearest histories with positions (V-SKNN), see `recjax.evaluate.session_knn`                 |
| vector_transition | text_transition by the vectors that the model reads; of a model that reads none it is absent |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from recjax.data.dataset import Dataset
from recjax.data.splits import Examples, Histories, Split, Which
from recjax.data.text_neighbours import text_prior
from recjax.data.transitions import Transitions, item_counts, recency_weights
from recjax.evaluate.ease import Ease, check_size
from recjax.evaluate.host_ranking import Rules, rank_scored
from recjax.evaluate.item_knn import ItemNeighbours
from recjax.evaluate.ranking import Rankings
from recjax.evaluate.session_knn import SessionNeighbours
from recjax.evaluate.text_transition import TextTransitions, asked_items
from recjax.late import sparse
from recjax.limits import refuse
from recjax.text.tfidf import name_texts, tfidf
from recjax.track.console import tracked

FLOORS = ("popularity", "repeat_last", "transition", "text_knn", "text_transition")
BASELINES = ("item_knn", "ease", "session_knn", "vector_transition")

RECENT = 10
"""Items of a history that the text floor looks at."""

Score = Callable[[Histories], np.ndarray]
"""Histories -> float64 [n, v], a fresh array."""


def check_names(config: Any) -> None:
    """Raises SettingError where an evaluator's `baselines` are none that there are."""
    for name in config.baselines:
        if name not in BASELINES:
            refuse(config, "baselines", f"some of {', '.join(BASELINES)}")


def check_baselines(names: Sequence[str], n_items: int) -> None:
    """Raises InputError where a catalog of `n_items` is too large for one of the baselines."""
    if "ease" in names:
        check_size(n_items)


def rank_floors(
    dataset: Dataset,
    split: Split,
    which: Which,
    examples: Examples,
    rules: Rules,
    *,
    vectors: np.ndarray | None = None,
    only: Sequence[str] = FLOORS,
    progress: bool = False,
) -> dict[str, Rankings | None]:
    """Ranks every example by every floor.

    Args:
        dataset: the catalog.
        split: what the floors count: training events (and, for the test, validation targets in the popularity).
        which: the part of the split that `examples` come from.
        examples: histories and targets.
        rules: what competes.
        vectors: float32 [v, d], the space in which text_knn compares items, as the model has it; by default TF-IDF
            of titles and brands. A row of zeros is an item without text. text_transition always reads TF-IDF.
        only: which floors and baselines.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Returns:
        Floor -> its rankings; None for the floors that read text where no item has any, or vectors without vectors.
    """
    makers = scorers(dataset, split, which, vectors, asked_items(examples.histories))
    rankings: dict[str, Rankings | None] = {}
    for name in tracked(only, len(only), "floors", progress):
        score = makers[name]()
        rankings[name] = None if score is None else rank_scored(score, examples, dataset.n_items, rules)
    return rankings


def scorers(
    dataset: Dataset,
    split: Split,
    which: Which,
    vectors: np.ndarray | None = None,
    asked: np.ndarray | None = None,
) -> dict[str, Callable[[], Score | None]]:
    """Floor or baseline -> a function that fits it and returns its scores.

    Arguments as in `rank_floors`; `asked`, int64 [m], are the items whose text neighbours are wanted, all by default.
    """
    popularity, n_items = events_before(split, which, dataset.n_items), dataset.n_items
    words = cache(lambda: catalog_words(dataset))

    def text_knn() -> Score | None:
        found = words() if vectors is None else vectors
        return None if found is None else TextNeighbours(found).scores

    def smoothed(found: np.ndarray | sparse.csr_array | None) -> Score | None:
        return None if found is None else TextTransitions.fit(split.train, n_items, text_prior(found, asked)).scores

    return {
        "popularity": lambda: lambda histories: np.tile(popularity.astype(np.float64), (len(histories), 1)),
        "repeat_last": lambda: lambda histories: recency(histories, n_items),
        "transition": lambda: Transitions.fit(split.train, n_items, popularity).scores,
        "text_knn": text_knn,
        "text_transition": lambda: smoothed(words()),
        "item_knn": lambda: ItemNeighbours.fit(split.train, n_items).scores,
        "ease": lambda: Ease.fit(split.train, n_items).scores,
        "session_knn": lambda: SessionNeighbours.fit(split.train, n_items).scores,
        "vector_transition": lambda: smoothed(None if vectors is None else of_length_one(vectors)),
    }


def events_before(split: Split, which: Which, n_items: int) -> np.ndarray:
    """int64 [v]: events of each item before the evaluated part; for the test, all those of the validation's time count.

    Where a split learns from some users only, so do the floors: the targets of the others do not count.
    """
    if which == "test" and split.before_test is not None:
        return item_counts(split.before_test.items, n_items)
    counts = item_counts(split.train.items, n_items)
    if which == "validation":
        return counts
    validation = split.validation
    if split.few:
        validation = validation.take(np.flatnonzero(np.isin(validation.histories.users, split.train.users)))
    return counts + item_counts(validation.all_targets, n_items)


def recency(histories: Histories, n_items: int) -> np.ndarray:
    """float64 [n, v]: place of the item's last occurrence in the history, counted from 1; -inf where it has none."""
    scores = np.full((len(histories), n_items + 1), -np.inf)
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    place = np.arange(len(row)) - histories.starts[row] + 1.0
    scores[row, histories.items] = place  # of repeated indices the last assignment stays
    return scores


def catalog_words(dataset: Dataset) -> sparse.csr_array | None:
    """float32 [v, words] sparse, TF-IDF of each item's text, or None where no item has text."""
    texts = name_texts(dataset.catalog)
    return tfidf(["", *texts]) if any(texts) else None


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    """float32 [n, d]: rows divided by their length; rows of zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0), np.float32)


@dataclass(frozen=True, eq=False)
class TextNeighbours:
    """Items whose text is like that of the last items.

    Attributes:
        vectors: float32 [v, d], dense or sparse; zeros where an item has no text.
    """

    vectors: np.ndarray | sparse.csr_array

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 [n, v]: dot product with the sum of the last ten items' vectors, weighted by 0.5 ** age."""
        vectors: Any = self.vectors
        profile = recency_weights(histories, vectors.shape[0], RECENT) @ vectors
        scores = profile.astype(np.float32) @ vectors.T
        return (scores.toarray() if sparse.issparse(scores) else scores).astype(np.float64)


def best_floor(floors: Mapping[str, Mapping[str, float] | None], metric: str) -> tuple[str, float] | None:
    """The floor with the highest value of a metric, and that value; None where no floor has it."""
    known = {name: figures[metric] for name, figures in floors.items() if figures and metric in figures}
    name = max(known, key=known.__getitem__, default=None)
    return None if name is None else (name, known[name])
