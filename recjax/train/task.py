"""What a run trains: the model, its batches and how it is validated, made from a run configuration."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recjax.config import RunConfig
from recjax.data.dataset import Dataset
from recjax.data.loader import Loader, open_data
from recjax.data.mixture import MixedLoader, Mixture, joint_identity
from recjax.data.splits import Split
from recjax.data.transitions import item_counts
from recjax.data.views import Batch
from recjax.evaluate.metrics import ACCURACY
from recjax.evaluate.protocol import quick
from recjax.models.model import ItemStats, Model
from recjax.train.catalogs import Catalogs, of_catalog, open_catalogs
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
        params: to begin with, on the host; None for those that the model's `init` makes.
    """

    dataset: str
    fingerprint: str
    model: Model
    loader: Batches
    validate: Callable[[Params], dict[str, float]] | None
    params: Params | None = None


def item_stats(dataset: Dataset, split: Split, catalogs: Catalogs | None = None, number: int = 0) -> ItemStats:
    """What a model is told of a catalog: its size, how often each item occurs in training, what is known of its texts.

    Args:
        dataset: the catalog.
        split: its split.
        catalogs: the joined table, for a model that reads texts.
        number: which of the joined catalogs it is.
    """
    counts = item_counts(split.train.items, dataset.n_items)
    return ItemStats(dataset.n_items, counts, **of_catalog(catalogs, number, dataset))


def open_task(config: RunConfig, run_dir: Path | None = None) -> Task:
    """The task of a configuration; call it under the run's mesh.

    Args:
        config: of the run.
        run_dir: where a tokenizer is kept, or None to keep nothing.
    """
    check_ranks(config)
    if isinstance(config.data, Mixture):
        return _open_mixture(config, config.data, run_dir)
    dataset, split = open_data(config.data)
    stats = item_stats(dataset, split, open_catalogs(config, [dataset], run_dir))
    model: Model = config.model.build(stats)
    data = config.data
    if data.pack and not getattr(model, "packing", True):
        raise InputError(
            "the model's mixers cannot keep the histories of a packed row apart: set data.pack=false, which gives each "
            "history a row of its own, or choose mixers that can"
        )
    loader = Loader(
        split.train,
        data.view,
        data.rows,
        data.row_length,
        config.seed,
        n_items=dataset.n_items,
        catalog=model.catalog,
        packed=data.pack,
    )
    validate = _validation(config, model, split, dataset.n_items) if len(split.validation) else None
    return Task(dataset.name, dataset.fingerprint, model, loader, validate)


def _open_mixture(config: RunConfig, data: Mixture, run_dir: Path | None) -> Task:
    """Trains on several catalogs, and validates on the one that is held out."""
    opened = data.open()
    datasets = [dataset for dataset, _ in opened]
    catalogs = open_catalogs(config, datasets, run_dir)
    if catalogs is None:
        raise InputError(
            "several catalogs share no item ids: a mixture needs a model of texts, so the recipe needs `text`"
        )
    table = catalogs.table
    counts = [np.bincount(split.train.items, minlength=dataset.n_items + 1)[1:] for dataset, split in opened]
    stats = ItemStats(sum(map(len, counts)), np.concatenate([[0], *counts]), table, catalogs.code_sizes)
    loaders = [
        Loader(split.train, data.view, data.rows, data.row_length, config.seed + number, n_items=dataset.n_items)
        for number, (dataset, split) in enumerate(opened)
    ]
    validate = None
    if config.train.evaluate_every != 0:
        target, split = open_data(data.on(data.dataset))
        if data.held_out is None:
            found = item_stats(target, split, catalogs, 0)
        else:
            found = item_stats(target, split, open_catalogs(config, [target], run_dir))
        if len(split.validation):
            validate = _validation(config, config.model.build(found), split, target.n_items)
    loader = MixedLoader(loaders, data.weights(datasets), table, catalogs.starts)
    return Task(*joint_identity(datasets), config.model.build(stats), loader, validate)


def check_ranks(config: RunConfig) -> None:
    """Raises InputError where what a configuration trains ranks no items."""
    if not hasattr(config.model, "build"):
        raise InputError(
            f"{config.name} trains a sentence encoder, which ranks nothing by itself: `recjax align` trains it, and "
            "recipes name its folder in their `text`"
        )


def _validation(config: RunConfig, model: Model, split: Split, n_items: int) -> Callable[[Any], dict[str, float]]:
    users, metric = config.train.validation_users, config.train.metric
    if metric not in ACCURACY:
        raise InputError(f"train.metric is {metric!r}, but validation measures: {', '.join(ACCURACY)}")

    def validate(params: Params) -> dict[str, float]:
        return quick(model, params, split.validation, config.data.view, n_items, config.evaluate, users)

    return validate
