"""A run folder from parameters that were trained elsewhere, to be evaluated, used and trained on from."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from recjax import config as configs
from recjax.config import RunConfig
from recjax.train.folder import run_folder
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.folder.progress import Progress
from recjax.train.state import TrainState, abstract_state
from recjax.train.task import open_task
from recjax.typing import InputError, Params

STEP = 1
"""Of the checkpoint written: 0 would mean that there is nothing to go on from."""


def check_free(run_dir: Path) -> None:
    """Raises InputError where the folder holds a run already."""
    if (run_dir / run_folder.CONFIG).exists() or (run_dir / run_folder.CHECKPOINTS).exists():
        raise InputError(f"{run_dir} holds a run already. Give the import another folder")


def write_run(run_dir: Path, config: RunConfig, params: Params) -> None:
    """Writes a run folder whose only checkpoint has these parameters and a fresh optimiser.

    The dataset is opened and the model built first, so what does not fit together is told before anything is claimed.

    Args:
        run_dir: made if absent; a tokenizer that the model needs is in its `codes` already.
        config: of the run.
        params: float32 arrays, the tree of the model.

    Raises:
        InputError: the folder holds a run, or the model cannot be used on the dataset.
    """
    check_free(run_dir)
    mesh = config.mesh.build()
    with jax.set_mesh(mesh):
        task = open_task(config, run_dir)
        optimiser = config.optim.build(config.train.steps or STEP)

        def start(params: Params) -> TrainState:
            _, key = jax.random.split(jax.random.key(config.seed))
            return TrainState(jnp.int32(STEP), params, optimiser.init(params), None, jax.random.key_data(key))

        state: Any = start(jax.tree.map(jnp.asarray, params))
        target: Any = abstract_state(state, mesh, task.model)
        state = jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, target))
        run_folder.claim(run_dir, config)
        if task.keep is not None:
            task.keep(run_dir)
        record = {
            "config": configs.to_json(config),
            "dataset": {"name": task.dataset, "fingerprint": task.fingerprint},
            "progress": Progress().to_json(),
        }
        with Checkpoints(run_dir / run_folder.CHECKPOINTS) as checkpoints:
            checkpoints.save(STEP, state, record)
            checkpoints.wait()
