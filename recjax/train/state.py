"""What a training step reads and writes."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from recjax.data.items import Items
from recjax.data.views import Batch
from recjax.models.model import Model
from recjax.parallel.mesh import ShardState
from recjax.parallel.sharding import ShardingRules, over_data
from recjax.train.rowwise import RowwiseAdam
from recjax.typing import Array, InputError, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that training carries from step to step; each step's arrays are donated to the next.

    Attributes:
        step: int32 [], steps taken.
        params: float32 parameters.
        opt_state: the optimiser's.
        ema: exponential moving average of `params`, or None.
        key: uint32 [2], data of the run's random key; step s uses `fold_in(key, s)`, so nothing random is carried.
            Plain integers: a typed key among the arguments would cost a compiled function its fast dispatch.
    """

    step: Array
    params: Params
    opt_state: Any
    ema: Params | None
    key: Array

    @property
    def evaluated(self) -> Params:
        """The parameters that evaluation and recommendation use: the average where there is one."""
        return self.params if self.ema is None else self.ema


def initial_state(
    model: Model,
    optimiser: optax.GradientTransformation | RowwiseAdam,
    batch: Batch,
    items: Items,
    key: Array,
    ema: bool,
) -> TrainState:
    """The state before the first step, for batches shaped like `batch`; jit it with the shardings wanted."""
    init_key, step_key = jax.random.split(key)
    params = model.init(init_key, batch, items)
    # A copy, not an alias: both are donated.
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), average, jax.random.key_data(step_key))


def sharding_rules(model: Model) -> ShardingRules:
    """Layout of the model's parameters."""
    return ShardingRules(tuple(model.sharding_rules()))


def abstract_state(state: TrainState, mesh: Mesh, model: Model, shard: ShardState = "none") -> TrainState:
    """The shapes, types and layout of a state, from one that has at least shapes and types."""
    # The key is replicated whatever the rules say, as the step, whose place in the tree it takes here, is.
    arrays = dataclasses.replace(state, key=state.step)
    shardings = sharding_rules(model).shard_state(arrays, state.params, mesh)
    if shard != "none":
        cut = {"opt_state", "ema"} | ({"params"} if shard == "all" else set())
        parts = {
            name: jax.tree.map(lambda s, x: over_data(s, x.shape), getattr(shardings, name), getattr(arrays, name))
            for name in cut
        }
        shardings = dataclasses.replace(shardings, **parts)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def abstract_start(
    model: Model,
    optimiser: optax.GradientTransformation | RowwiseAdam,
    batch: Batch,
    items: Items,
    mesh: Mesh,
    *,
    ema: bool,
    shard: ShardState = "none",
) -> TrainState:
    """The shapes, types and layout of the state before the first step; nothing is computed.

    Raises:
        InputError: a layout that the model's sizes or the optimiser rule out.
    """
    if shard != "none" and isinstance(optimiser, RowwiseAdam):
        raise InputError(f"optim.sparse updates rows where their table lies; mesh.shard_state={shard} would part them")
    start = partial(initial_state, model, optimiser, ema=ema)
    key = jax.eval_shape(lambda: jax.random.key(0))
    found = jax.eval_shape(lambda key, batch, items: start(batch, items, key), key, batch, items)
    return abstract_state(found, mesh, model, shard)
