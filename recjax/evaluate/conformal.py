"""Prediction sets: lists as long as it takes to hold the next item with a stated probability.

Split conformal prediction (Vovk et al. 2005; Sadinle et al. 2019). A score says how badly an item fits a history; the
scores of held-out targets, of n users, are sorted, and a set is every item that scores no worse than target number
ceil((n + 1) x coverage). For users exchangeable with those n, sets hold the next item with at least that probability,
whatever the model: a bad one has larger sets. Users who come later in time are not exchangeable, so coverage is
measured as well as stated.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import query_batches
from recjax.data.splits import Examples, Which
from recjax.evaluate.evaluator import EvaluationData, Evaluator, sampled
from recjax.evaluate.floors import rank_floors
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.intervals import bootstrap_values
from recjax.evaluate.metrics import MISS, means
from recjax.evaluate.ranking import NonFiniteScoresError, best_items, few_shapes, prepared, tracked
from recjax.evaluate.report import TIES, Report, dataset_facts
from recjax.late import special
from recjax.limits import SEED, SIZE, at_least, between, require, within
from recjax.models.model import Model
from recjax.typing import Params

Score = Literal["probability", "rank"]
"""Score of an item: -log of its share in a softmax over all unseen items, which gives a sure model short lists; or its
place in the ranking, which gives everybody lists of one length."""

FLOORS = ("popularity", "transition")


def threshold(scores: np.ndarray, coverage: float) -> float:
    """The score up to which items are in a set, from the scores of held-out targets; inf where there are too few.

    >>> threshold(np.arange(9.0), 0.9), threshold(np.arange(8.0), 0.9), threshold(np.arange(9.0), 0.5)
    (8.0, inf, 4.0)
    """
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)  # the + 1 is the user who comes next
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else math.inf


def ranked(
    model: Model,
    params: Params,
    asked: Examples | Histories,
    data: EvaluationData,
    *,
    score: Score = "probability",
    mask_seen: Literal["history", "none"] = "history",
    users_per_batch: int = 64,
    progress: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All items for each history, best first, with their scores.

    Args:
        model: what ranks.
        params: its parameters.
        asked: histories.
        data: the catalog; `data.view` makes queries of histories.
        score: which score.
        mask_seen: "history" leaves out what a user has had.
        users_per_batch: queries of a batch over all devices.
        progress: show a progress bar where standard error is a terminal.

    Yields:
        Rows of the histories int [r]; items int32 [r, v], 0 behind the last; scores float64 [r, v], ascending, inf
        there.

    Raises:
        NonFiniteScoresError: names the users.
    """
    items, n_items = prepared(model, params, data.items), model.n_items
    histories = asked.histories if isinstance(asked, Examples) else asked
    shapes = few_shapes(asked) if isinstance(asked, Examples) else 3
    batches = query_batches(asked, data.view, n_items, users_per_batch, mask_seen=mask_seen, shapes=shapes)
    total = -(-len(histories) // users_per_batch)
    for queries, rows in tracked(batches, total, "sets", progress):
        used = rows >= 0
        ids, values = (found[used] for found in best_items(model, params, queries, items, n_items))
        if (broken := np.isnan(values).any(axis=1)).any():
            users = histories.users[rows[used][broken]].tolist()
            raise NonFiniteScoresError.of([data.dataset.user_ids[user] for user in users])
        places = np.broadcast_to(np.arange(1.0, n_items + 1), values.shape)
        scores = -special.log_softmax(values.astype(np.float64), axis=1) if score == "probability" else places
        yield rows[used], ids, np.where(ids > 0, scores, np.inf)


def measured(
    model: Model, params: Params, examples: Examples, data: EvaluationData, thresholds: Any = (), **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the targets, and the sizes of the sets with some thresholds.

    Args:
        model: what ranks.
        params: its parameters.
        examples: histories and targets.
        data: the catalog; `data.view` makes queries of histories.
        thresholds: float64 [t].
        options: of `ranked`.

    Returns:
        float64 [n], inf for a target that is not listed; and int64 [n, t].
    """
    scores, thresholds = np.full(len(examples), np.inf), np.asarray(thresholds, np.float64)
    sizes = np.zeros((len(examples), len(thresholds)), np.int64)
    for rows, ids, values in ranked(model, params, examples, data, **options):
        row, place = np.nonzero(ids == examples.targets[rows, None])
        scores[rows[row]] = values[row, place]
        for number, most in enumerate(thresholds):
            sizes[rows, number] = (values <= most).sum(axis=1)  # of an infinite one: every item, seen ones too
    return scores, sizes


def probabilities(
    model: Model, params: Params, asked: Examples | Histories, data: EvaluationData, **options: Any
) -> np.ndarray:
    """Probabilities of the items of each history, float32 [n, items + 1]; 0 for padding and what is not listed.

    Args:
        model: what ranks.
        params: its parameters.
        asked: histories.
        data: the catalog; `data.view` makes queries of histories.
        options: of `ranked`.
    """
    found = np.zeros((len(asked), model.n_items + 1), np.float32)
    for rows, ids, scores in ranked(model, params, asked, data, **options):
        found[rows[:, None], ids] = np.exp(-scores)
    found[:, 0] = 0.0
    return found


@dataclass(frozen=True)
class PredictionSets(Evaluator):
    """Coverage and size of prediction sets: how often they hold the target, and how many items they need for it.

    Figures of the first level are those of "all", the others have a row each. `excluded` is the share of the catalog
    that is not in the set, by which systems can be compared where they cover alike. Floors have sets by their ranks. A
    target that is masked as seen is in no set but the whole catalog.

    Attributes:
        levels: stated coverages.
        calibrate: where thresholds come from: the "validation" targets, which are earlier than the test's, as those of
            a shop always are; or a random half of the "test" users, the others being measured: exchangeable users, for
            whom the stated coverage is guaranteed.
        score: see `Score`.
        mask_seen: "history" leaves out what a user has had.
        users: most users that thresholds are of, and that are measured; None for all.
        users_per_batch: queries of a batch over all devices; each holds a row of the whole catalog.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
        seed: of the halves and of the bootstrap.
    """

    levels: tuple[float, ...] = (0.5, 0.3, 0.7, 0.9)
    calibrate: Literal["validation", "test"] = "validation"
    score: Score = "probability"
    mask_seen: Literal["history", "none"] = "history"
    users: int | None = None
    users_per_batch: int = 64
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self, levels=between(0, 1), users=at_least(2), users_per_batch=SIZE, bootstrap=within(0, 100_000), seed=SEED
        )

    def evaluate(
        self,
        model: Model,
        params: Params,
        data: EvaluationData,
        *,
        floors: bool = True,
        name: str = "model",
        progress: bool = False,
    ) -> Report:
        given, asked = self._parts(data)
        options: dict[str, Any] = {"score": self.score, "mask_seen": self.mask_seen, "progress": progress}
        options |= {"users_per_batch": self.users_per_batch}
        started = time.perf_counter()
        known = measured(model, params, given, data, **options)[0]
        thresholds = [threshold(known, level) for level in self.levels]
        scores, sizes = measured(model, params, asked, data, thresholds, **options)
        seconds, n_items = time.perf_counter() - started, data.dataset.n_items
        values = {
            level: _values(scores, column, most, n_items)
            for level, column, most in zip(self.levels, sizes.T, thresholds, strict=True)
        }
        first, counted = values[self.levels[0]], self._floors(data, given, asked) if floors else {}
        rows = {f"{level:.0%}": column for level, column in list(values.items())[1:]}
        return Report(
            name=name,
            dataset=dataset_facts(data.dataset),
            protocol={"split": "test", "candidates": "full", "mask_seen": self.mask_seen, "tie": TIES},
            metrics={level: means(column) for level, column in {"all": first, **rows}.items()},
            interval=bootstrap_values(first, self.bootstrap, self.seed),
            floors={floor: means(column) for floor, column in counted.items()},
            counts={"users": len(asked)} | dict.fromkeys(rows, len(asked)),
            seconds=seconds,
            audit=None,
            notes=self._notes(values, len(given)),
            users=pl.DataFrame(
                {
                    "user_id": [data.dataset.user_ids[user] for user in asked.histories.users],
                    "history": asked.histories.lengths,
                    **first,
                    **{f"excluded_{floor}": column["excluded"] for floor, column in counted.items()},
                }
            ),
        )

    def _parts(self, data: EvaluationData) -> tuple[Examples, Examples]:
        """The examples that thresholds come from, and those that are measured."""
        test = data.split.examples("test")
        if self.calibrate == "validation":
            return sampled(data.split.examples("validation"), self.users), sampled(test, self.users)
        mixed, half = np.random.default_rng(self.seed).permutation(len(test)), len(test) // 2
        given, asked = test.take(np.sort(mixed[:half])), test.take(np.sort(mixed[half:]))
        return sampled(given, self.users), sampled(asked, self.users)

    def _floors(self, data: EvaluationData, given: Examples, asked: Examples) -> dict[str, dict[str, np.ndarray]]:
        """Floor -> its values for each user, by the first level."""
        rules, n_items = Rules(self.mask_seen == "history", 0), data.dataset.n_items
        found: dict[str, dict[str, np.ndarray]] = {}
        places: list[dict[str, np.ndarray]] = []
        parts: tuple[tuple[Which, Examples], ...] = ((self.calibrate, given), ("test", asked))
        for part, examples in parts:
            ranks = rank_floors(data.dataset, data.split, part, examples, rules, only=FLOORS)  # no text is read
            places.append({name: np.where(own.ranks < MISS, own.ranks, np.inf) for name, own in ranks.items() if own})
        for floor, known in places[0].items():
            most = threshold(known, self.levels[0])
            found[floor] = _values(places[1][floor], np.full(len(asked), min(most, n_items)), most, n_items)
        return found

    def _notes(self, values: dict[float, dict[str, np.ndarray]], calibrated: int) -> dict[str, Any]:
        part = "validation targets" if self.calibrate == "validation" else "targets of half the test users"
        notes: dict[str, Any] = {"sets": f"stated coverage {self.levels[0]:.0%}, from {calibrated:,} {part}"}
        short = {}
        for level, column in values.items():
            own, users = float(column["coverage"].mean()), len(column["coverage"])
            if own < level - coverage_margin(level, calibrated, users):
                short[f"{level:.0%}"] = f"{own:.1%} instead"
        return notes | ({"below the stated coverage, beyond chance": short} if short else {})


def coverage_margin(coverage: float, calibrated: int, measured: int) -> float:
    """Three standard errors of a coverage that is calibrated and measured on exchangeable users.

    >>> round(coverage_margin(0.9, 900, 900), 4)
    0.0424
    """
    return 3 * math.sqrt(coverage * (1 - coverage) * (1 / calibrated + 1 / measured))


def _values(scores: np.ndarray, sizes: np.ndarray, most: float, n_items: int) -> dict[str, np.ndarray]:
    """Figures of each user, float64 [n]."""
    sizes = sizes.astype(np.float64)
    return {"excluded": 1 - sizes / n_items, "coverage": (scores <= most).astype(np.float64), "size": sizes}
