"""A finished or interrupted run, read back for evaluation and recommendation."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from jax.sharding import Mesh

from recjax import config as configs
from recjax.config import RunConfig
from recjax.data.dataset import Dataset
from recjax.data.loader import Data, Loader, open_data
from recjax.data.splits import Split
from recjax.models.model import Model
from recjax.parallel.mesh import MeshShape
from recjax.train.catalogs import open_catalogs
from recjax.train.checkpoint import Checkpoints, Record
from recjax.train.folder import CHECKPOINTS, CONFIG, check_dataset
from recjax.train.state import own_arrays, sharding_rules
from recjax.train.task import item_stats
from recjax.typing import InputError, Params


@dataclass(frozen=True)
class Run:
    """A trained model and what it was trained on.

    Attributes:
        config: of the run; `config.data.dataset` is the dataset opened.
        model: built for that dataset.
        params: parameters, laid out over `mesh`; the moving average where the run kept one.
        dataset: the one asked for.
        split: of that dataset.
        step: of the checkpoint.
        mesh: to be current (`jax.set_mesh`) where the model is used.
    """

    config: RunConfig
    model: Model
    params: Params
    dataset: Dataset
    split: Split
    step: int
    mesh: Mesh


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
        step: which checkpoint, by default the best, or the latest where nothing was validated.
        recipe: module that defines configurations of the run's own, if it has any.
        settings: KEY=VALUE that change the run's configuration in what its parameters do not depend on.
        mesh: where the parameters go, by default the run's mesh where it fits the devices, else all as data axis.

    Raises:
        InputError: no run, no checkpoint, or another dataset than the model can be used on.
    """
    config = configs.override_all(configs.load(run_dir / CONFIG, recipe), settings)
    data: Data = config.data.on(dataset or config.data.dataset)
    with _open(run_dir) as checkpoints:
        latest = checkpoints.latest
        assert latest is not None
        record = checkpoints.record(latest)
        chosen: int = step or record["progress"]["best_step"] or latest
        opened, split = open_data(data)
        if config.text is None:
            check_dataset(run_dir, record, opened.name, opened.fingerprint)
        mesh = mesh or _mesh(config)
        with jax.set_mesh(mesh):
            catalogs = open_catalogs(config, [opened], run_dir)
            model: Model = config.model.build(item_stats(opened, split, catalogs))
            if own_arrays(model):
                check_dataset(run_dir, record, opened.name, opened.fingerprint)
            target = _abstract_params(config, data, model, opened, split, mesh)
            params = checkpoints.restore_params(chosen, target, averaged=config.train.ema is not None)
    config = dataclasses.replace(config, data=data)
    return Run(config, model, params, opened, split, chosen, mesh)


def read_record(run_dir: Path, step: int | None = None) -> tuple[int, Record]:
    """The step and the record (configuration, dataset, progress) of a checkpoint, by default the latest."""
    with _open(run_dir) as checkpoints:
        step = step or checkpoints.latest
        assert step is not None
        return step, checkpoints.record(step)


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


def _abstract_params(config: RunConfig, data: Data, model: Model, dataset: Dataset, split: Split, mesh: Mesh) -> Any:
    """Shapes, types and layout of the parameters; nothing is computed."""
    rows = mesh.shape["data"] * config.train.accumulate
    loader = Loader(
        split.train, data.view, rows, data.row_length, config.seed, n_items=dataset.n_items, catalog=model.catalog
    )
    batch = loader.batch(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        sharding_rules(model).shard(shapes, mesh),
    )
