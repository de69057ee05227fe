"""The logarithm of running sums of exponentials, history by history: the normaliser of a softmax over the past."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from recjax.ops.scan.elementwise import linear_scan
from recjax.ops.scan.time_axis import carry_over, time_layout, wide
from recjax.typing import Array, Bool

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
        x = jnp.where(wide(valid, x.ndim), x, NOTHING)
    # What a history begins with is a term of its first event.
    x = jnp.where(wide(starts, x.ndim), jnp.logaddexp(x, initial), x)
    return _cumulative(x, z0, starts)


@jax.custom_vjp
def _cumulative(x: Array, z0: Array, starts: Array) -> Array:
    return _forward(x, z0, starts)[0]


def _forward(x: Array, z0: Array, starts: Array):
    layout = time_layout(x)
    along = layout.along(1)
    island = layout.island(_exchanged if layout.sharded else _local, (along, layout.row, along), along)
    z = island(x, z0, starts)
    return z, (x, z0, starts, z)


def _backward(kept, d: Array):
    x, z0, starts, z = kept
    before = jnp.concatenate([z0[:, None], z[:, :-1]], axis=1)
    weight = jnp.exp(jnp.minimum(before - z, 0))
    cut = jnp.concatenate([starts[:, 1:], jnp.zeros_like(starts[:, :1])], axis=1)
    later = jnp.concatenate([weight[:, 1:], jnp.zeros_like(weight[:, :1])], axis=1)
    r, first = linear_scan(later, d, starts=cut, reverse=True)
    d_z0 = jnp.where(wide(starts[:, 0], first.ndim), 0, weight[:, 0] * first)
    return jnp.exp(jnp.minimum(x - z, 0)) * r, d_z0, None


_cumulative.defvjp(_forward, _backward)


def _local(x: Array, z0: Array, starts: Array) -> Array:
    """By a loop in place on CPUs and a tree elsewhere, as in `recjax.ops.scan.elementwise`."""
    return jax.lax.platform_dependent(x, z0, starts, cpu=_loop, default=_tree)


def _loop(x: Array, z0: Array, starts: Array) -> Array:
    at = partial(jax.lax.dynamic_index_in_dim, axis=1, keepdims=False)

    def body(t, carry):
        z, every = carry
        z = jnp.where(wide(at(starts, t), z.ndim), at(x, t), jnp.logaddexp(z, at(x, t)))
        return z, jax.lax.dynamic_update_index_in_dim(every, z, t, 1)

    return jax.lax.fori_loop(0, x.shape[1], body, (z0, jnp.zeros_like(x)))[1]


def _tree(x: Array, z0: Array, starts: Array) -> Array:
    def join(earlier, later):
        z = jnp.where(wide(later[1], later[0].ndim), later[0], jnp.logaddexp(earlier[0], later[0]))
        return z, earlier[1] | later[1]

    z, started = jax.lax.associative_scan(join, (x, starts), axis=1)
    return jnp.where(wide(started, z.ndim), z, jnp.logaddexp(z, z0[:, None]))


class _Sums(NamedTuple):
    """Maps of stretches of a row on the z before them: it is forgotten where `cut`."""

    total: Array
    cut: Array

    def __call__(self, z: Array) -> Array:
        return jnp.where(wide(self.cut, z.ndim), self.total, jnp.logaddexp(z, self.total))


def _exchanged(x: Array, z0: Array, starts: Array) -> Array:
    """Of the positions that one device holds: their own sums, to which those of the devices before are added."""
    z = _local(x, jnp.full_like(z0, NOTHING), starts)
    reaching, _ = carry_over(_Sums(z[:, -1], jnp.any(starts, axis=1)), z0, reverse=False)
    return _Sums(z, jnp.cumsum(starts, axis=1) > 0)(reaching[:, None])
