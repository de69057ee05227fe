"""Row lookup in an item table that may be sharded by rows."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.ambient import axis_size
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Float, Int

ROW_MULTIPLE = 128
"""Item tables are padded to a multiple of this many rows, so that they divide over any usual model axis."""


def table_rows(ids: int) -> int:
    """Rows of a table for ids 0..ids-1: `ids` rounded up to a multiple of `ROW_MULTIPLE`."""
    return -(-ids // ROW_MULTIPLE) * ROW_MULTIPLE


def lookup(table: Float[Array, "n d"], ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
    """Rows of `table` at `ids`.

    With a mesh whose model axis is longer than 1, each device looks up the rows it owns and the sum over the axis
    joins them: the table is never gathered. `ids` are sharded by rows over the data axis.
    """
    if axis_size(MODEL_AXIS) == 1:
        return jnp.take(table, ids, axis=0, mode="clip")

    def local(part: Array, ids: Array) -> Array:
        index = ids - jax.lax.axis_index(MODEL_AXIS) * part.shape[0]
        mine = (index >= 0) & (index < part.shape[0])
        rows = jnp.take(part, jnp.where(mine, index, 0), axis=0, mode="clip")
        return jax.lax.psum(jnp.where(mine[..., None], rows, 0.0), MODEL_AXIS)

    return jax.shard_map(
        local, in_specs=(PartitionSpec(MODEL_AXIS), PartitionSpec(DATA_AXIS)), out_specs=PartitionSpec(DATA_AXIS)
    )(table, ids)


def take_position(x: Array, index: Int[Array, " b"]) -> Array:
    """One position of each row: [b, l, ...] and indices [b] -> [b, ...], local to each row on any mesh."""
    shape = (-1, 1) + (1,) * (x.ndim - 2)
    return jnp.take_along_axis(x, index.reshape(shape), axis=1)[:, 0]
