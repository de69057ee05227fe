"""State that a training step reads and writes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.late import optax
from recjax.models.model import Model
from recjax.nn.groups import filled, is_frozen, path_name, split_frozen
from recjax.parallel.mesh import ShardState
from recjax.parallel.sharding import ShardingRules, over_data
from recjax.train.rowwise import RowwiseAdam
from recjax.typing import Array, Float, InputError, Int, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that training carries from step to step; each step's arrays are donated to the next.

    Attributes:
        step: int32 [], steps taken.
        params: float32 parameters.
        opt_state: the optimiser's.
        ema: exponential moving average of the trained `params`, None in the place of frozen ones; or None.
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
        return self.params if self.ema is None else filled(self.ema, self.params)


def initial_state(
    model: Model,
    optimiser: optax.GradientTransformation | RowwiseAdam,
    batch: Batch,
    items: Items,
    key: Array,
    ema: bool,
    freeze: tuple[str, ...] = (),
    held: Params | None = None,
) -> TrainState:
    """The state before the first step, for batches shaped like `batch`; jit it with the shardings wanted.

    Args:
        model: whose parameters they are.
        optimiser: has moments of the trained parameters alone.
        batch: says the shapes.
        items: that the model reads.
        key: of the random start and of the steps.
        ema: whether there is an average of the trained parameters.
        freeze: paths of parameters that are not trained, see `recjax.nn.groups.split_frozen`.
        held: parameters that take the place of those of `model.init`, or stand beside them: any part of the tree.

    Raises:
        InputError: a pattern of `freeze` without a match, nothing left to train, or frozen parameters under an
            optimiser that updates by rows.
    """
    init_key, step_key = jax.random.split(key)
    params = overlaid(model.init(init_key, batch, items), held)
    trained = _trained(params, freeze, optimiser)
    # A copy, not an alias: both are donated.
    average = jax.tree.map(jnp.copy, trained) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(trained), average, jax.random.key_data(step_key))


Start = Callable[[Array, Batch, Items, Params | None], TrainState]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TakenRows:
    """Rows of an older table for a parameter that has a row for each item.

    Attributes:
        table: the older one.
        places: which row of it each row of the parameter continues; -1 leaves that as it is.
    """

    table: Float[Array, "n ..."]
    places: Int[Array, " rows"]

    def over(self, params: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
        """A parameter with the rows that are continued replaced."""
        taken = jnp.take(self.table, jnp.maximum(self.places, 0), axis=0)
        return jnp.where(self.places.reshape(-1, *[1] * (params.ndim - 1)) >= 0, taken, params)


def overlaid(params: Any, held: Any) -> Any:
    """A tree of mappings with a part of it replaced; None replaces nothing, `TakenRows` some rows."""
    if held is None:
        return params
    if isinstance(held, TakenRows) and params is not None:
        return held.over(params)
    if not (isinstance(params, Mapping) and isinstance(held, Mapping)):
        return held
    return {**params, **{name: overlaid(params.get(name), part) for name, part in held.items()}}


def _trained(params: Params, freeze: tuple[str, ...], optimiser: optax.GradientTransformation | RowwiseAdam) -> Params:
    names = [path_name(path) for path, _ in jax.tree.leaves_with_path(params)]
    for pattern in freeze:
        if not any(re.search(pattern, name) for name in names):
            raise InputError(f"train.freeze has {pattern!r}, which is in no parameter's path: {', '.join(names)}")
    frozen = [name for name in names if is_frozen(name, freeze)]
    if len(frozen) == len(names):
        raise InputError(f"nothing is left to train: all {len(names)} parameters are frozen")
    if frozen and isinstance(optimiser, RowwiseAdam):
        raise InputError(
            f"optim.sparse does not serve frozen parameters, but {frozen[0]} is one ({len(frozen)} of {len(names)})"
        )
    return split_frozen(params, freeze)[0]


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


def start_function(
    model: Model,
    optimiser: optax.GradientTransformation | RowwiseAdam,
    *,
    ema: bool,
    freeze: tuple[str, ...] = (),
) -> Start:
    """`initial_state` of a key, a batch, items and held parameters.

    JAX traces one function once: `abstract_start` of it and its compilation share what that takes.
    """

    def start(key: Array, batch: Batch, items: Items, held: Params | None) -> TrainState:
        return initial_state(model, optimiser, batch, items, key, ema, freeze, held)

    return start


def abstract_start(
    start: Start,
    model: Model,
    optimiser: optax.GradientTransformation | RowwiseAdam,
    batch: Batch,
    items: Items,
    mesh: Mesh,
    *,
    key: Array | None = None,
    shard: ShardState = "none",
    held: Params | None = None,
) -> TrainState:
    """The shapes, types and layout of the state before the first step; nothing is computed.

    Raises:
        InputError: a layout that the model's sizes or the optimiser rule out; see `initial_state` for the rest.
    """
    if shard != "none" and isinstance(optimiser, RowwiseAdam):
        raise InputError(f"optim.sparse updates rows where their table lies; mesh.shard_state={shard} would part them")
    key = jax.eval_shape(lambda: jax.random.key(0)) if key is None else key
    return abstract_state(jax.eval_shape(start, key, batch, items, held), mesh, model, shard)
