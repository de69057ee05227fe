"""Files that a run which is done leaves for other runs, made of its best parameters."""

from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.array_files import read
from recjax.config import RunConfig
from recjax.parallel.processes import barrier
from recjax.train.catalogs import ITEMS
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.folder.run_folder import CHECKPOINTS
from recjax.train.run import read_record
from recjax.typing import Params


def leave(config: RunConfig, run_dir: Path) -> None:
    """Has the model's configuration write what it leaves; the first process writes.

    Args:
        config: of the run.
        run_dir: its folder.
    """
    params = best_params(config, run_dir)
    if jax.process_index() == 0:
        learned = {path.stem: read(path).arrays for path in sorted((run_dir / ITEMS).glob("*.safetensors"))}
        config.model.write_files(run_dir, params, learned)
    barrier("files left")


def best_params(config: RunConfig, run_dir: Path) -> Params:
    """The best parameters so far, whole, as NumPy arrays; InputError where the run has no checkpoint."""
    latest, record = read_record(run_dir)
    step = record["progress"]["best_step"] or latest
    whole = NamedSharding(config.mesh.build(), PartitionSpec())
    with Checkpoints(run_dir / CHECKPOINTS, writes=False) as checkpoints:
        shapes = checkpoints.abstract_params(step)
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
        params = checkpoints.restore_params(step, target, averaged=config.train.ema is not None)
    return jax.tree.map(np.asarray, params)
