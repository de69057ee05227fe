"""The logarithm of running sums of exponentials, history by history: the normaliser of a softmax over the past."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.ambient import axis_size
from recjax.ops.scan import linear_scan
from recjax.typing import DATA_AXIS, SEQ_AXIS, Array, Bool

NOTHING = -1e30
"""Stands for the logarithm of 0: finite, so that differences of two such are 0 and not NaN."""


def cumulative_logsumexp(
    x: Array,
    *,
    z0: Array | None = None,
    starts: Bool[Array, "b l"] | None = None,
    valid: Bool[Array, "b l"] | None = None,
    initial: float = NOTHING,
) -> Array:
    """z_t = log(exp(z_{t-1}) + exp(x_t)) along axis 1, float32, safe for terms of any size.

    The gradient runs by the linear recurrence that softmax weights obey: with d_t the cotangent of z_t,

        r_t = d_t + exp(z_t - z_{t+1}) r_{t+1},    dx_t = exp(x_t - z_t) r_t.

    Where the mesh has a `seq` axis that divides the positions, they are taken to be sharded over it.

    Args:
        x: terms, [b, l, ...].
        z0: z before the first position, [b, ...]; None = `initial`.
        starts: where z begins afresh, from `initial`. Counts only where valid.
        valid: False where z passes unchanged (padding). None = everywhere valid.
        initial: logarithm of what every sum begins with.

    Returns:
        z, [b, l, ...]. It never falls along a history but for rounding.
    """
    x = x.astype(jnp.float32)
    z0 = jnp.full(x.shape[:1] + x.shape[2:], initial, jnp.float32) if z0 is None else z0.astype(jnp.float32)
    starts = jnp.zeros(x.shape[:2], bool) if starts is None else starts
    if valid is not None:
        starts = starts & valid
        x = jnp.where(_wide(valid, x), x, NOTHING)
    # What a history begins with is a term of its first event.
    x = jnp.where(_wide(starts, x), jnp.logaddexp(x, initial), x)
    return _cumulative(x, z0, starts)


@jax.custom_vjp
def _cumulative(x: Array, z0: Array, starts: Array) -> Array:
    return _forward(x, z0, starts)[0]


def _forward(x: Array, z0: Array, starts: Array):
    shards = axis_size(SEQ_AXIS)
    if shards > 1 and x.shape[1] % shards == 0:
        axes = (SEQ_AXIS,) if x.shape[0] % axis_size(DATA_AXIS) else (DATA_AXIS, SEQ_AXIS)
        row = PartitionSpec(DATA_AXIS if DATA_AXIS in axes else None)
        along = PartitionSpec(*row, SEQ_AXIS)
        z = jax.shard_map(
            _exchanged, in_specs=(along, row, along), out_specs=along, axis_names=set(axes), check_vma=False
        )(x, z0, starts)
    else:
        z = _local(x, z0, starts)
    return z, (x, z0, starts, z)


def _backward(kept, d: Array):
    x, z0, starts, z = kept
    before = jnp.concatenate([z0[:, None], z[:, :-1]], axis=1)
    weight = jnp.exp(jnp.minimum(before - z, 0))
    cut = jnp.concatenate([starts[:, 1:], jnp.zeros_like(starts[:, :1])], axis=1)
    later = jnp.concatenate([weight[:, 1:], jnp.zeros_like(weight[:, :1])], axis=1)
    r, first = linear_scan(later, d, starts=cut, reverse=True)
    d_z0 = jnp.where(_wide(starts[:, 0], first), 0, weight[:, 0] * first)
    return jnp.exp(jnp.minimum(x - z, 0)) * r, d_z0, None


_cumulative.defvjp(_forward, _backward)


def _wide(flags: Array, like: Array) -> Array:
    return jnp.expand_dims(flags, tuple(range(flags.ndim, like.ndim)))


def _local(x: Array, z0: Array, starts: Array) -> Array:
    """By a loop in place on CPUs and a tree elsewhere, as in `recjax.ops.scan`."""
    return jax.lax.platform_dependent(x, z0, starts, cpu=_loop, default=_tree)


def _loop(x: Array, z0: Array, starts: Array) -> Array:
    at = partial(jax.lax.dynamic_index_in_dim, axis=1, keepdims=False)

    def body(t, carry):
        z, every = carry
        z = jnp.where(_wide(at(starts, t), z), at(x, t), jnp.logaddexp(z, at(x, t)))
        return z, jax.lax.dynamic_update_index_in_dim(every, z, t, 1)

    return jax.lax.fori_loop(0, x.shape[1], body, (z0, jnp.zeros_like(x)))[1]


def _tree(x: Array, z0: Array, starts: Array) -> Array:
    def join(earlier, later):
        z = jnp.where(_wide(later[1], later[0]), later[0], jnp.logaddexp(earlier[0], later[0]))
        return z, earlier[1] | later[1]

    z, started = jax.lax.associative_scan(join, (x, starts), axis=1)
    return jnp.where(_wide(started, z), z, jnp.logaddexp(z, z0[:, None]))


def _exchanged(x: Array, z0: Array, starts: Array) -> Array:
    """Of the positions that one device holds: their own sums, to which those of the devices before are added."""
    z = _local(x, jnp.full_like(z0, NOTHING), starts)
    sums, cuts = (jax.lax.all_gather(part, SEQ_AXIS) for part in (z[:, -1], jnp.any(starts, axis=1)))

    def step(z, device):
        total, cut = device
        return jnp.where(_wide(cut, z), total, jnp.logaddexp(z, total)), z

    reaching = jax.lax.scan(step, z0, (sums, cuts))[1][jax.lax.axis_index(SEQ_AXIS)]
    started = jnp.cumsum(starts, axis=1) > 0
    return jnp.where(_wide(started, z), z, jnp.logaddexp(z, reaching[:, None]))
