"""Row lookup in an item table that may be sharded by rows."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.ambient import axis_size
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Float, Int

ROW_MULTIPLE, LARGE_MULTIPLE = 128, 8192
"""Item tables are padded to a multiple of this many rows, so that they divide over any usual model axis; large ones, of
a hundred times as many rows, over the model and the data axis of a pod."""


def table_rows(ids: int) -> int:
    """Rows of a table for ids 0..ids-1: `ids` rounded up to a multiple of `ROW_MULTIPLE`, or of `LARGE_MULTIPLE` where
    that is less than a hundredth."""
    multiple = LARGE_MULTIPLE if ids >= 100 * LARGE_MULTIPLE else ROW_MULTIPLE
    return -(-ids // multiple) * multiple


def lookup(table: Float[Array, "n d"], ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
    """Rows of `table` at `ids`.

    With a mesh whose model axis is longer than 1, each device looks up the rows it owns and the sum over the axis
    joins them: the table is never gathered. `ids` are sharded by rows over the data axis. Where the model axis divides
    a device's rows of the batch, each device of it gets a part of them, so that what follows is computed once, and not
    by all of them alike; else all get all.
    """
    data, model = axis_size(DATA_AXIS), axis_size(MODEL_AXIS)
    if model == 1:
        return jnp.take(table, ids, axis=0, mode="clip")
    parted = ids.shape[0] % (data * model) == 0

    def local(part: Array, ids: Array) -> Array:
        index = ids - jax.lax.axis_index(MODEL_AXIS) * part.shape[0]
        mine = (index >= 0) & (index < part.shape[0])
        rows = jnp.take(part, jnp.where(mine, index, 0), axis=0, mode="clip")
        rows = jnp.where(mine[..., None], rows, 0.0)
        if parted:
            return jax.lax.psum_scatter(rows, MODEL_AXIS, scatter_dimension=0, tiled=True)
        return jax.lax.psum(rows, MODEL_AXIS)

    found = PartitionSpec((DATA_AXIS, MODEL_AXIS) if parted else DATA_AXIS)
    specs = (PartitionSpec(MODEL_AXIS), PartitionSpec(DATA_AXIS))
    return jax.shard_map(local, in_specs=specs, out_specs=found)(table, ids)


def take_position(x: Array, index: Int[Array, " b"]) -> Array:
    """One position of each row: [b, l, ...] and indices [b] -> [b, ...], local to each row on any mesh."""
    shape = (-1, 1) + (1,) * (x.ndim - 2)
    return jnp.take_along_axis(x, index.reshape(shape), axis=1)[:, 0]
