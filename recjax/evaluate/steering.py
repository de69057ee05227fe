"""Steering by stated preferences, on five axes (Paischer et al., Preference Discerning, 2024, section 4)."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
import polars as pl

from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries
from recjax.data.items import Items
from recjax.data.splits import Examples, Which
from recjax.decode.scoring import UNRANKED
from recjax.evaluate.evaluator import EvaluationData, Evaluator, sampled
from recjax.evaluate.floors import FLOORS, rank_floors
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.intervals import bootstrap
from recjax.evaluate.metrics import ACCURACY, MISS, mean_metrics
from recjax.evaluate.ranking import NonFiniteScoresError, SameModel, answered, few_shapes, prepared, replicated
from recjax.evaluate.report import RANK, TIES, Report, dataset_facts
from recjax.limits import COUNT, SIZE, require, within
from recjax.models.model import Model
from recjax.parallel.sharding import local_rows, row_sharding, to_devices
from recjax.typing import Array, InputError, Params


@dataclass(frozen=True)
class Steering(Evaluator):
    """Ranks of targets under preferences, see `Model.steered`, by how much the preference knows and what it says.

    A preference is the kind of an item. The matched one of an example is, of the kinds of the history's last `memory`
    items, the nearest to the target's: it has seen the target, so figures under it are an upper bound. The slices:

    * all: under the kinds of all the last items, the matched one among them (history consolidation): the honest figure;
      `oracle`: under the matched one alone (recommendation, as published); `last`: of the last item; `none`.
    * `fine`, `coarse`: the target and its matched preference after the history of the user whose target is most, and
      least, alike. `raised` is the share of examples, of those where it makes a difference, in which that ranks the
      target higher than that user's own matched preference does; one half is chance.
    * `sentiment`: success@k, the target is among the best k where its kind is wanted, and not where it is unwanted.

    Attributes:
        kinds: column of the vectors of kinds.
        memory: items of a history whose kinds are preferences.
        users: a sample of the users; None for all.
        k: of success@k.
        split: which targets.
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
    """

    kinds: str = "kinds"
    memory: int = 5
    users: int | None = 2000
    k: int = 10
    split: Which = "test"
    users_per_batch: int = 256
    bootstrap: int = 1000

    metrics: ClassVar[tuple[str, ...]] = ACCURACY

    def __post_init__(self) -> None:
        require(self, memory=SIZE, users=COUNT, k=SIZE, users_per_batch=SIZE, bootstrap=within(0, 100_000))

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        examples = sampled(data.split.validation, users)
        return mean_metrics(self._ranks(model, params, data, examples, recent(examples, self.memory)))

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
        dataset, examples = data.dataset, sampled(data.split.examples(self.split), self.users)
        vectors = self._kinds(data)
        last, started = recent(examples, self.memory), time.perf_counter()
        first = np.arange(self.memory) == 0
        own = matched(last, examples.targets, vectors)

        def ranks(preferences: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
            asked = examples
            if other is not None:
                asked = Examples(examples.histories.take(other), examples.targets, examples.times)
            return self._ranks(model, params, data, asked, np.where(first, preferences[:, :1], 0))

        every = self._ranks(model, params, data, examples, last)
        oracle = ranks(own)
        found = {"all": every, "oracle": oracle, "last": ranks(last), "none": ranks(np.zeros_like(last))}
        metrics = {slice_: mean_metrics(each) for slice_, each in found.items()}
        notes: dict[str, Any] = {}
        for slice_, other in zip(("fine", "coarse"), partners(examples.targets, vectors), strict=True):
            given, theirs = ranks(own, other), ranks(own[other], other)
            share, changed, p = raised(given, theirs)
            metrics[slice_] = mean_metrics(given) | {"raised": share}
            notes[f"{slice_}: raised"] = f"{share:.3f} of the {changed:,} that it moves, p {p:.2g} by a sign test"
        targets = examples.targets[:, None]
        liked, disliked = ranks(targets), ranks(-targets)
        success = float(((liked <= self.k) & ~(disliked <= self.k)).mean())
        metrics["sentiment"] = {f"success@{self.k}": success}
        notes[f"sentiment: success@{self.k}"] = (
            f"{success:.4f}; {(liked <= self.k).mean():.4f} where wanted, {(disliked <= self.k).mean():.4f} where not"
        )
        seconds, counted = time.perf_counter() - started, {}
        if floors:
            options: dict[str, Any] = {"vectors": data.vectors, "progress": progress}
            counted = rank_floors(dataset, data.split, self.split, examples, Rules(k=10), only=FLOORS, **options)
        return Report(
            name=name,
            dataset=dataset_facts(dataset),
            protocol={"split": self.split, "candidates": "full", "mask_seen": "history", "tie": TIES},
            metrics=metrics,
            interval=bootstrap(every, self.bootstrap),
            floors={floor: None if each is None else mean_metrics(each.ranks) for floor, each in counted.items()},
            counts={"users": len(examples), **{each: len(examples) for each in metrics if each != "all"}},
            seconds=seconds,
            audit=None,
            notes=model.notes | notes,
            users=pl.DataFrame(
                {
                    "user_id": [dataset.user_ids[user] for user in examples.histories.users],
                    "target": [dataset.item_ids[item] for item in examples.targets],
                    "history": examples.histories.lengths,
                    **{RANK if each == "all" else f"{RANK}: {each}": _nulls(rank) for each, rank in found.items()},
                    **{f"{RANK}_{floor}": _nulls(each.ranks) for floor, each in counted.items() if each is not None},
                }
            ),
        )

    def _kinds(self, data: EvaluationData) -> np.ndarray:
        columns = {} if data.items is None else data.items.columns
        if self.kinds not in columns:
            known = ", ".join(columns) or "none"
            raise InputError(f"{self.name} compares items by the column {self.kinds!r}, but they have: {known}")
        return np.asarray(columns[self.kinds])

    def _ranks(
        self, model: Model, params: Params, data: EvaluationData, examples: Examples, preferences: np.ndarray
    ) -> np.ndarray:
        """int64 [n], rank of each target, or `MISS`; `preferences` int32 [n, p]."""
        ranks, sharding = np.zeros(len(examples), np.int64), row_sharding()
        items = prepared(model, params, data.items)

        def ask(queries: Queries, rows: np.ndarray) -> Any:
            mine = rows[local_rows(sharding, len(rows))]
            held = mine >= 0
            given = (np.where(held, examples.targets[mine], 0), np.where(held[:, None], preferences[mine], 0))
            targets, stated = to_devices(tuple(x.astype(np.int32) for x in given), sharding, len(rows))
            return _steered(SameModel(model), params, queries, items, targets, stated)

        batches = query_batches(examples, data.view, model.n_items, self.users_per_batch, shapes=few_shapes(examples))
        for rows, found in answered(batches, ask, len(examples), self.users_per_batch):
            ranks[rows] = found
        if not ranks.all():
            users = examples.histories.users[ranks == 0].tolist()
            raise NonFiniteScoresError.of([data.dataset.user_ids[user] for user in users])
        ranks[(ranks == UNRANKED) | examples.repeats()] = MISS
        return ranks


@partial(jax.jit, static_argnames="identity")
def _steered(
    identity: SameModel, params: Params, queries: Queries, items: Items, targets: Array, preferences: Array
) -> Array:
    return replicated(identity.model.steered(params, queries, items, preferences).rank(targets, queries.seen)[0])


def recent(examples: Examples, count: int) -> np.ndarray:
    """int32 [n, count], the last items of each history, latest first, 0 where there are fewer."""
    histories = examples.histories
    places = histories.stops[:, None] - 1 - np.arange(count)
    held = places >= histories.starts[:, None]
    return np.where(held, histories.items[np.maximum(places, 0)], 0).astype(np.int32)


def matched(last: np.ndarray, targets: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """int32 [n, 1], of some items of each example the one whose vector is nearest to the target's."""
    near = np.einsum("npd,nd->np", vectors[last], vectors[targets])
    best = np.argmax(np.where(last > 0, near, -np.inf), axis=1)
    return np.take_along_axis(last, best[:, None], axis=1)


def partners(targets: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each example another one whose target, another item, is most alike, and one whose target is least so."""
    own = vectors[targets]
    near = own @ own.T
    other = targets[:, None] != targets
    return np.argmax(np.where(other, near, -np.inf), axis=1), np.argmin(np.where(other, near, np.inf), axis=1)


def raised(given: np.ndarray, without: np.ndarray) -> tuple[float, int, float]:
    """Share of the ranks that are better than others, of those that differ, how many these are, and p of a sign test.

    >>> raised(np.array([1, 2, 3, 9]), np.array([2, 3, 3, 8]))[:2]
    (0.6666666666666666, 3)
    """
    from scipy.stats import binomtest  # slow to import, and training imports this room

    better, changed = int((given < without).sum()), int((given != without).sum())
    if not changed:
        return 0.5, 0, 1.0
    return better / changed, changed, float(binomtest(better, changed).pvalue)


def _nulls(ranks: np.ndarray) -> pl.Series:
    return pl.Series([None if rank == MISS else int(rank) for rank in ranks.tolist()], dtype=pl.Int64)
