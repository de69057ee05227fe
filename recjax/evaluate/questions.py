"""Questions that make a prediction set smaller: conformal information pursuit.

Chan et al., Conformal Information Pursuit for Interactively Guiding Large Language Models, 2025. Questions are about
attributes of the item that the user looks for ("categories: Comedy?"), answered yes or no. After some answers the
probability of an item is its share in the model's softmax among the items that agree with them, and the set is as in
`recjax.evaluate.conformal`, with a threshold for each number of answers, from held-out users with as many answers to
random questions. The next question is the one whose answers leave the least to be found out on average, as the size of
the set bounds it.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import polars as pl

from recjax.data.dataset import Dataset
from recjax.evaluate.conformal import threshold
from recjax.limits import RATE, SIZE, between, require, within
from recjax.text.items import plain
from recjax.typing import InputError

Choice = Literal["set", "entropy", "random"]
"""Question that comes next: of the least bound by the size of the set, of the least expected entropy, or any."""

WORDS = "title"
"""Column with a question for each of its words, not for the whole of it."""

WORD = re.compile(r"[^\W\d_]{3,}")

ATTRIBUTES = ("categories", "genres", "brand")
"""Columns of the questions where none are named; titles, where a catalog has none of them."""


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of the items of a catalog, each a question with the answer yes or no.

    Attributes:
        catalog: of the dataset.
        texts: of each question, "column: value".
        holds: bool [m, items + 1], whether the answer is yes; false for padding.
    """

    catalog: pl.DataFrame
    texts: list[str]
    holds: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, about: Sequence[str] | None = None, most: int = 512) -> "Attributes":
        """The values that split a catalog most evenly; of values that the same items have, the first.

        Args:
            dataset: the catalog.
            about: its columns; by default `ATTRIBUTES` where there are any, else the words of titles. A cell may be a
                list or a path of values, "Comedy|Drama".
            most: values.

        Raises:
            InputError: there is no such column, or nothing to ask.
        """
        catalog = dataset.catalog
        columns = list(about) if about else [name for name in ATTRIBUTES if name in catalog.columns] or [WORDS]
        if unknown := [name for name in columns if name not in catalog.columns]:
            raise InputError(
                f"dataset {dataset.name!r} has no catalog column {unknown[0]!r}; it has: {', '.join(catalog.columns)}"
            )
        values = {name: [_values(cell, name) for cell in catalog[name].to_list()] for name in columns}
        counts = Counter((name, value) for name, rows in values.items() for row in rows for value in row)
        half = catalog.height / 2
        ordered = sorted((abs(count - half), key) for key, count in counts.items() if 0 < count < catalog.height)
        found: dict[bytes, tuple[str, np.ndarray]] = {}
        for _, (name, value) in ordered:
            if len(found) == most:
                break
            holds = np.array([False, *(value in row for row in values[name])])
            found.setdefault(holds.tobytes(), (f"{name}: {value}", holds))
        if not found:
            raise InputError(
                f"there is nothing to ask about dataset {dataset.name!r}: its items do not differ in "
                f"{' or '.join(columns)}"
            )
        return cls(catalog, [text for text, _ in found.values()], np.stack([holds for _, holds in found.values()]))


def _values(cell: object, column: str) -> frozenset[str]:
    """The values of a catalog's cell."""
    if isinstance(cell, pl.Series | list | tuple):
        return frozenset().union(*(_values(entry, column) for entry in cell))
    if column == WORDS:
        return frozenset(WORD.findall(plain(cell).lower()))
    return frozenset(filter(None, (plain(part) for part in str(cell or "").split("|"))))


@dataclass(frozen=True)
class Asking:
    """Protocol of a dialogue.

    Attributes:
        coverage: stated probability that a set holds the item.
        choice: of the next question.
        enough: a set of this size needs no more questions.
        most: questions.
        wrong: share of the answers that are taken to be wrong; 0 rules out every item that an answer does not fit.
    """

    coverage: float = 0.7
    choice: Choice = "set"
    enough: int = 10
    most: int = 20
    wrong: float = 0.0

    def __post_init__(self) -> None:
        require(self, coverage=between(0, 1), enough=SIZE, most=within(0, 1000), wrong=RATE)


def updated(beliefs: np.ndarray, holds: np.ndarray, yes: np.ndarray | bool, wrong: float) -> np.ndarray:
    """Probabilities of the items [..., v] after an answer; those before it where nothing agrees with that.

    >>> updated(np.array([0.5, 0.3, 0.2]), np.array([True, False, True]), False, 0.25).round(3).tolist()
    [0.312, 0.562, 0.125]
    """
    weights = np.where(holds == yes, 1 - wrong, wrong)
    after = beliefs * weights
    total = after.sum(axis=-1, keepdims=True)
    return np.where(total > 0, after / np.where(total > 0, total, 1.0), beliefs)


def bound(sizes: np.ndarray, items: int, coverage: float, calibrated: int) -> np.ndarray:
    """Bits that are left to find out, at most, where a set has some size, as in the paper (alpha = 1 - coverage).

    >>> bound(np.array([1, 8, 64]), 64, 0.9, 99).round(2).tolist()
    [1.07, 3.78, 5.93]
    """
    alpha = 1 - coverage
    entropy = -alpha * math.log2(alpha) - coverage * math.log2(coverage)
    inside, outside = np.maximum(sizes, 1), np.maximum(items - sizes, 1)
    return entropy + (coverage + 1 / (calibrated + 1)) * np.log2(inside) + alpha * np.log2(outside)


@dataclass(frozen=True, eq=False)
class Asker:
    """Questions about one catalog, with thresholds that held-out users have given.

    Attributes:
        attributes: the questions.
        asking: coverage, choice of questions and their number.
        thresholds: float64 [most + 1], the least probability of an item of the set after so many answers.
        calibrated: users that they are of.
        random: of answers that are wrong and questions that are chosen at random.
    """

    attributes: Attributes
    asking: Asking
    thresholds: np.ndarray
    calibrated: int
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @classmethod
    def calibrated_on(
        cls, beliefs: np.ndarray, targets: np.ndarray, attributes: Attributes, asking: Asking, seed: int = 0
    ) -> "Asker":
        """Thresholds from held-out users.

        Args:
            beliefs: float [n, items + 1], the model's probabilities.
            targets: int [n], the items that were looked for.
            attributes: the questions.
            asking: coverage, choice of questions and their number.
            seed: of the questions that they are asked.
        """
        random, rows = np.random.default_rng(seed), np.arange(len(targets))
        order = random.permuted(np.tile(np.arange(len(attributes.texts)), (len(rows), 1)), axis=1)
        found = []
        for number in range(min(asking.most, len(attributes.texts)) + 1):
            if number:
                holds = attributes.holds[order[:, number - 1]]
                yes = holds[rows, targets] ^ (random.random(len(rows)) < asking.wrong)
                beliefs = updated(beliefs, holds, yes[:, None], asking.wrong)
            found.append(-threshold(-beliefs[rows, targets].astype(np.float64), asking.coverage))
        return cls(attributes, asking, np.array(found), len(targets), random)

    @property
    def most(self) -> int:
        """Questions that there are thresholds for."""
        return len(self.thresholds) - 1

    def chosen(self, belief: np.ndarray, number: int) -> np.ndarray:
        """bool [items + 1], the set after `number` answers; without padding and items that are ruled out."""
        found = (belief >= self.thresholds[number]) & (belief > 0)
        found[0] = False
        return found

    def ordered(self, belief: np.ndarray, number: int) -> np.ndarray:
        """int64 [s], the items of that set, the likeliest first."""
        found = np.flatnonzero(self.chosen(belief, number))
        return found[np.argsort(-belief[found], kind="stable")]

    def next_question(self, belief: np.ndarray, open: np.ndarray, number: int) -> int | None:
        """The question to ask after `number` answers, of those that are `open`, bool [m]; None where no answer is in
        doubt."""
        holds, asking = self.attributes.holds, self.asking
        certain = holds @ belief
        open = np.flatnonzero(open & (certain > 1e-6) & (certain < 1 - 1e-6))
        if number == self.most or not len(open):
            return None
        if asking.choice == "random":
            return int(self.random.choice(open))
        cost, likely = np.zeros(len(open)), np.flatnonzero(belief > 0)
        belief, holds, items = belief[likely], holds[np.ix_(open, likely)], len(belief) - 1
        for yes in (True, False):
            after = belief * np.where(holds == yes, 1 - asking.wrong, asking.wrong)
            share = after.sum(axis=1)
            after /= np.maximum(share, 1e-30)[:, None]
            if asking.choice == "set":
                sizes = (after >= self.thresholds[number + 1]).sum(axis=1)
                left = bound(sizes, items, asking.coverage, self.calibrated)
            else:
                left = -(after * np.log2(np.maximum(after, 1e-30))).sum(axis=1)
            cost += share * left
        return int(open[np.argmin(cost)])


def listed(catalog: pl.DataFrame, items: np.ndarray, belief: np.ndarray) -> pl.DataFrame:
    """Items of a catalog with their probabilities: rank (from 1), item_id, title, probability."""
    found = catalog.select("item_id", "title")[items - 1]
    rank = pl.Series("rank", np.arange(1, len(items) + 1), dtype=pl.Int32)
    return found.select(rank, "item_id", "title", pl.Series("probability", belief[items], dtype=pl.Float32))


class Dialogue:
    """Questions to one user, one after another.

    Attributes:
        belief: float [items + 1], probabilities of the items after the answers so far.
        answered: questions and their answers so far, by their texts.
        question: number of the one to be answered now; None where the set is small enough or nothing is left to ask.
    """

    def __init__(self, asker: Asker, belief: np.ndarray):
        self.asker, self.belief = asker, belief
        self.answered: dict[str, bool] = {}
        self._open = np.ones(len(asker.attributes.texts), bool)
        self.question = self._next()

    @property
    def text(self) -> str | None:
        """The question to be answered now, "column: value"."""
        return None if self.question is None else self.asker.attributes.texts[self.question]

    @property
    def items(self) -> np.ndarray:
        """int64 [s], the set: item numbers, the likeliest first."""
        return self.asker.ordered(self.belief, len(self.answered))

    @property
    def table(self) -> pl.DataFrame:
        """The set: rank (from 1), item_id, title, probability."""
        return listed(self.asker.attributes.catalog, self.items, self.belief)

    def answer(self, yes: bool | None) -> None:
        """Takes the answer to `question`; None for no answer, so that another one is asked."""
        if self.question is None:
            raise InputError("there is no question to be answered")
        self._open[self.question] = False
        if yes is not None:
            holds = self.asker.attributes.holds[self.question]
            self.belief = updated(self.belief, holds, yes, self.asker.asking.wrong)
            self.answered[self.asker.attributes.texts[self.question]] = yes
        self.question = self._next()

    def _next(self) -> int | None:
        asker, number = self.asker, len(self.answered)
        if asker.chosen(self.belief, number).sum() <= asker.asking.enough:
            return None
        return asker.next_question(self.belief, self._open, number)


def rehearsed(asker: Asker, beliefs: np.ndarray, targets: np.ndarray, choice: Choice) -> pl.DataFrame:
    """Dialogues with users whose next item is known, who answer by it.

    Args:
        asker: who asks.
        beliefs: float [n, items + 1], the model's probabilities.
        targets: int [n], the items that are looked for.
        choice: of the questions, in place of that of `asker`.

    Returns:
        For each user: questions asked, size of the last set, whether it is small enough (reached), whether it covers
        the target, and the size of the set before all questions (first).
    """
    random, rows = np.random.default_rng(1), []
    asker = replace(asker, asking=replace(asker.asking, choice=choice), random=random)
    for belief, target in zip(beliefs, targets.tolist(), strict=True):
        talk = Dialogue(asker, belief)
        first = len(talk.items)
        while talk.question is not None:
            talk.answer(bool(asker.attributes.holds[talk.question, target] ^ (random.random() < asker.asking.wrong)))
        items = talk.items
        rows.append((len(talk.answered), len(items), len(items) <= asker.asking.enough, target in items, first))
    return pl.DataFrame(rows, schema=["questions", "size", "reached", "covers", "first"], orient="row")
