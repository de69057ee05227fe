"""Models that come with recjax, by name: weights in the package, evidence counted in the user's own catalog."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import numpy as np

from recjax import array_files
from recjax import config as configs
from recjax.config import RunConfig, override_all, to_json
from recjax.data.batches.loader import Data, split_for_ranking
from recjax.data.batches.views import Shifted
from recjax.data.dataset import Dataset
from recjax.data.features.evidence import Following, TextLinks, Together, Totals
from recjax.data.items import Items
from recjax.data.splits import Split, unsplit
from recjax.data.store.locate import cache_folder
from recjax.data.store.prepared import find
from recjax.evaluate.protocol import Evaluate
from recjax.models.evidence import Evidence, EvidenceModel, untrained_gate
from recjax.models.model import Model
from recjax.parallel.mesh import MeshShape
from recjax.text.array_cache import cached
from recjax.train.catalogs import open_catalogs
from recjax.train.fitting_weights import PLAIN, fitting, plain_weights
from recjax.train.folder.run_folder import CONFIG
from recjax.train.optimiser import AdamW
from recjax.train.run import Run, load_alone, load_run
from recjax.train.schedule import Train
from recjax.train.task import device_items, item_stats
from recjax.typing import COMMAND, InputError, Params

PRETRAINED = "pretrained"
"""Name of the model that comes with recjax, where a command takes a run folder. `pretrained:ENCODER` is the larger one,
which reads texts by a sentence encoder; `pretrained+RUN` has a trained run beside it, on that run's dataset."""

_NAMED = re.compile(rf"{PRETRAINED}(?::(?P<encoder>[^+]*))?(?:\+(?P<run>.*))?")

WEIGHTS = Path(__file__).parents[1] / "models" / "pretrained" / "evidence.safetensors"
"""Beside them stands, as JSON, how they came to be, and their sha256."""


def evidence_config(dataset: str, encoder: str | None = None) -> RunConfig:
    """The evidence model on a dataset; its weights come from other catalogs, so it is not trained.

    Args:
        dataset: name or folder.
        encoder: that reads the texts, see `TextLinks`.
    """
    model = Evidence()
    return RunConfig(
        name=PRETRAINED,
        data=Data(dataset, view=Shifted(max_length=model.last, align="left", times=True, targets=1), pack=False),
        items={
            "following": Following(),
            "preceding": Following(32, before=True),
            "together": Together(50),
            "text": TextLinks(encoder=encoder),
            "totals": Totals(),
        },
        model=model,
        optim=AdamW(learning_rate=0.03),
        mesh=MeshShape(),
        train=Train(steps=1, evaluate_every=0),
        evaluate=Evaluate(),
    )


def load_pretrained(
    dataset: str | Dataset | None,
    settings: Sequence[str] = (),
    *,
    encoder: str | None = None,
    like: RunConfig | None = None,
    all_events: bool = False,
    one_query: bool = False,
) -> Run:
    """The model that comes with recjax, with the evidence of a dataset.

    Args:
        dataset: name or folder, or one at hand; it may have no events at all.
        settings: KEY=VALUE that change the configuration of `evidence_config`.
        encoder: a sentence encoder that reads the texts, its folder or name.
        like: of a run whose filters, split and protocol count; by default none, leave-one-out and `Evaluate()`.
        all_events: count every event, to recommend what comes next; otherwise the training events of the split alone,
            to be evaluated on the others.
        one_query: on as few devices as hold the tables, for few queries at a time.

    Raises:
        InputError: no dataset is named, there is no such one, or the weights are not those that were published.
    """
    if dataset is None:
        said = (
            "`recjax recommend`, `ask`, `serve` and `evaluate` take --data NAME" if COMMAND.get() else "say data='NAME'"
        )
        raise InputError(f"{PRETRAINED} is a model for any catalog: {said}")
    config = evidence_config(dataset.name if isinstance(dataset, Dataset) else dataset, encoder)
    if like is not None:
        own = replace(config.data, dataset=like.data.dataset, prepare=like.data.prepare, split=like.data.split)
        config = replace(config, data=own, evaluate=like.evaluate)
    config = override_all(config, settings)
    data = config.data
    opened = dataset if isinstance(dataset, Dataset) else find(data.dataset, data.prepare, data.resident)
    if all_events:
        split = unsplit(opened, "every event is counted, to recommend what comes next")
    else:
        split = split_for_ranking(data, opened)
    mesh = config.mesh.of_one_query() if one_query else config.mesh.build()
    with jax.set_mesh(mesh):
        catalogs = open_catalogs(config, [(opened, split)], None)
        model: Model = config.model.build(item_stats(opened, split, catalogs))
        items = device_items(catalogs, [opened])[0]
        notes, params = _fitting(config, model, items, opened, split)
        params = jax.device_put(params)
    return Run(config, model, items, params, opened, split, 0, mesh, notes)


def _fitting(
    config: RunConfig, model: Model, items: Items, dataset: Dataset, split: Split
) -> tuple[tuple[str, ...], Params]:
    """The published weights, or plain ones that rank the catalog's own last events far better; kept by content."""
    learned, train, view = weights(), split.train.compact(), config.data.view
    if not isinstance(model, EvidenceModel) or not len(train):
        return (), learned
    made_of = {"items": np.asarray(train.items), "times": np.asarray(train.timestamps), "lengths": train.lengths}
    texts = {"catalog": dataset.fingerprint, "items": json.dumps(to_json(config.items)), "version": "2"}
    texts |= {f"features/{name}": feature.fingerprint() for name, feature in config.items.items()}
    key = array_files.content_digest(made_of | {f"learned/{name}": array for name, array in learned.items()}, texts)

    def make() -> dict[str, np.ndarray]:
        return {"place": np.array(fitting(learned, model, items, train, view))}

    found = cached(cache_folder() / "features" / f"weights-{key[:16]}.safetensors", key, make)
    if (place := int(found["place"])) < 0:
        return (), learned
    name = PLAIN[place]
    note = f"the learned weights do not fit this catalog: {name!r} alone ranks its users' last events far better"
    return (note,), plain_weights(name)


def is_pretrained(name: str | Path) -> bool:
    """True if a run is named that comes with recjax; a folder of that name comes first."""
    return _NAMED.fullmatch(str(name)) is not None and not Path(name).exists()


def named_parts(name: str | Path) -> tuple[str | None, Path | None]:
    """The sentence encoder and the run folder that `pretrained:ENCODER+RUN` names.

    Raises:
        InputError: nothing stands after the colon or the plus.
    """
    found = _NAMED.fullmatch(str(name))
    assert found is not None
    if found["encoder"] == "":
        raise InputError(f"{name} names no sentence encoder, expected such as {PRETRAINED}:all-MiniLM-L6-v2")
    if found["run"] == "":
        raise InputError(f"{name} names no run, expected such as {PRETRAINED}+runs/sasrec_beauty")
    return found["encoder"], None if found["run"] is None else Path(found["run"])


def _open_named(
    name: str | Path,
    dataset: str | None,
    recipe: ModuleType | None,
    settings: Sequence[str] = (),
    *,
    all_events: bool = False,
    one_query: bool = False,
    like: RunConfig | None = None,
) -> Run:
    """The run that `pretrained...` names, with the evidence of a dataset; of that of a run, where none is given."""
    encoder, run = named_parts(name)
    if run is None:
        like = like if dataset is None else None
        named = like.data.dataset if like is not None else dataset
        return load_pretrained(named, settings, encoder=encoder, like=like, all_events=all_events, one_query=one_query)
    from recjax.train.combined import beside

    trained = load_run(run, dataset, recipe=recipe, settings=settings)

    def counted(all_events: bool) -> Run:
        like = trained.config
        return load_pretrained(trained.dataset, encoder=encoder, like=like, all_events=all_events, one_query=one_query)

    evidence = counted(all_events)
    return beside(trained, run, evidence, lambda: counted(False) if all_events else evidence)


def load_named(
    run: Path,
    dataset: str | None = None,
    recipe: ModuleType | None = None,
    settings: Sequence[str] = (),
    *,
    like: RunConfig | None = None,
) -> Run:
    """A run folder, or the model that comes with recjax, with the events of a dataset, as `load_run` reads it.

    Args:
        run: folder, or `pretrained` and the like.
        dataset: name or folder, in place of the run's own.
        recipe: module that defines configurations of the run's own, if it has any.
        settings: KEY=VALUE that change the protocol or how the data are prepared.
        like: of a run whose dataset, filters, split and protocol `pretrained` takes where no dataset is given.
    """
    if is_pretrained(run):
        return _open_named(run, dataset, recipe, settings, like=like)
    return load_run(run, dataset, recipe=recipe, settings=settings)


def open_run(
    folder: Path, data: str | None = None, recipe: ModuleType | None = None, *, one_query: bool = False
) -> Run:
    """A run to recommend with: by the catalog in its folder, or by another dataset, as `pretrained` always.

    Args:
        folder: of the run.
        data: name or folder of another dataset.
        recipe: module that defines configurations of the run's own, if it has any.
        one_query: for few histories at a time, which are too little work to be spread: as few devices as hold the
            tables, instead of the run's own mesh.

    Raises:
        InputError: no run or dataset, or a damaged file.
    """
    if is_pretrained(folder):
        return _open_named(folder, data, recipe, all_events=True, one_query=one_query)
    one_query &= (folder / CONFIG).exists()
    mesh = configs.load(folder / CONFIG, recipe).mesh.of_one_query() if one_query else None
    if data is None:
        return load_alone(folder, recipe=recipe, mesh=mesh)
    return load_run(folder, data, recipe=recipe, mesh=mesh)


def untrained() -> Params:
    """Weights of the untrained twin: the posterior of the text prior worth 32 events."""
    return {"gate": np.asarray(untrained_gate())}


def weights(path: Path = WEIGHTS) -> dict[str, np.ndarray]:
    """The published weights by name.

    Raises:
        InputError: the file is not there or not the published one.
    """
    return array_files.read_published(path)
