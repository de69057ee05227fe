"""Compiled parts of a run, shared by the runs of a process that differ by seed and folder alone."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recjax.config import RunConfig
from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.models.model import Model
from recjax.nn.identity import identity_of
from recjax.train.state import TrainState, abstract_start, start_function
from recjax.train.step import TrainStep, make_train_step
from recjax.typing import Array, Params

MOST_KEPT = 4
"""Runs whose programs are kept."""


@dataclass(frozen=True)
class Alike:
    """Parts that a run's programs are made of; equal where the programs would be.

    Attributes:
        key: of all that is compiled.
        config: of one of the runs.
        model: of that run.
        total: its steps, by which the learning rate goes.
        mesh: its devices.
    """

    key: Hashable
    config: RunConfig = field(compare=False)
    model: Model = field(compare=False)
    total: int = field(compare=False)
    mesh: Mesh = field(compare=False)

    @classmethod
    def of(cls, config: RunConfig, model: Model, total: int, mesh: Mesh) -> "Alike":
        train = config.train
        settings = (config.optim, train.accumulate, train.ema, train.freeze, config.mesh.shard_state)
        return cls((model.identity, identity_of(settings), total, mesh), config, model, total, mesh)


class Programs:
    """The start and the step of alike runs, traced and compiled once."""

    def __init__(self, alike: Alike):
        self._alike = alike
        self._optimiser = alike.config.optim.build(alike.total, alike.model.row_tables)
        train = alike.config.train
        self._start = start_function(alike.model, self._optimiser, ema=train.ema is not None, freeze=train.freeze)
        self._compiled: dict[str, tuple[Any, Any]] = {}

    def target(self, key: Array, batch: Batch, items: Items, held: Params) -> TrainState:
        """Shapes, types and layout of the state, see `abstract_start`."""
        alike = self._alike
        shard = alike.config.mesh.shard_state
        run = (alike.model, self._optimiser, batch, items, alike.mesh)
        return abstract_start(self._start, *run, key=key, shard=shard, held=held)

    def start(self, target: TrainState) -> Any:
        """The compiled function of a key, a batch, items and held parameters that makes the state before a run."""
        return self._laid_out("start", target, lambda layout: jax.jit(self._start, out_shardings=layout))

    def step(self, target: TrainState) -> TrainStep:
        """The compiled training step."""
        config, mesh = self._alike.config, self._alike.mesh

        def make(layout: TrainState) -> TrainStep:
            return make_train_step(
                self._alike.model,
                self._optimiser,
                accumulate=config.train.accumulate,
                ema=config.train.ema,
                rate=config.optim.rate(self._alike.total),
                shardings=(layout, NamedSharding(mesh, PartitionSpec())),
                shard=config.mesh.shard_state,
                freeze=config.train.freeze,
            )

        return self._laid_out("step", target, make)

    def _laid_out(self, name: str, target: TrainState, make: Any) -> Any:
        """A program by name, made anew where the state is laid out otherwise than before."""
        layout = jax.tree.map(lambda leaf: leaf.sharding, target)
        if name not in self._compiled or self._compiled[name][0] != jax.tree.flatten(layout):
            self._compiled[name] = (jax.tree.flatten(layout), make(layout))
        return self._compiled[name][1]


@lru_cache(MOST_KEPT)
def programs_of(alike: Alike) -> Programs:
    """The programs of a run, those of an earlier one where they are alike."""
    return Programs(alike)
