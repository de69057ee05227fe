"""The task of a run: model, batches and validation, made from a run configuration."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from recjax.config import RunConfig
from recjax.data.batches.loader import Data, Loader, open_data
from recjax.data.batches.mixture import MixedLoader, Mixture, joint_identity
from recjax.data.batches.views import Batch
from recjax.data.dataset import Dataset
from recjax.data.items import CODES, Items, bare_items, by_catalog, on_devices
from recjax.data.splits import Split
from recjax.data.transitions import item_counts
from recjax.evaluate.evaluator import EvaluationData, sampled, validation
from recjax.models.model import ItemStats, Model
from recjax.train import own_items
from recjax.train.catalogs import Catalogs, open_catalogs
from recjax.train.held_out import Shares, held_out_loader, loss_of_each
from recjax.typing import InputError, Params

Shapes = dict[str, tuple[int, ...]]


class Batches(Protocol):
    """Interface of a loader, as the loop needs it; `recjax.data.batches.loader.Loader` is one."""

    def steps(self, epochs: float) -> int: ...

    def batch(self, step: int) -> Batch: ...

    def catalog(self, step: int) -> int: ...

    def members(self, step: int) -> np.ndarray: ...

    def iterate(self, start: int, stop: int) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Task:
    """All that the loop is given beside its settings.

    Attributes:
        dataset: its name.
        fingerprint: of the dataset; a run never resumes with another one.
        model: to be trained.
        loader: its batches.
        items: of each catalog that batches are of, on the devices.
        validate: parameters -> metrics, or None for no validation.
        params: to begin with, on the host, or any part of them; the rest is what the model's `init` makes.
        finish: run folder -> what a run that is done leaves beside its checkpoints is written there.
        keep: run folder -> the catalog that the run ranks is written there, see `recjax.train.own_items`.
        catalog: `item_id` and `title` of the items, where batches are of one catalog; else None.
        left_out: items of the dataset without events, which the model cannot rank.
        shares: changes those of a mixture by held-out losses, or None.
    """

    dataset: str
    fingerprint: str
    model: Model
    loader: Batches
    items: tuple[Items, ...]
    validate: Callable[[Params], dict[str, float]] | None
    params: Params | None = None
    finish: Callable[[Path], None] | None = None
    keep: Callable[[Path], None] | None = None
    catalog: pl.DataFrame | None = None
    left_out: int = 0
    shares: Shares | None = None


def item_stats(dataset: Dataset, split: Split, catalogs: Catalogs | None = None) -> ItemStats:
    """Facts of a catalog that a model is built with.

    Args:
        dataset: the catalog.
        split: its split.
        catalogs: its features; None where the recipe has none.
    """
    counts = item_counts(split.train.items, dataset.n_items)
    return ItemStats(dataset.n_items, counts, *_features(catalogs))


def _features(catalogs: Catalogs | None) -> tuple[Shapes, tuple[int, ...], Shapes]:
    if catalogs is None:
        return {}, (), {}
    return catalogs.items.row_shapes, catalogs.sizes.get(CODES, ()), catalogs.sizes


def ranked_part(config: RunConfig, dataset: Dataset) -> Dataset:
    """The dataset with the items that the configured model can rank."""
    return dataset if getattr(config.model, "ranks_unseen", False) else dataset.of_events()


def device_items(catalogs: Catalogs | None, datasets: Sequence[Dataset], *, unseen: bool = True) -> tuple[Items, ...]:
    """Items of each of the catalogs on the devices; without columns where the run reads no text.

    Without `unseen`, items that have no event are behind the catalog's end: they are no negatives in training.
    """
    sizes = [dataset.n_items - (0 if unseen else dataset.n_unseen) for dataset in datasets]
    if catalogs is None:
        return tuple(on_devices(bare_items(size)) for size in sizes)
    return by_catalog(catalogs.items, catalogs.starts, sizes)


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
    dataset = ranked_part(config, dataset)
    catalogs = open_catalogs(config, [(dataset, split)], run_dir)
    stats = item_stats(dataset, split, catalogs)
    model: Model = config.model.build(stats)
    items, trained = device_items(catalogs, [dataset]), device_items(catalogs, [dataset], unseen=False)
    data = config.data
    check_packing(data, model)
    loader = Loader(
        split.train,
        data.view,
        data.rows,
        data.row_length,
        config.seed,
        n_items=dataset.n_items,
        packed=data.pack,
        relations=None if catalogs is None else catalogs.relations[0],
    )
    validated = config.train.evaluate_every != 0 and len(split.validation)
    validate = _validation(config, model, dataset, split, items[0]) if validated else None
    keep = partial(own_items.write, dataset=dataset, stats=stats, items=catalogs and catalogs.parts[0])
    titles = dataset.catalog.select("item_id", "title")
    more = {"keep": keep, "catalog": titles, "left_out": dataset.left_out, "params": config.model.given()}
    return Task(dataset.name, dataset.fingerprint, model, loader, trained, validate, **more)


def check_packing(data: Data, model: Model) -> None:
    """Raises InputError where histories share rows and the model cannot keep them apart."""
    if data.pack and not model.packing:
        raise InputError(
            "the model, or one of its mixers, cannot keep the histories of a packed row apart: set data.pack=false, "
            "which gives each history a row of its own, or choose mixers that can"
        )


def _open_mixture(config: RunConfig, data: Mixture, run_dir: Path | None) -> Task:
    """Trains on several catalogs, and validates on the one that is held out."""
    opened = data.open()
    datasets = [dataset for dataset, _ in opened]
    catalogs = open_catalogs(config, opened, run_dir)
    if catalogs is None:
        raise InputError(
            "several catalogs share no item ids: a mixture needs a model of texts, so the recipe needs `text`"
        )
    items = device_items(catalogs, datasets, unseen=False)
    counts = [np.bincount(split.train.items, minlength=dataset.n_items + 1)[1:] for dataset, split in opened]
    stats = ItemStats(sum(map(len, counts)), np.concatenate([[0], *counts]), *_features(catalogs))
    loaders = [
        Loader(
            split.train,
            data.view,
            data.rows,
            data.row_length,
            config.seed + number,
            n_items=dataset.n_items,
            relations=catalogs.relations[number],
        )
        for number, (dataset, split) in enumerate(opened)
    ]
    # The catalog that lists are of: beside the checkpoints it makes the folder enough to recommend by.
    target, split = opened[0] if data.held_out is None else open_data(data.on(data.held_out))
    theirs = catalogs if data.held_out is None else open_catalogs(config, [(target, split)], run_dir)
    theirs_stats, validate = item_stats(target, split, theirs), None
    if config.train.evaluate_every != 0 and len(split.validation):
        model: Model = config.model.build(theirs_stats)
        ranked = datasets if data.held_out is None else [target]
        validate = _validation(config, model, target, split, device_items(theirs, ranked)[0])
    keep = partial(own_items.write, dataset=target, stats=theirs_stats, items=theirs and theirs.parts[0])
    rule, trained = data.weighting, config.model.build(stats)
    loader, shares = MixedLoader(loaders, data.weights(datasets), rule and rule.every), None
    if rule is not None:
        held_out = [
            held_out_loader(sampled(split.validation, rule.users), own, data.view, own_relations)
            for (_, split), own, own_relations in zip(opened, loaders, catalogs.relations, strict=True)
        ]
        shares = Shares(rule, data.datasets, loader, loss_of_each(trained, held_out, items))
    return Task(
        *joint_identity(datasets), trained, loader, items, validate, config.model.given(), keep=keep, shares=shares
    )


def check_ranks(config: RunConfig) -> None:
    """Raises InputError where a configuration's model ranks no items."""
    if not config.model.ranks:
        raise InputError(
            f"{config.name} trains a sentence encoder, which ranks nothing by itself: `recjax align` trains it, and "
            "recipes name its folder in their `text`"
        )


def _validation(
    config: RunConfig, model: Model, dataset: Dataset, split: Split, items: Items
) -> Callable[[Params], dict[str, float]]:
    data = EvaluationData(dataset, split, config.data.view, items)
    return validation(config.evaluators, config.train.metric, model, data, config.train.validation_users)
