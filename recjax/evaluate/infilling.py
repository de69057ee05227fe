"""Infilling: events left out of the middle of histories, found again by a model, and by rivals that know less."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from recjax.data.batches.views import View
from recjax.data.gapped import FEWEST, Gapped, gapped
from recjax.data.splits import Examples, Which
from recjax.evaluate.evaluator import EvaluationData, Evaluator, sampled
from recjax.evaluate.filling import Filled, asked_gaps, from_the_left
from recjax.evaluate.infilling_floors import counted
from recjax.evaluate.intervals import bootstrap_values
from recjax.evaluate.metrics import means, user_metrics
from recjax.evaluate.report import LEADING, TIES, Report, dataset_facts
from recjax.limits import COUNT, SEED, SIZE, between, require, within
from recjax.models.model import Model
from recjax.typing import InputError, Params

RANKED = ("hr@1", "hr@10", "ndcg@10", "mrr")
"""Metrics of the items, means over the events left out of a window."""


@dataclass(frozen=True)
class Infilling(Evaluator):
    """Leaves a share of the middle events out of windows of held-out users, and asks what is missing and where.

    The windows are the last events of the histories, as many as a draw says. Three questions, means over users:

    * hr@k, ndcg@10, mrr: rank of each event left out for the gap that it belongs in, the window's own items aside;
    * gap_accuracy: whether something is missing in the gap of which that is likeliest, of the gaps between two events;
    * stop_error: how often a window with gaps looks more complete than one of the same user with as many events and
      none missing; one half is chance.

    A model that inserts has the figures "all", and "left": itself asked as a next-item model is, that knows the events
    before the gap alone. A model of next items has the latter as "all". There something is missing before the event
    that has the worst rank after those before it, and a window is complete as the mean of the logarithms of these ranks
    is low. The floors do so by transition counts: `transition_left` from the events before, as `transition` of other
    evaluations; `transition_both` from those on both sides.

    Nobody may have trained on the windows: the split has to hold out users (`ByUser`), or events.

    Attributes:
        share: of a window's events that are left out, one at least.
        users: a sample of the users; None for all.
        split: which users.
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
        seed: of the windows and of the bootstrap.
    """

    share: float = 0.2
    users: int | None = None
    split: Which = "test"
    users_per_batch: int = 256
    bootstrap: int = 1000
    seed: int = 0

    metrics: ClassVar[tuple[str, ...]] = (*RANKED, "gap_accuracy")
    several_targets: ClassVar[bool] = True  # looks at none

    def __post_init__(self) -> None:
        require(self, share=between(0, 1), users=COUNT, users_per_batch=SIZE, bootstrap=within(0, 100_000), seed=SEED)

    def check(self, data: EvaluationData) -> None:
        if trained_on(data):
            raise InputError(
                f"{self.name} leaves out events that nobody has trained on, but the histories of the split "
                f"{data.split.name} train: set data.split to ByUser()"
            )

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        task = self._task(sampled(data.split.validation, users), data.view)
        values = self.values(task, self._answers(model, params, data, task, left=False)["all"])
        return {metric: float(values[metric].mean()) for metric in self.metrics}

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
        self.check(data)
        examples, dataset = sampled(data.split.examples(self.split), self.users), data.dataset
        task, started = self._task(examples, data.view), time.perf_counter()
        found = {group: self.values(task, each) for group, each in self._answers(model, params, data, task).items()}
        seconds, rivals, count = time.perf_counter() - started, {}, len(task.kept)
        if floors:
            answers = counted(task, data.split.train, dataset.n_items)
            rivals = {floor: self.values(task, each) for floor, each in answers.items()}
        inner = task.missing[:, 1:].sum(axis=1) / (task.kept.lengths - 1)
        return Report(
            name=name,
            dataset=dataset_facts(dataset),
            protocol={"split": self.split, "candidates": "full", "mask_seen": "history", "tie": TIES},
            metrics={group: means(values) for group, values in found.items()},
            interval=bootstrap_values(found["all"], self.bootstrap, self.seed),
            floors={floor: means(values) for floor, values in rivals.items()},
            counts={"users": count, "targets": len(task.targets)} | {group: count for group in found if group != "all"},
            seconds=seconds,
            audit=None,
            notes=model.notes | {"gap_accuracy by chance": f"{inner.mean():.4f}"},
            users=pl.DataFrame(
                {
                    "user_id": [dataset.user_ids[user] for user in task.kept.users],
                    "targets": np.bincount(task.owner, minlength=len(task.kept)),
                    "history": task.kept.lengths,
                    **found["all"],
                    **{f"{metric}: left": values for metric, values in found.get("left", {}).items()},
                    **{f"{LEADING}_{floor}": values[LEADING] for floor, values in rivals.items()},
                }
            ),
        )

    def _task(self, examples: Examples, view: View) -> Gapped:
        own = int(view.query_lengths(np.array([1]))[0]) - 1  # tokens of a query that are no events
        most = view.max_length - own
        if most < FEWEST:
            raise InputError(f"{self.name} needs a view of {FEWEST} events or more, and this one takes {most}")
        task = gapped(examples.histories, most, self.share, self.seed)
        if not len(task.kept):
            raise InputError(f"{self.name} needs histories of {FEWEST} events or more, and there are none")
        return task

    def _answers(
        self, model: Model, params: Params, data: EvaluationData, task: Gapped, left: bool = True
    ) -> dict[str, Filled]:
        """Group -> answers; `left` for those of a model that inserts, asked from the left alone, too."""
        given: dict[str, Any] = dict(users_per_batch=self.users_per_batch, items=data.items)
        groups = {"all": asked_gaps(model, params, task, data.view, **given)} if model.inserts else {}
        if left or not model.inserts:
            groups["left" if groups else "all"] = from_the_left(model, params, task, data.view, **given)
        return groups

    def values(self, task: Gapped, found: Filled) -> dict[str, np.ndarray]:
        """Metric -> float64 [n], its value for each window."""
        count, asked = len(task.kept), np.bincount(task.owner)
        each = user_metrics(found.ranks)
        values = {metric: np.bincount(task.owner, each[metric], count) / asked for metric in RANKED}
        if found.gap is not None:
            values["gap_accuracy"] = task.missing[np.arange(count), found.gap].astype(np.float64)
        if found.complete is not None:
            gaps, whole = found.complete
            values["stop_error"] = (gaps > whole) + 0.5 * (gaps == whole)
        return values


def trained_on(data: EvaluationData) -> bool:
    """True if training has seen an event of the histories that are asked about."""
    train = data.split.train
    for which in ("validation", "test"):
        histories = data.split.examples(which).histories
        both = np.intersect1d(histories.users, train.users)
        if len(both):
            asked, known = (
                _events(part.take(np.flatnonzero(np.isin(part.users, both)))) for part in (histories, train)
            )
            if asked.join(known, on=asked.columns, how="semi").height:
                return True
    return False


def _events(histories: Any) -> pl.DataFrame:
    """The distinct events: user, item, time."""
    owners = np.repeat(histories.users, histories.lengths)
    columns = {"user": owners, "item": np.asarray(histories.items), "time": np.asarray(histories.timestamps)}
    return pl.DataFrame(columns).unique()
