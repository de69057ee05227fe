"""Denoising: whether a model finds the training events that a noisy split has replaced, beside counts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.noise import training_places
from recjax.data.transitions import item_counts, user_items
from recjax.evaluate.corrections import Corrections, corrections
from recjax.evaluate.evaluator import EvaluationData, Evaluator
from recjax.evaluate.report import Report, dataset_facts
from recjax.limits import SIZE, require
from recjax.models.model import Model
from recjax.typing import InputError, Params

FLOORS = ("rarity", "co_occurrence")


@dataclass(frozen=True)
class Denoising(Evaluator):
    """Replaced events of the training histories, against the others: by doubts of the model, and by counts.

    auc is the share of pairs of a replaced event and another one in which the replaced one is doubted more; restored
    the share of the replaced events whose correction is what stood there. Counts doubt items with few events
    ("rarity"), or that few other users have together with the items beside them ("co_occurrence"). Nothing of what was
    replaced is known in training, so it is not looked at there.

    Attributes:
        users_per_batch: windows of a batch over all devices.
    """

    users_per_batch: int = 256

    several_targets = True  # looks at none

    def __post_init__(self) -> None:
        require(self, users_per_batch=SIZE)

    def check(self, data: EvaluationData) -> None:
        if not data.split.notes.get("replaced_events"):
            raise InputError(
                f"{self.name} looks for replaced events: the split has to be Noisy(), not {data.split.name}"
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
        self.check(data)
        dataset, train = data.dataset, data.split.train.compact()
        true, shown = dataset.items[training_places(dataset, data.split)], np.asarray(train.items)
        started = time.perf_counter()
        given = (model, params, train, data.view, data.items)
        found = corrections(*given, users_per_batch=self.users_per_batch, progress=progress)
        seconds = time.perf_counter() - started
        wrong = true != shown
        counted = counted_doubts(train, found, dataset.n_items) if floors else {}
        restored = float((found.items == true)[wrong].mean())
        return Report(
            name=name,
            dataset=dataset_facts(dataset),
            protocol={"split": "train", "candidates": "training events", "mask_seen": "none", "tie": "counts half"},
            metrics={"all": {"auc": auc(wrong, found.doubts), "restored": restored}},
            interval={},
            floors={floor: {"auc": auc(wrong, doubts)} for floor, doubts in counted.items()},
            counts={"users": len(train), "events": len(true), "replaced": int(wrong.sum())},
            seconds=seconds,
            audit=None,
        )


def auc(wrong: np.ndarray, doubts: np.ndarray) -> float:
    """Area under the ROC curve; wrong is bool [m]."""
    from sklearn.metrics import roc_auc_score  # slow to import, and training imports this room

    return float(roc_auc_score(wrong, doubts))


def counted_doubts(train: Histories, found: Corrections, n_items: int) -> dict[str, np.ndarray]:
    """Floor -> float64 [m]: by events of each item, and by how many other users have it with each item beside it."""
    items, (first, size) = np.asarray(train.items), np.unique(found.window, return_index=True, return_counts=True)[1:]
    users = user_items(train, n_items)
    together = (users.T @ users).tocsr()
    near = np.zeros(len(items))
    for length in np.unique(size):  # windows of one length at a time, so that rows are of one shape
        events = first[size == length][:, None] + np.arange(length)
        for column in range(length):
            own = np.repeat(items[events[:, column]], length)
            pairs = np.asarray(together[own, items[events].ravel()]).reshape(-1, length) - 1
            near[events[:, column]] = (pairs.sum(axis=1) - pairs[:, column]) / max(length - 1, 1)
    return {"rarity": -item_counts(items, n_items)[items].astype(float), "co_occurrence": -near}
