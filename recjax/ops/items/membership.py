"""Ids that stand in a history, where several histories share a row."""

import jax
import jax.numpy as jnp

from recjax.ops.mesh_axes import platform
from recjax.typing import Array, Bool, Int


def in_history(ids: Int[Array, "b l n"], items: Int[Array, "b l"], segments: Int[Array, "b l"]) -> Bool[Array, "b l n"]:
    """True where an id stands anywhere in the history that its position belongs to.

    All pairs are compared, l x l a row; on a CPU each id is searched for among the sorted items of its history.

    Args:
        ids: to look for, of each position.
        items: ids of the histories.
        segments: the same number for all positions of a history, which are next to each other.
    """
    return _searched(ids, items, segments) if platform() == "cpu" else _compared(ids, items, segments)


def _compared(ids: Array, items: Array, segments: Array) -> Array:
    same = segments[:, :, None] == segments[:, None, :]
    found = [jnp.any(same & (ids[:, :, n, None] == items[:, None, :]), axis=-1) for n in range(ids.shape[2])]
    return jnp.stack(found, axis=-1)


def _searched(ids: Array, items: Array, segments: Array) -> Array:
    rows, length = items.shape
    changes = segments[:, 1:] != segments[:, :-1]
    edge, places = jnp.ones((rows, 1), bool), jnp.arange(length)
    starts, ends = jnp.concatenate([edge, changes], axis=1), jnp.concatenate([changes, edge], axis=1)
    history = jnp.cumsum(starts, axis=1, dtype=jnp.int32)
    # Histories are in order, so each has the same places after sorting.
    ordered = jax.lax.sort((history, items), dimension=1, num_keys=2)[1]
    first = jax.lax.cummax(jnp.where(starts, places, 0), axis=1)
    end = jax.lax.cummin(jnp.where(ends, places + 1, length), axis=1, reverse=True)

    def at(place: Array) -> Array:
        flat = jnp.minimum(place, length - 1).reshape(rows, -1)
        return jnp.take_along_axis(ordered, flat, axis=1).reshape(ids.shape)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        above = at(middle) < ids
        return jnp.where((low < high) & above, middle + 1, low), jnp.where(above, high, jnp.minimum(high, middle))

    bounds = [jnp.broadcast_to(x[..., None], ids.shape).astype(jnp.int32) for x in (first, end)]
    low, _ = jax.lax.fori_loop(0, length.bit_length(), halve, tuple(bounds))
    return (low < bounds[1]) & (at(low) == ids)
