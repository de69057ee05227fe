"""Evaluation of several targets a user: the next basket, a random share of the events, all that comes later."""

import time
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import polars as pl

from recjax.data.prepare.audit import audit
from recjax.data.splits import Which
from recjax.evaluate.evaluator import EvaluationData, Evaluator, sampled
from recjax.evaluate.floors import check_baselines, check_names, scorers
from recjax.evaluate.intervals import bootstrap_values
from recjax.evaluate.metrics import LIST_LENGTH, SET_ACCURACY, coverage, set_metrics
from recjax.evaluate.report import LEADING, TIES, Report, dataset_facts
from recjax.evaluate.set_floors import SET_FLOORS, personal_scorers
from recjax.evaluate.set_ranking import SetRankings, rank_sets, rank_sets_scored
from recjax.limits import SEED, SIZE, require, within
from recjax.models.model import Model
from recjax.track.console import tracked
from recjax.typing import Params


@dataclass(frozen=True)
class RankSets(Evaluator):
    """Ranks all distinct targets of a user in the whole catalog: recall@k, ndcg@k, hr@k, mrr, as means over users.

    A target that is in the history is a repeat. Four groups are reported beside "all", each over the users who have
    such targets: "repeat" and "novel" look at these targets alone in the same ranking; "repeat_among_seen" ranks
    repeats among the items of the history, "novel_among_unseen" the others among all other items. The last two tell
    how good a system is at either task, however it weighs one against the other.

    Attributes:
        split: which targets.
        mask_seen: "none": items of the history compete, as in baskets, where people buy again what they bought.
            "history": they leave the ranking, and repeats are misses.
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
        k: length of the lists, for coverage.
        seed: of the bootstrap.
        baselines: which of `floors.BASELINES` to fit and rank beside the floors.
    """

    split: Which = "test"
    mask_seen: Literal["none", "history"] = "none"
    users_per_batch: int = 256
    bootstrap: int = 1000
    k: int = 20
    seed: int = 0
    baselines: tuple[str, ...] = ()

    metrics: ClassVar[tuple[str, ...]] = SET_ACCURACY
    several_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self, users_per_batch=SIZE, bootstrap=within(0, 100_000), seed=SEED, k=within(LIST_LENGTH, 10_000))
        check_names(self)

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        found = self._rank(model, params, data, "validation", users, progress=True)
        values = set_metrics(found.whole, found.sets.rows, len(found.sets.lengths))
        return {metric: float(column.mean()) for metric, column in values.items()}

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
        check_baselines(self.baselines, data.dataset.n_items)
        started = time.perf_counter()
        ours = self._rank(model, params, data, self.split, None, progress)
        seconds = time.perf_counter() - started
        ranked = self._floors(data, progress) if floors else {}
        dataset, examples, sets = data.dataset, data.split.examples(self.split), ours.sets
        groups = self._groups(ours)
        counts = {"users": len(examples), "targets": len(sets.items)}
        return Report(
            name=name,
            dataset=dataset_facts(dataset),
            protocol={"split": self.split, "candidates": "full", "mask_seen": self.mask_seen, "tie": TIES},
            metrics=self._figures(ours, dataset.n_items),
            interval=bootstrap_values(groups["all"], self.bootstrap, self.seed),
            floors={floor: found and self._floor_figures(found, dataset.n_items) for floor, found in ranked.items()},
            counts=counts | {group: _users(values) for group, values in groups.items() if group != "all"},
            seconds=seconds,
            audit=audit(dataset, data.split).to_json(),
            users=pl.DataFrame(
                {
                    "user_id": [dataset.user_ids[user] for user in examples.histories.users],
                    "targets": sets.lengths,
                    "history": examples.histories.lengths,
                    **groups["all"],
                    **{
                        f"{LEADING}_{floor}": self._groups(found)["all"][LEADING]
                        for floor, found in ranked.items()
                        if found is not None
                    },
                }
            ),
        )

    def _rank(
        self, model: Model, params: Params, data: EvaluationData, part: Which, users: int | None, progress: bool = False
    ) -> SetRankings:
        return rank_sets(
            model,
            params,
            sampled(data.split.examples(part), users),
            data.view,
            lambda user: data.dataset.user_ids[user],
            data.items,
            mask_seen=self.mask_seen == "history",
            users_per_batch=self.users_per_batch,
            k=self.k,
            progress=progress,
        )

    def _floors(self, data: EvaluationData, progress: bool) -> dict[str, SetRankings | None]:
        """Floor -> its ranks; None where the data cannot have it."""
        n_items, examples = data.dataset.n_items, data.split.examples(self.split)
        makers = scorers(data.dataset, data.split, self.split, data.vectors)
        makers = {**makers, **personal_scorers(data.split, self.split, n_items)}
        ranked: dict[str, SetRankings | None] = {}
        masked = self.mask_seen == "history"
        names = (*SET_FLOORS, *self.baselines)
        for floor in tracked(names, len(names), "floors", progress):
            score = makers[floor]()
            ranked[floor] = score and rank_sets_scored(score, examples, n_items, mask_seen=masked, k=self.k)
        return ranked

    def _groups(self, found: SetRankings) -> dict[str, dict[str, np.ndarray]]:
        """Group -> metric -> float64 [n], NaN for users without such targets."""
        sets = found.sets
        chosen = {"all": (found.whole, np.ones(len(sets.items), bool))}
        chosen |= {"repeat": (found.whole, sets.repeat), "novel": (found.whole, ~sets.repeat)}
        if self.mask_seen == "none":
            chosen["repeat_among_seen"] = (found.seen, sets.repeat)
            chosen["novel_among_unseen"] = (found.unseen, ~sets.repeat)
        count = len(sets.lengths)
        return {
            group: set_metrics(ranks[among], sets.rows[among], count, self.k)
            for group, (ranks, among) in chosen.items()
        }

    def _figures(self, found: SetRankings, n_items: int) -> dict[str, dict[str, float]]:
        groups = self._groups(found)
        figures = {
            group: {metric: float(np.nanmean(column)) for metric, column in values.items()} if _users(values) else {}
            for group, values in groups.items()
        }
        figures["all"]["coverage@10"] = coverage(found.lists[:, :LIST_LENGTH], n_items)
        return figures

    def _floor_figures(self, found: SetRankings, n_items: int) -> dict[str, float]:
        """The figures of all targets, and the leading metric of each group as `GROUP.ndcg@10`."""
        groups = self._figures(found, n_items)
        everyone = groups.pop("all")
        return everyone | {f"{group}.{LEADING}": figures[LEADING] for group, figures in groups.items() if figures}


def _users(values: dict[str, np.ndarray]) -> int:
    """Users who have targets of a group."""
    return int(np.isfinite(values[LEADING]).sum())
