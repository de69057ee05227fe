"""A question with a few options: the target among items that the user never had."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from recjax.data.dataset import Dataset
from recjax.data.splits import Examples, Split, Which
from recjax.data.transitions import item_counts
from recjax.evaluate.candidates import sample
from recjax.evaluate.evaluator import EvaluationData, Evaluator, sampled
from recjax.evaluate.floors import check_baselines, check_names
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.metrics import user_metrics
from recjax.evaluate.protocol import Evaluate, report
from recjax.evaluate.ranking import Rankings, rank_users
from recjax.evaluate.report import Report
from recjax.limits import LENGTH, SEED, SIZE, require, within
from recjax.models.model import Model
from recjax.typing import Params

METRICS = ("hr@1", "hr@5", "mrr")


@dataclass(frozen=True)
class Options(Evaluator):
    """Ranks the target among `number - 1` wrong items: how often it is the best (hr@1), as language models are asked.

    The wrong items are drawn once for each user, from those that are not in the history, and are the same for every
    model and floor. With 20 options chance is .05; figures say nothing of the ranking of a whole catalog.

    Attributes:
        number: options, the target among them.
        kind: how the wrong ones are drawn: "uniform", or by "popularity", in proportion to their training events.
        split: which targets.
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
        seed: of the draw and of the bootstrap.
        baselines: which of `floors.BASELINES` to fit and ask beside the floors.
    """

    number: int = 20
    kind: Literal["uniform", "popularity"] = "uniform"
    split: Which = "test"
    users_per_batch: int = 256
    bootstrap: int = 1000
    seed: int = 0
    baselines: tuple[str, ...] = ()

    metrics: ClassVar[tuple[str, ...]] = METRICS

    def __post_init__(self) -> None:
        require(self, number=LENGTH, users_per_batch=SIZE, bootstrap=within(0, 100_000), seed=SEED)
        check_names(self)

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        examples = sampled(data.split.validation, users)
        wrong = self._wrong(examples, data.dataset, data.split)
        values = user_metrics(self._rank(model, params, data, examples, wrong, progress=True).ranks)
        return {metric: float(values[metric].mean()) for metric in METRICS}

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
        examples = data.split.examples(self.split)
        wrong = self._wrong(examples, data.dataset, data.split)
        asked = Evaluate(
            split=self.split, mask_seen="none", bootstrap=self.bootstrap, seed=self.seed, baselines=self.baselines
        )
        found = report(
            self._rank(model, params, data, examples, wrong, progress),
            data.dataset,
            data.split,
            asked,
            Rules(False, 0, wrong),
            name=name,
            seconds=0.0,
            floors=floors,
            vectors=data.vectors,
            progress=progress,
        )
        drawn = "uniformly" if self.kind == "uniform" else "by popularity"
        return replace(
            found,
            protocol=found.protocol
            | {"candidates": f"{self.number} options: the target and unseen items drawn {drawn}"},
            metrics={group: _shown(figures) for group, figures in found.metrics.items()},
            interval=_shown(found.interval),
            floors={floor: figures and _shown(figures) for floor, figures in found.floors.items()},
        )

    def _wrong(self, examples: Examples, dataset: Dataset, split: Split) -> np.ndarray:
        counts = item_counts(split.train.items, dataset.n_items)
        return sample(self.kind, examples, counts, self.seed, self.number - 1)

    def _rank(
        self,
        model: Model,
        params: Params,
        data: EvaluationData,
        examples: Examples,
        wrong: np.ndarray,
        progress: bool = False,
    ) -> Rankings:
        return rank_users(
            model,
            params,
            examples,
            data.view,
            lambda user: data.dataset.user_ids[user],
            data.items,
            mask_seen="none",  # wrong options are unseen, and the target competes even where it is not
            users_per_batch=self.users_per_batch,
            candidates=wrong,
            progress=progress,
        )


def _shown(figures: dict) -> dict:
    return {metric: value for metric, value in figures.items() if metric in METRICS}
