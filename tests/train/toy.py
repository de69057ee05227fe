"""A model and batches small enough to train in a blink, with everything that could break an exact resume: randomness
that depends on the step, unequal weights, several parameters with different layouts."""

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.config import RunConfig
from recjax.data.batches.views import Batch
from recjax.data.items import bare_items, on_devices
from recjax.models.model import ItemStats, Model
from recjax.parallel.mesh import MeshShape
from recjax.parallel.sharding import local_rows, row_sharding, to_devices
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW
from recjax.train.state import TrainState, abstract_state, initial_state
from recjax.train.task import Task

ITEMS, WIDTH, ROWS, LENGTH, EPOCH = 31, 8, 16, 6, 5
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64))
NO_COLUMNS = bare_items(ITEMS)  # on the host: a program of several processes imports this before they have joined


@dataclass(frozen=True)
class ToyModel(Model):
    """Embedding, dense layer, softmax over the catalog; hidden units are dropped at random."""

    noise: float = 0.2
    stats: ItemStats = STATS

    def init(self, key, batch, items):
        del batch, items
        keys = jax.random.split(key, 2)
        return {
            "items": 0.1 * jax.random.normal(keys[0], (self.n_items + 1, WIDTH)),
            "dense": {"kernel": 0.1 * jax.random.normal(keys[1], (WIDTH, WIDTH)), "bias": jnp.zeros(WIDTH)},
        }

    def loss(self, params, batch, items, key):
        del items
        hidden = jnp.tanh(params["items"][batch.items] @ params["dense"]["kernel"] + params["dense"]["bias"])
        if key is not None and self.noise:
            hidden *= jax.random.bernoulli(key, 1 - self.noise, hidden.shape)
        losses = -jax.nn.log_softmax(hidden @ params["items"].T)
        losses = jnp.take_along_axis(losses, batch.targets[..., None], -1)[..., 0]
        total, weight = jnp.sum(batch.weights * losses), jnp.sum(batch.weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def sharding_rules(self) -> list[tuple[str, tuple[Any, ...]]]:
        return [(r"(^|/)items$", ("model", None)), (r".*", ())]


@dataclass(frozen=True)
class ToyLoader:
    """`batch(step)` from (seed, step); the batch of step `poison` has a weight that is not a number.

    `on_step(step)` is called before each batch is made, which takes `pause` seconds.
    """

    seed: int = 0
    poison: int | None = None
    on_step: Any = None
    pause: float = 0.0

    def steps(self, epochs: float) -> int:
        return round(EPOCH * epochs)

    def catalog(self, step: int) -> int:
        del step
        return 0

    def members(self, step: int) -> np.ndarray:
        return (np.arange(ROWS * (step + 1) - 1, ROWS * step - 1, -1) * 7 % (ROWS * EPOCH))[:, None]

    def host_batch(self, step: int, rows: np.ndarray) -> Batch:
        random = np.random.default_rng((self.seed, step))
        items = random.integers(1, ITEMS + 1, (ROWS, LENGTH), dtype=np.int32)
        weights = (random.random((ROWS, LENGTH)) < 0.7).astype(np.float32)
        if step == self.poison:
            weights[0, 0] = np.nan
        ones = np.ones_like(items)
        batch = Batch(items, ones, ones, (items * 3) % (ITEMS + 1), weights)
        return jax.tree.map(lambda x: x[rows], batch)

    def batch(self, step: int) -> Batch:
        sharding = row_sharding()
        # The real loader sends batches from threads of its own, to which the loop's transfer guard does not apply.
        with jax.transfer_guard("allow"):
            return to_devices(self.host_batch(step, local_rows(sharding, ROWS)), sharding, ROWS)

    def iterate(self, start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            if self.on_step is not None:
                self.on_step(step)
            time.sleep(self.pause)
            yield self.batch(step)


@dataclass(frozen=True)
class OneDevice:
    """A mesh of the first device, which compiles faster than one of all."""

    shard_state: str = "none"

    def build(self):
        return MeshShape().build(jax.devices()[:1])


@dataclass(frozen=True)
class Nothing:
    """Stands for settings that a test does not need."""


def validate(params) -> dict[str, float]:
    """Rises and falls as parameters move, so that the best is not the last."""
    bias = np.asarray(jax.device_get(params["dense"]["bias"]), np.float64)
    return {"ndcg@10": float(np.cos(40 * bias.sum())), "hr@10": 0.5}


def toy_config(mesh: Any = OneDevice(), optim: AdamW = AdamW(learning_rate=0.02), **train: Any) -> RunConfig:  # noqa: B008
    nothing = Nothing()
    settings = {"steps": 12, "evaluate_every": 3, "log_every": 4, "save_every": 4, **train}
    return RunConfig("toy", nothing, nothing, optim, mesh, Train(**settings), nothing)


def toy_task(**changes: Any) -> Task:
    loader = {name: changes.pop(name) for name in ("poison", "on_step", "pause", "seed") if name in changes}
    items = (on_devices(NO_COLUMNS),)
    return dataclasses.replace(Task("toy", "f00d", ToyModel(), ToyLoader(**loader), items, validate), **changes)


def interrupt_at(step, times=1, number=signal.SIGTERM):
    """For a loader's `on_step`: signals this process while the batch of `step` is made."""

    def on_step(now):
        if now == step:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return on_step


@cache
def shapes(ema: bool, optim: AdamW, total: int) -> TrainState:
    """Shapes of the state of a run."""

    def start(key, batch):
        return initial_state(ToyModel(), optim.build(total), batch, NO_COLUMNS, key, ema)

    with jax.set_mesh(OneDevice().build()):
        return jax.eval_shape(start, jax.random.key(0), ToyLoader().batch(0))


def saved(folder, step=None, ema=False, optim=AdamW(0.02), total=12):  # noqa: B008
    """Content of the checkpoint of `step` (default: the latest), on the host."""
    with Checkpoints(folder / "checkpoints", writes=False) as checkpoints, jax.set_mesh(mesh := OneDevice().build()):
        step = checkpoints.latest if step is None else step
        state = checkpoints.restore(step, abstract_state(shapes(ema, optim, total), mesh, ToyModel()))
        return jax.device_get(state), checkpoints.record(step)
