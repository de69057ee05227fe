"""A finished or interrupted run, read back for evaluation and recommendation."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from recjax import config as configs
from recjax.config import RunConfig
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Data, Loader, open_for_ranking
from recjax.data.batches.views import Batch
from recjax.data.dataset import Dataset
from recjax.data.items import VECTORS, Items, on_devices
from recjax.data.splits import Split
from recjax.evaluate import protocol
from recjax.evaluate.calibrated import ASKING, Calibrated
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.questions import Asking
from recjax.evaluate.report import Report
from recjax.models.model import Model
from recjax.parallel.mesh import MeshShape
from recjax.parallel.sharding import ShardingRules
from recjax.train import own_items
from recjax.train.catalogs import Catalogs, open_catalogs
from recjax.train.folder.checkpoint import Checkpoints, DamagedError, Record
from recjax.train.folder.recovery import first_sound
from recjax.train.folder.run_folder import CHECKPOINTS, CONFIG, check_dataset
from recjax.train.stages import resolved
from recjax.train.state import sharding_rules
from recjax.train.task import check_ranks, device_items, item_stats, ranked_part
from recjax.typing import InputError, Params


@dataclass(frozen=True)
class Run:
    """A trained model and what it was trained on.

    Attributes:
        config: of the run; `config.data.dataset` is the dataset opened.
        model: built for that dataset.
        items: of that dataset, on the devices.
        params: parameters, laid out over `mesh`; the moving average where the run kept one.
        dataset: the one asked for.
        events: the split of that dataset; None where the dataset is without its events.
        step: of the checkpoint.
        mesh: to be current (`jax.set_mesh`) where the model is used.
        notes: damaged checkpoints that were passed over, and what is used instead; empty if all is well.
        popularity: int64 [items + 1], events of each item, where the dataset is without its events; else None.
    """

    config: RunConfig
    model: Model
    items: Items
    params: Params
    dataset: Dataset
    events: Split | None
    step: int
    mesh: Mesh
    notes: tuple[str, ...] = ()
    popularity: np.ndarray | None = None

    def __repr__(self) -> str:
        items = f"{self.dataset.n_items:,} items of {self.dataset.name!r}"
        return f"<run {self.config.name!r} at step {self.step:,}, {items}>"

    @property
    def split(self) -> Split:
        """Of the dataset; InputError where that is without its events."""
        if self.events is None:
            raise InputError(f"the run has been read without the events of dataset {self.dataset.name!r}")
        return self.events

    def report(self, name: str, evaluate: Any = None, floors: bool = True) -> Report:
        """The report of the run on its split.

        Args:
            name: of the run in reports.
            evaluate: an evaluator or several; by default those of the configuration.
            floors: rank the floors too.
        """
        given = self.config.evaluate if evaluate is None else evaluate
        of_run = (self.model, self.params, self.dataset, self.split, self.config.data.view, given, self.items)
        with jax.set_mesh(self.mesh):
            found = protocol.evaluate(*of_run, floors=floors, name=name, vectors=self.text_vectors())
        read = {} if self.config.text is None else {"item texts by": self.config.text.encoders}
        return dataclasses.replace(found, notes=found.notes | read)

    def calibrated(
        self, about: Sequence[str] | None = None, asking: Asking = ASKING, users: int = 1000, rehearse: int = 0
    ) -> Calibrated:
        """The run with prediction sets of a stated coverage, see `Calibrated.on`."""
        data = EvaluationData(self.dataset, self.split, self.config.data.view, self.items)
        options: Any = {"about": about, "asking": asking, "users": users, "rehearse": rehearse}
        options |= {"mask_seen": self.config.evaluators[0].mask_seen, "seed": self.config.seed}
        return Calibrated.on(self.model, self.params, data, self.mesh, **options)

    def text_vectors(self) -> np.ndarray | None:
        """The space in which the model compares items, float32 [items + 1, d], for the text floor to use the same; None
        for a model that reads no texts."""
        found = self.items.columns.get(VECTORS)
        return None if found is None else np.asarray(found)[: self.dataset.n_items + 1]


def run_config(run_dir: Path, recipe: ModuleType | None = None, settings: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run folder, see `load_run`, without its parameters and data."""
    return resolved(configs.override_all(configs.load(run_dir / CONFIG, recipe), settings), run_dir)


def load_run(
    run_dir: Path,
    dataset: str | None = None,
    *,
    step: int | None = None,
    recipe: ModuleType | None = None,
    settings: Sequence[str] = (),
    mesh: Mesh | None = None,
) -> Run:
    """Reads a run folder.

    Args:
        run_dir: the folder.
        dataset: name or folder of the dataset, by default the one of training (of a mixture, the one it validates on).
            Models that know items by their ids can only be used on that one; models of texts on any.
        step: which checkpoint, by default the best, or the latest where nothing was validated; where that one is
            damaged, the latest sound one before it, or else after it.
        recipe: module that defines configurations of the run's own, if it has any.
        settings: KEY=VALUE that change the run's configuration in what its parameters do not depend on.
        mesh: where the parameters go, by default the run's mesh where it fits the devices, else all as data axis.

    Raises:
        InputError: no run, no checkpoint, or another dataset than the model can be used on.
    """
    config = run_config(run_dir, recipe, settings)
    check_ranks(config)
    data: Data = config.data.on(dataset or config.data.dataset)
    with _open(run_dir) as checkpoints:
        _, record, damaged = first_sound(_order(checkpoints, step), checkpoints.record)
        opened, split = open_for_ranking(data)
        opened = ranked_part(config, opened)
        if config.text is None:
            check_dataset(run_dir, record, opened.name, opened.fingerprint)
        mesh = mesh or _mesh(config)
        with jax.set_mesh(mesh):
            catalogs = open_catalogs(config, [(opened, split)], run_dir)
            model: Model = config.model.build(item_stats(opened, split, catalogs))
            items = device_items(catalogs, [opened])[0]
            if model.per_item:
                check_dataset(run_dir, record, opened.name, opened.fingerprint)
            target = _abstract_params(model, _first_batch(config, data, opened, split, catalogs, mesh), items, mesh)

            def read(step: int) -> Params:
                checkpoints.record(step)
                return checkpoints.restore_params(step, target, averaged=config.train.ema is not None)

            best = None if step is not None else record["progress"]["best_step"]
            chosen, params, passed = first_sound(_order(checkpoints, step, best), read)
    config = dataclasses.replace(config, data=data)
    return Run(config, model, items, params, opened, split, chosen, mesh, _notes([*damaged, *passed], best, chosen))


def load_alone(
    run_dir: Path, *, step: int | None = None, recipe: ModuleType | None = None, mesh: Mesh | None = None
) -> Run:
    """Reads a run folder without its dataset, for recommendation: by the catalog that the folder has.

    The dataset is read, as `load_run` does, only where the folder has no catalog (a run of an earlier version).

    Args:
        run_dir: the folder.
        step: see `load_run`.
        recipe: see `load_run`.
        mesh: see `load_run`.

    Raises:
        InputError: no run, no checkpoint, or a damaged file.
    """
    if (run_dir / CONFIG).exists() and (own := own_items.read(run_dir)) is not None:
        config = resolved(configs.load(run_dir / CONFIG, recipe), run_dir)
    else:
        return load_run(run_dir, step=step, recipe=recipe, mesh=mesh)
    check_ranks(config)
    mesh = mesh or _mesh(config)
    with _open(run_dir) as checkpoints, jax.set_mesh(mesh):
        model: Model = config.model.build(own.stats)
        rules, averaged = sharding_rules(model), config.train.ema is not None

        def read(step: int) -> Params:
            checkpoints.record(step)
            target = _laid_out(checkpoints.abstract_params(step), rules, mesh)
            return checkpoints.restore_params(step, target, averaged)

        _, record, damaged = first_sound(_order(checkpoints, step), checkpoints.record)
        best = None if step is not None else record["progress"]["best_step"]
        chosen, params, passed = first_sound(_order(checkpoints, step, best), read)
        items = on_devices(own.items)
    data = config.data.on(config.data.dataset)
    notes = _notes([*damaged, *passed], best, chosen)
    config = dataclasses.replace(config, data=data)
    return Run(config, model, items, params, own.dataset, None, chosen, mesh, notes, own.popularity)


def read_record(run_dir: Path, step: int | None = None) -> tuple[int, Record]:
    """The step and the record (configuration, dataset, progress) of a checkpoint, by default the latest sound one."""
    with _open(run_dir) as checkpoints:
        step, record, _ = first_sound(_order(checkpoints, step), checkpoints.record)
        return step, record


def _order(checkpoints: Checkpoints, step: int | None, best: int | None = None) -> list[int]:
    """The checkpoints to try: the one asked for alone; else the best, those before it and those after; the latest."""
    if step is not None:
        return [step]
    steps = checkpoints.agreed_steps()[::-1]
    if best not in steps:
        return steps
    return [best, *(step for step in steps if step < best), *(step for step in steps[::-1] if step > best)]


def _notes(damaged: list[DamagedError], best: int | None, chosen: int) -> tuple[str, ...]:
    found = list(dict.fromkeys(map(str, damaged)))
    if best is not None and best != chosen and not any(error.step == best for error in damaged):
        found.append(f"the best checkpoint, that of step {best}, is not there")
    return (*found, f"uses the checkpoint of step {chosen}") if found else ()


def _open(run_dir: Path) -> Checkpoints:
    folder = run_dir / CHECKPOINTS
    if not (run_dir / CONFIG).exists():
        raise InputError(f"{run_dir} is not a run folder")
    checkpoints = Checkpoints(folder, writes=False) if folder.is_dir() else None
    if checkpoints is None or checkpoints.latest is None:
        raise InputError(f"{run_dir} has no complete checkpoint yet")
    return checkpoints


def _mesh(config: RunConfig) -> Mesh:
    try:
        return config.mesh.build()
    except InputError:  # trained on another number of devices
        return MeshShape().build()


def _first_batch(
    config: RunConfig, data: Data, dataset: Dataset, split: Split, catalogs: Catalogs | None, mesh: Mesh
) -> Batch:
    """A batch as in training, for its shapes; of a made-up history where the dataset has none."""
    events = np.ones(4, np.int32)
    made_up = Histories.concatenated(np.array([4]), events, events.astype(np.int64), np.zeros(1, np.int64))
    loader = Loader(
        split.train if len(split.train) else made_up,
        data.view,
        mesh.shape["data"] * config.train.parts,
        data.row_length,
        config.seed,
        n_items=dataset.n_items,
        packed=data.pack,
        relations=None if catalogs is None else catalogs.relations[0],
    )
    return loader.batch(0)


def _abstract_params(model: Model, batch: Batch, items: Items, mesh: Mesh) -> Any:
    """Shapes, types and layout of the parameters; nothing is computed."""
    key = jax.eval_shape(lambda: jax.random.key(0))  # a real one would be compiled for
    shapes = jax.eval_shape(model.init, key, batch, items)
    return _laid_out(shapes, sharding_rules(model), mesh)


def _laid_out(shapes: Params, rules: ShardingRules, mesh: Mesh) -> Params:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, rules.shard(shapes, mesh)
    )
