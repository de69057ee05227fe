"""What any model must beat: four baselines without training, ranked by the same rules for the same users.

| floor       | score of an item                                                                                   |
|-------------|----------------------------------------------------------------------------------------------------|
| popularity  | its events before the test                                                                         |
| repeat_last | how recently the user had it; items that are new to the user are not recommended (so that with     |
|             | masked histories nothing is, and every figure is 0)                                                |
| transition  | windowed transition counts with the last five items, see `recjax.data.transitions`                 |
| text_knn    | similarity of its text with that of the user's last ten items, each step back counting half        |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recjax.data.dataset import Dataset
from recjax.data.splits import Examples, Histories, Split, Which
from recjax.data.transitions import Transitions, item_counts
from recjax.evaluate.ranking import Rankings, tracked
from recjax.evaluate.scored import Rules, rank_scored
from recjax.text.hashed import catalog_texts, hashed_vectors
from recjax.text.whiten import whitened

FLOORS = ("popularity", "repeat_last", "transition", "text_knn")

RECENT = 10
"""Items of a history that the text floor looks at."""


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
        vectors: float32 [v, d], the space in which the text floor compares items, as the model has it; by default
            whitened hashed n-grams of the catalog's text. A row of zeros is an item without text.
        only: which floors.
        progress: show a progress bar where the output is a terminal.

    Returns:
        Floor -> its rankings; None for text_knn where no item has text.
    """
    popularity = events_before(split, which, dataset.n_items)
    scorers: dict[str, Callable[[], Callable[[Histories], np.ndarray] | None]] = {
        "popularity": lambda: lambda histories: np.tile(popularity.astype(np.float64), (len(histories), 1)),
        "repeat_last": lambda: lambda histories: recency(histories, dataset.n_items),
        "transition": lambda: Transitions.fit(split.train, dataset.n_items, popularity).scores,
        "text_knn": lambda: text_scorer(dataset, vectors),
    }
    rankings: dict[str, Rankings | None] = {}
    for name in tracked(only, len(only), "floors", progress):
        score = scorers[name]()
        rankings[name] = None if score is None else rank_scored(score, examples, dataset.n_items, rules)
    return rankings


def events_before(split: Split, which: Which, n_items: int) -> np.ndarray:
    """int64 [v]: events of each item before the evaluated part; for the test, all those of the validation's time count.

    Where a split learns from some users only, so do the floors: the targets of the others do not count.
    """
    if which == "test" and split.before_test is not None:
        return item_counts(split.before_test.items, n_items)
    counts = item_counts(split.train.items, n_items)
    if which == "validation":
        return counts
    targets = split.validation.targets
    if split.few:
        targets = targets[np.isin(split.validation.histories.users, split.train.users)]
    return counts + item_counts(targets, n_items)


def recency(histories: Histories, n_items: int) -> np.ndarray:
    """float64 [n, v]: place of the item's last occurrence in the history, counted from 1; -inf where it has none."""
    scores = np.full((len(histories), n_items + 1), -np.inf)
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    place = np.arange(len(row)) - histories.offsets[:-1][row] + 1.0
    scores[row, histories.items] = place  # of repeated indices the last assignment stays
    return scores


def text_scorer(dataset: Dataset, vectors: np.ndarray | None) -> Callable[[Histories], np.ndarray] | None:
    """The text floor for a catalog, or None where no item has text."""
    if vectors is None:
        texts = catalog_texts(dataset.catalog)
        if not any(texts):
            return None
        hashed = hashed_vectors(["", *texts])
        vectors = whitened(hashed, np.asarray(hashed.any(axis=1)))
    return TextNeighbours(vectors).scores


@dataclass(frozen=True, eq=False)
class TextNeighbours:
    """Items whose text is like that of the last items.

    Attributes:
        vectors: float32 [v, d]; zeros where an item has no text.
    """

    vectors: np.ndarray

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 [n, v]: dot product with the sum of the last ten items' vectors, weighted by 0.5 ** age."""
        recent = histories.take(np.arange(len(histories)), last=RECENT)
        row = np.repeat(np.arange(len(recent)), recent.lengths)
        age = recent.offsets[1:][row] - 1 - np.arange(len(row))
        weights = sparse.coo_array((0.5**age, (row, recent.items)), shape=(len(recent), len(self.vectors))).tocsr()
        profile = (weights @ self.vectors).astype(np.float32)
        return (profile @ self.vectors.T).astype(np.float64)
