"""Base class of evaluators: parameters and data to figures, while training and at the end.

`RunConfig.evaluate` is one evaluator or a tuple of them. The first gives the report; the figures of the others are its
`tasks`, by name. While training, all of them measure a sample of the validation part, and `train.metric` names the
figure that decides which parameters are best: one of the first evaluator's by its name, `ndcg@10`, one of another's
behind that evaluator's, `Options.hr@1`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from recjax.data.batches.views import View
from recjax.data.dataset import Dataset
from recjax.data.items import Items
from recjax.data.splits import Examples, Split
from recjax.evaluate.report import Report
from recjax.models.model import Model
from recjax.typing import InputError, Params


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """Data that models are evaluated on.

    Attributes:
        dataset: the catalog and the users' names.
        split: of the dataset.
        view: how a history becomes a query.
        items: of the catalog, on the devices; None for a model of item ids.
        vectors: float32 [v, d], the space in which the text floor compares items, see `floors.rank_floors`.
    """

    dataset: Dataset
    split: Split
    view: View
    items: Items | None = None
    vectors: np.ndarray | None = None


class Evaluator(ABC):
    """One way to measure a model, which it knows by the base class of models alone.

    Subclasses are frozen dataclasses.

    Attributes:
        metrics: names of the figures that `validate` gives, larger being better; none for an evaluator that has
            nothing to say while training.
        several_targets: whether it takes all targets of a user into account where a split has several.
        mask_seen: whether items of a history leave the ranking ("history") or stay ("none"); `recommend` does likewise.
        users_per_batch: queries of a batch over all devices.
        k: length of the lists, 0 where there are none.
    """

    metrics: ClassVar[tuple[str, ...]] = ()
    several_targets: ClassVar[bool] = False
    mask_seen: Literal["history", "none"] = "history"
    users_per_batch: int = 256
    k: int = 0

    @property
    def name(self) -> str:
        """Name in reports."""
        return type(self).__name__

    def check(self, data: EvaluationData) -> None:
        """Raises InputError where the data cannot be evaluated so."""
        if not self.several_targets and data.split.test.sets is not None:
            raise InputError(
                f"the split {data.split.name} has several targets a user, but {self.name} looks at one: set the "
                "recipe's evaluate to RankSets()"
            )

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        """The figures named by `metrics` on a sample of the validation part, for use while training.

        Args:
            model: what is measured.
            params: its parameters.
            data: what it is measured on.
            users: size of the sample, the same users on every call; None for all.
        """
        del model, params, data, users
        return {}

    @abstractmethod
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
        """The report of one question, on all devices of the current mesh.

        Args:
            model: what is measured.
            params: its parameters.
            data: what it is measured on.
            floors: whether to measure the floors too.
            name: what to call the model.
            progress: show how far it is, see `recjax.track.console.tracked`.
        """


def named(evaluators: Sequence[Evaluator]) -> dict[str, Evaluator]:
    """The evaluators by name; a second one of the same name gets a number."""
    result: dict[str, Evaluator] = {}
    for evaluator in evaluators:
        count = 1 + sum(other.name == evaluator.name for other in result.values())
        result[evaluator.name if count == 1 else f"{evaluator.name}_{count}"] = evaluator
    return result


def validation(
    evaluators: Sequence[Evaluator], metric: str, model: Model, data: EvaluationData, users: int | None
) -> Callable[[Params], dict[str, float]]:
    """A function of parameters that gives what all evaluators measure on a sample of the validation part.

    Args:
        evaluators: the first one's figures go by their names, the others' behind the evaluator's name and a dot.
        metric: the figure that training looks at.
        model: what is measured.
        data: what it is measured on.
        users: size of the sample; None for all.

    Raises:
        InputError: no evaluator gives the metric, or one cannot evaluate such data.
    """
    check_metric(evaluators, metric)
    prefixes = _prefixes(evaluators)
    for evaluator in evaluators:
        evaluator.check(data)

    def validate(params: Params) -> dict[str, float]:
        return {
            prefix + name: value
            for prefix, evaluator in prefixes.items()
            for name, value in evaluator.validate(model, params, data, users).items()
        }

    return validate


def check_metric(evaluators: Sequence[Evaluator], metric: str) -> None:
    """Raises InputError where no evaluator gives the metric, named as in `validation`."""
    known = [prefix + name for prefix, evaluator in _prefixes(evaluators).items() for name in evaluator.metrics]
    if metric not in known:
        raise InputError(f"train.metric is {metric!r}, but validation measures: {', '.join(known) or 'nothing'}")


def _prefixes(evaluators: Sequence[Evaluator]) -> dict[str, Evaluator]:
    """The evaluators by the beginning of their figures' names."""
    return {"" if number == 0 else f"{name}.": each for number, (name, each) in enumerate(named(evaluators).items())}


def sampled(examples: Examples, max_users: int | None) -> Examples:
    """A fixed sample of the users, the same on every call; None for all."""
    if max_users is None or max_users >= len(examples):
        return examples
    return examples.take(np.sort(np.random.default_rng(0).permutation(len(examples))[:max_users]))
