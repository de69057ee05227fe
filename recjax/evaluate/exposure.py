"""Exposure of given items: how often lists hold what an attacker pushes, or a shop wants to sell."""

import time
from dataclasses import dataclass

import numpy as np

from recjax.data.splits import Which
from recjax.evaluate.evaluator import EvaluationData, Evaluator
from recjax.evaluate.floors import rank_floors
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.ranking import rank_users
from recjax.evaluate.report import TIES, Report, dataset_facts
from recjax.limits import SIZE, refuse, require, within
from recjax.models.model import Model
from recjax.typing import Params

FLOORS = ("popularity", "transition")


@dataclass(frozen=True)
class Exposure(Evaluator):
    """Exposure of given items in lists: t_hr@k and t_ndcg@k, as the literature on attacks has them.

    For each item, over the users who do not have it in their history, t_hr@k is the share whose best k unseen items
    hold it, t_ndcg@k the mean of 1 / log2(1 + rank) there; then the mean over the items. An attacker wants much, the
    attacked shop little, so training does not look at it.

    Attributes:
        items: ids of the items as in the dataset; none for those that the split's attacker pushes, see
            `recjax.data.attacks.Attacked`.
        k: length of the lists.
        split: whose histories.
        users_per_batch: queries of a batch over all devices.
    """

    items: tuple[str, ...] = ()
    k: int = 50
    split: Which = "test"
    users_per_batch: int = 256

    several_targets = True  # looks at none

    def __post_init__(self) -> None:
        require(self, k=within(1, 10_000), users_per_batch=SIZE)

    def check(self, data: EvaluationData) -> None:
        self._chosen(data)

    def _chosen(self, data: EvaluationData) -> np.ndarray:
        """Numbers of the items."""
        items = self.items or data.split.notes.get("pushed_items", ())
        if not items:
            refuse(self, "items", "the ids of some items, or a split with an attacker")
        return data.dataset.item_index(list(items))

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
        dataset, split, examples = data.dataset, data.split, data.split.examples(self.split)
        chosen = self._chosen(data)
        has = np.zeros((len(examples), len(chosen)), bool)
        row = np.repeat(np.arange(len(examples)), examples.histories.lengths)
        for column, item in enumerate(chosen):
            has[row[examples.histories.items == item], column] = True
        started = time.perf_counter()
        lists = rank_users(
            model,
            params,
            examples,
            data.view,
            lambda user: dataset.user_ids[user],
            data.items,
            users_per_batch=self.users_per_batch,
            k=self.k,
            progress=progress,
        ).lists
        seconds, ranked = time.perf_counter() - started, {}
        if floors:
            ranked = rank_floors(dataset, split, self.split, examples, Rules(k=self.k), only=FLOORS, progress=progress)
        return Report(
            name=name,
            dataset=dataset_facts(dataset),
            protocol={"split": self.split, "candidates": "full", "mask_seen": "history", "tie": TIES},
            metrics={"all": exposure(lists, chosen, has)},
            interval={},
            floors={floor: exposure(found.lists, chosen, has) for floor, found in ranked.items() if found is not None},
            counts={"users": len(examples), "items": len(chosen)},
            seconds=seconds,
            audit=None,
        )


def exposure(lists: np.ndarray | None, items: np.ndarray, has: np.ndarray) -> dict[str, float]:
    """t_hr@k and t_ndcg@k, k being the length of the lists.

    Args:
        lists: int [n, k], best items, 0 where a list ran out.
        items: int [t], whose exposure.
        has: bool [n, t]: the user has the item already, and does not count for it.
    """
    assert lists is not None
    k = lists.shape[1]
    found = lists[:, None, :] == items[None, :, None]
    gains = (found / np.log2(np.arange(k) + 2.0)).sum(axis=2)
    free = ~has
    users = np.maximum(free.sum(axis=0), 1)
    hits = (found.any(axis=2) & free).sum(axis=0) / users
    return {f"t_hr@{k}": float(hits.mean()), f"t_ndcg@{k}": float(((gains * free).sum(axis=0) / users).mean())}
