"""What a run trains: the model, its batches and how it is validated, made from a run configuration."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from recjax.config import RunConfig
from recjax.data.dataset import Dataset
from recjax.data.loader import Loader, open_data
from recjax.data.splits import Split
from recjax.data.views import Batch
from recjax.evaluate.metrics import ACCURACY
from recjax.evaluate.protocol import quick
from recjax.models.model import ItemStats, Model
from recjax.typing import InputError, Params


class Batches(Protocol):
    """What the loop needs of a loader; `recjax.data.loader.Loader` is one."""

    def steps(self, epochs: float) -> int: ...

    def batch(self, step: int) -> Batch: ...

    def iterate(self, start: int, stop: int) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Task:
    """All that the loop is given beside its settings.

    Attributes:
        dataset: its name.
        fingerprint: of the dataset; a run never goes on with another one.
        model: to be trained.
        loader: its batches.
        validate: parameters -> metrics, or None for no validation.
    """

    dataset: str
    fingerprint: str
    model: Model
    loader: Batches
    validate: Callable[[Params], dict[str, float]] | None


def item_stats(dataset: Dataset, split: Split) -> ItemStats:
    """What a model is told of the catalog: its size and how often each item occurs in training."""
    return ItemStats(dataset.n_items, np.bincount(split.train.items, minlength=dataset.n_items + 1))


def open_task(config: RunConfig) -> Task:
    """The task of a configuration; call it under the run's mesh."""
    dataset, split = open_data(config.data)
    model: Model = config.model.build(item_stats(dataset, split))
    data = config.data
    loader = Loader(split.train, data.view, data.rows, data.row_length, config.seed, n_items=dataset.n_items)
    validate = _validation(config, model, split, dataset.n_items) if len(split.validation) else None
    return Task(dataset.name, dataset.fingerprint, model, loader, validate)


def _validation(config: RunConfig, model: Model, split: Split, n_items: int) -> Callable[[Any], dict[str, float]]:
    users, metric = config.train.validation_users, config.train.metric
    if metric not in ACCURACY:
        raise InputError(f"train.metric is {metric!r}, but validation measures: {', '.join(ACCURACY)}")

    def validate(params: Params) -> dict[str, float]:
        return quick(model, params, split.validation, config.data.view, n_items, config.evaluate, users)

    return validate
