"""Click prediction: the score of what a user took against the scores of what the user did not, as AUC."""

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from recjax.data.splits import Examples, Split, Which
from recjax.data.transitions import item_counts
from recjax.evaluate.candidates import sample
from recjax.evaluate.evaluator import EvaluationData, Evaluator, sampled
from recjax.evaluate.floors import scorers
from recjax.evaluate.host_ranking import CHUNK_SCORES
from recjax.evaluate.intervals import bootstrap_values
from recjax.evaluate.ranking import NonFiniteScoresError, score_items
from recjax.evaluate.report import Report, dataset_facts
from recjax.limits import SEED, SIZE, require, within
from recjax.models.model import Model
from recjax.typing import Params

METRICS = ("auc", "gauc")

FLOORS = ("popularity", "transition")


@dataclass(frozen=True)
class Clicks(Evaluator):
    """Labels 1 for the target and 0 for `negatives` items that the user never had: AUC of the scores of all pairs.

    auc is the share of (positive, negative) pairs of any two users in the right order, so scores have to mean the same
    for all users; gauc is that share among the pairs of one user, averaged over users. An equal pair counts half.

    Attributes:
        negatives: for each target, drawn once from the items that are not in the history.
        kind: how they are drawn: by "popularity", in proportion to their training events, or "uniform".
        split: which targets.
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % interval of gauc; 0 for none.
        seed: of the draw and of the bootstrap.
    """

    negatives: int = 2
    kind: Literal["popularity", "uniform"] = "popularity"
    split: Which = "test"
    users_per_batch: int = 256
    bootstrap: int = 1000
    seed: int = 0

    metrics: ClassVar[tuple[str, ...]] = METRICS

    def __post_init__(self) -> None:
        require(self, negatives=SIZE, users_per_batch=SIZE, bootstrap=within(0, 100_000), seed=SEED)

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        examples = sampled(data.split.validation, users)
        pairs = self._pairs(examples, data.split, data.dataset.n_items)
        return _figures(self._scores(model, params, data, examples, pairs, progress=True), pairs)

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
        dataset, examples = data.dataset, data.split.examples(self.split)
        pairs = self._pairs(examples, data.split, dataset.n_items)
        started = time.perf_counter()
        scores = self._scores(model, params, data, examples, pairs, progress)
        seconds = time.perf_counter() - started
        makers = scorers(dataset, data.split, self.split, data.vectors)
        counted = {floor: _host_scores(makers[floor](), examples, pairs) for floor in FLOORS} if floors else {}
        gauc = user_auc(scores, pairs)
        return Report(
            name=name,
            dataset=dataset_facts(dataset),
            protocol={
                "split": self.split,
                "candidates": f"the target and {self.negatives} unseen items, {self.kind}",
                "mask_seen": "history",
                "tie": "an equal pair counts half",
            },
            metrics={"all": _figures(scores, pairs)},
            interval=bootstrap_values({"gauc": gauc}, self.bootstrap, self.seed),
            floors={floor: _figures(found, pairs) for floor, found in counted.items()},
            counts={"users": len(examples), "pairs": int((pairs > 0).sum())},
            seconds=seconds,
            audit=None,
            users=pl.DataFrame(
                {
                    "user_id": [dataset.user_ids[user] for user in examples.histories.users],
                    "history": examples.histories.lengths,
                    "gauc": gauc,
                    **{f"gauc_{floor}": user_auc(found, pairs) for floor, found in counted.items()},
                }
            ),
        )

    def _pairs(self, examples: Examples, split: Split, n_items: int) -> np.ndarray:
        """int32 [n, 1 + negatives]: the target, then the items that were not taken, 0-padded."""
        counts = item_counts(split.train.items, n_items)
        negatives = sample(self.kind, examples, counts, self.seed, self.negatives)
        return np.concatenate([examples.targets[:, None], negatives], axis=1).astype(np.int32)

    def _scores(
        self,
        model: Model,
        params: Params,
        data: EvaluationData,
        examples: Examples,
        pairs: np.ndarray,
        progress: bool = False,
    ) -> np.ndarray:
        scores = score_items(
            model,
            params,
            examples,
            data.view,
            pairs,
            data.items,
            users_per_batch=self.users_per_batch,
            progress=progress,
        )
        broken = examples.histories.users[~np.isfinite(scores).all(axis=1)]
        if len(broken):
            raise NonFiniteScoresError.of([data.dataset.user_ids[user] for user in broken])
        return scores


def _host_scores(score: Any, examples: Examples, pairs: np.ndarray) -> np.ndarray:
    """Scores [n, c] by a function that scores the catalog on the host."""
    found, size = np.zeros(pairs.shape), 0
    start = 0
    while start < len(examples):
        rows = np.arange(start, min(start + max(size, 1), len(examples)))
        scores = score(examples.histories.take(rows))
        found[rows] = np.take_along_axis(scores, pairs[rows], axis=1)
        start, size = int(rows[-1]) + 1, CHUNK_SCORES // scores.shape[1]
    return found


def _figures(scores: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    return {"auc": auc(scores, pairs), "gauc": float(user_auc(scores, pairs).mean())}


def auc(scores: np.ndarray, pairs: np.ndarray) -> float:
    """Area under the ROC curve of all pairs.

    Args:
        scores: [n, 1 + c], of the positive and of the negatives.
        pairs: int [n, 1 + c], their items, 0 where there is none.
    """
    from sklearn.metrics import roc_auc_score  # slow to import, and training imports this room

    labels = np.zeros(pairs.shape, bool)
    labels[:, 0] = True
    return float(roc_auc_score(labels[pairs > 0], scores[pairs > 0]))


def user_auc(scores: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """float64 [n]: the share of a user's negatives that score below the positive, equal ones counting half.

    >>> user_auc(np.array([[2.0, 1.0, 2.0, 9.0]]), np.array([[5, 6, 7, 0]])).tolist()
    [0.75]
    """
    used, own = pairs[:, 1:] > 0, scores[:, :1]
    won = np.where(scores[:, 1:] < own, 1.0, np.where(scores[:, 1:] == own, 0.5, 0.0))
    return (won * used).sum(axis=1) / np.maximum(used.sum(axis=1), 1)
