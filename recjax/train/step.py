"""One training step: gradients, accumulation, the guard against non-finite numbers, the update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.late import optax
from recjax.models.model import Model, WeightedSums, checked_loss
from recjax.nn.groups import filled, split_frozen
from recjax.ops.mesh_axes import axis_size
from recjax.ops.norms import global_norm
from recjax.ops.parts import parts_of, split_rows
from recjax.parallel.mesh import ShardState
from recjax.parallel.sharding import over_data
from recjax.train.rowwise import RowwiseAdam
from recjax.train.state import TrainState, sharding_rules
from recjax.typing import DATA_AXIS, MODEL_AXIS, SEQ_AXIS, Array, InputError, Params

STEP_BYTES = 250_000
"""Bytes of the states of a part of a batch, see `recjax.ops.parts`; the backward pass reads as much again."""

MOST_PARAMETERS = 1 << 24
"""Bytes of parameters up to which batches are split by themselves: each part adds a gradient of that size."""

TrainStep = Callable[[TrainState, Batch, Items], tuple[TrainState, WeightedSums]]


def make_train_step(
    model: Model,
    optimiser: optax.GradientTransformation | RowwiseAdam,
    *,
    accumulate: int | None = None,
    ema: float | None = None,
    rate: optax.Schedule | None = None,
    shardings: Any = None,
    shard: ShardState = "none",
    freeze: tuple[str, ...] = (),
) -> TrainStep:
    """The compiled function (state, batch, items) -> (state, sums); the state passed in is donated.

    The sums are those of the model's loss and `grad_norm`, `finite` (0 where the loss or the gradient's norm was not
    finite: such a step changes nothing but the step number) and, given `rate`, `learning_rate`.

    Args:
        model: whose loss is minimised.
        optimiser: turns gradients into updates; it is told the gradient's norm, `grad_norm`.
        accumulate: parts into which a batch's rows are split, one after another, to save memory. The gradient is
            that of the whole batch: parts count by their weight. None: as many as suit the device.
        ema: decay of the moving average of parameters; the state must carry one.
        rate: learning rate by step, to be reported.
        shardings: of the state and of the sums, so that the state leaves the step laid out as it came.
        shard: what of the state is cut over the data axis, see `recjax.parallel.mesh.MeshShape`.
        freeze: paths of parameters that are not trained, as in the state; these and those that the model declares so
            have no gradient, and the step hands them on as they came.

    Raises:
        InputError: parts or an average with an optimiser that updates by rows.
    """
    if isinstance(optimiser, RowwiseAdam):
        if (accumulate or 1) > 1 or ema is not None:
            raise InputError(
                f"optim.sparse serves neither parts of a batch (train.accumulate = {accumulate}) nor a moving average "
                f"(train.ema = {ema})"
            )
        step = _rowwise_step(model, optimiser, rate)
    else:
        step = _dense_step(model, optimiser, accumulate, ema, rate, shard, freeze)
    return jax.jit(step, donate_argnums=0, out_shardings=shardings)


def _dense_step(
    model: Model,
    optimiser: optax.GradientTransformation,
    accumulate: int | None,
    ema: float | None,
    rate: optax.Schedule | None,
    shard: ShardState,
    freeze: tuple[str, ...],
) -> TrainStep:
    update = optax.with_extra_args_support(optimiser).update

    def train_step(state: TrainState, batch: Batch, items: Items) -> tuple[TrainState, WeightedSums]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        trained, frozen = split_frozen(state.params, freeze)
        params = _whole(model, state.params) if shard == "all" else state.params
        grads, sums = _gradients(model, *split_frozen(params, freeze), batch, items, key, accumulate)
        if shard != "none":
            grads = _parted(model, grads)
        norm = global_norm(grads, whole=shard == "none")
        finite = jnp.isfinite(sums["loss"][0]) & jnp.isfinite(norm)
        old = (trained, state.opt_state, state.ema)

        def take() -> tuple[Params, Any, Params | None]:
            updates, opt_state = update(grads, state.opt_state, trained, grad_norm=norm)
            params = optax.apply_updates(trained, updates)
            return params, opt_state, None if ema is None else _blend(state.ema, params, ema)

        # A branch rather than a choice between old and new arrays, which would keep both in memory.
        trained, opt_state, average = jax.lax.cond(finite, take, lambda: old)
        sums = _reported(sums, norm, finite, rate, state.step)
        return TrainState(state.step + 1, filled(trained, frozen), opt_state, average, state.key), sums

    return train_step


def _whole(model: Model, params: Params) -> Params:
    """Parameters or their gradients laid out by the model's rules: parts are gathered, or added up, over the data axis.

    Once, and of parameters: where they are used, the compiler would rather exchange activations in some places.
    """
    mesh: Any = jax.sharding.get_abstract_mesh()
    return params if mesh.empty else jax.lax.with_sharding_constraint(params, sharding_rules(model).shard(params, mesh))


def _parted(model: Model, grads: Params) -> Params:
    """Gradients cut over the data axis, as moments are.

    First they are asked for whole, which adds them up over the axis: of a sum of which a device keeps a part, the
    compiler makes a reduce-scatter. Asked for in parts at once, it would carry the parts into the backward pass, and
    gather the activations of all rows there.
    """
    mesh: Any = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return grads
    layouts = sharding_rules(model).shard(grads, mesh)
    parts = jax.tree.map(lambda layout, leaf: over_data(layout, leaf.shape), layouts, grads)
    return jax.lax.with_sharding_constraint(_whole(model, grads), parts)


def _rowwise_step(model: Model, optimiser: RowwiseAdam, rate: optax.Schedule | None) -> TrainStep:
    def train_step(state: TrainState, batch: Batch, items: Items) -> tuple[TrainState, WeightedSums]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        grads, sums = optimiser.gradients(model, state.params, batch, items, key)
        norm = optimiser.norm(grads)
        finite = jnp.isfinite(sums["loss"][0]) & jnp.isfinite(norm)
        params, opt_state = optimiser.update(grads, state.opt_state, state.params, norm, finite)
        sums = _reported(sums, norm, finite, rate, state.step)
        return TrainState(state.step + 1, params, opt_state, None, state.key), sums

    return train_step


def _reported(sums: WeightedSums, norm: Array, finite: Array, rate: optax.Schedule | None, step: Array) -> WeightedSums:
    """The sums of the loss, and what is told of the step itself."""
    one = jnp.ones((), jnp.float32)
    sums = {**sums, "grad_norm": (norm, one), "finite": (finite.astype(jnp.float32), one)}
    if rate is not None:
        sums["learning_rate"] = (jnp.asarray(rate(step), jnp.float32), one)
    return sums


def _blend(average: Params, params: Params, decay: float) -> Params:
    return jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, average, params)


def _gradients(
    model: Model, trained: Params, frozen: Params, batch: Batch, items: Items, key: Array, accumulate: int | None
) -> tuple[Params, WeightedSums]:
    """Gradient of the weighted mean loss of the whole batch in the trained parameters, and the sums of all parts."""

    def loss(trained: Params, frozen: Params, batch: Batch, items: Items, key: Array) -> tuple[Array, WeightedSums]:
        return checked_loss(model, filled(trained, frozen), batch, items, key)

    compute = jax.grad(loss, has_aux=True)
    if accumulate is None and (count := _parts(model, trained, batch)) > 1:
        return _over_devices(compute, count, trained, frozen, batch, items, key)
    if accumulate is None or accumulate == 1:
        return compute(trained, frozen, batch, items, key)
    parts = jax.tree.map(lambda x: split_rows(x, accumulate), batch)
    return _mean(*_added(compute, trained, frozen, parts, items, key, jnp.arange(accumulate)))


def _added(
    compute: Any, trained: Params, frozen: Params, parts: Any, items: Items, key: Array, numbers: Array
) -> tuple[Params, WeightedSums]:
    """Sums over parts of a batch, one after another: of gradients, by the weight of the parts, and of what is logged.

    `numbers` [parts] tell the parts' random numbers apart.
    """

    def add(total: Params, part: tuple[Array, Batch]) -> tuple[Params, WeightedSums]:
        number, rows = part
        grads, sums = compute(trained, frozen, rows, items, jax.random.fold_in(key, number))
        weight = sums["loss"][1]
        return jax.tree.map(lambda t, g: t + weight * g, total, grads), sums

    zeros = jax.tree.map(jnp.zeros_like, trained)
    total, sums = jax.lax.scan(add, zeros, (numbers, parts))
    return total, jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)


def _mean(total: Params, sums: WeightedSums) -> tuple[Params, WeightedSums]:
    weight = jnp.maximum(sums["loss"][1], 1e-9)
    return jax.tree.map(lambda t: t / weight, total), sums


def _over_devices(
    compute: Any, count: int, trained: Params, frozen: Params, batch: Batch, items: Items, key: Array
) -> tuple[Params, WeightedSums]:
    """Gradients of `count` parts, each on one device, exchanged once.

    Part p is the p-th stretch of rows, wherever it is computed, so that dropout is the same on any number of devices.
    """
    devices = axis_size(DATA_AXIS)
    each = count // devices

    def local(trained: Params, frozen: Params, batch: Batch, items: Items, key: Array) -> tuple[Params, WeightedSums]:
        first = each * jax.lax.axis_index(DATA_AXIS) if devices > 1 else 0
        parts = jax.tree.map(lambda x: x.reshape(each, -1, *x.shape[1:]), batch)
        found = _added(compute, trained, frozen, parts, items, key, first + jnp.arange(each))
        return jax.lax.psum(found, DATA_AXIS) if devices > 1 else found

    if devices > 1:
        whole, by_data = PartitionSpec(), PartitionSpec(DATA_AXIS)
        # The sums are equal on all devices, which the checker cannot see.
        local = jax.shard_map(local, in_specs=(whole, whole, by_data, whole, whole), out_specs=whole, check_vma=False)
    return _mean(*local(trained, frozen, batch, items, key))


def _parts(model: Model, trained: Params, batch: Any) -> int:
    """Parts of a batch where nobody has said how many: those of `recjax.ops.parts` if rows do not see each other."""
    each = model.row_bytes(batch)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trained))
    if each is None or held > MOST_PARAMETERS or axis_size(MODEL_AXIS) * axis_size(SEQ_AXIS) > 1:
        return 1
    return parts_of(jax.tree.leaves(batch)[0].shape[0], each, STEP_BYTES)
