"""Row lookup in an item table that may be sharded by rows."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.mesh_axes import axis_size, dividing_axis
from recjax.typing import DATA_AXIS, MODEL_AXIS, SEQ_AXIS, Array, Float, Int

ROW_MULTIPLE, LARGE_MULTIPLE = 128, 8192
"""Item tables are padded to a multiple of this many rows, so that they divide over any usual model axis; large ones, of
a hundred times as many rows, over the model and the data axis of a pod."""


def table_rows(ids: int) -> int:
    """Rows of a table for ids 0..ids-1: `ids` rounded up to a multiple of `ROW_MULTIPLE`, or of `LARGE_MULTIPLE` where
    that is less than a hundredth."""
    multiple = LARGE_MULTIPLE if ids >= 100 * LARGE_MULTIPLE else ROW_MULTIPLE
    return -(-ids // multiple) * multiple


class RowGradientTable:
    """A table whose gradient is wanted by rows: see `recjax.ops.items.row_gradients`. It lives inside one trace.

    Attributes:
        table: float [n, d], not differentiated.
        taps: zeros in the shape of what each lookup finds, in order; None to find out what is looked up.
        ids: what has been looked up so far.
    """

    def __init__(self, table: Array, taps: Sequence[Array] | None = None):
        self.table, self.taps = jax.lax.stop_gradient(table), taps
        self.ids: list[Array] = []

    def look_up(self, ids: Array) -> Array:
        found = lookup(self.table, ids) if ids.ndim > 1 else lookup_shared(self.table, ids)
        self.ids.append(ids)
        return found if self.taps is None else found + self.taps[len(self.ids) - 1]


def lookup(table: Float[Array, "n d"] | RowGradientTable, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
    """Rows of `table` at `ids`.

    With a mesh whose model axis is longer than 1, each device looks up the rows it owns and the sum over the axis
    joins them: the table is never gathered. `ids` are sharded by rows over the data axis and by positions over the
    sequence axis. Where the model axis divides a device's rows of the batch, each device of it gets a part of them, so
    that what follows is computed once, and not by all of them alike; else all get all.
    """
    if isinstance(table, RowGradientTable):
        return table.look_up(ids)
    data, model = axis_size(DATA_AXIS), axis_size(MODEL_AXIS)
    if model == 1:
        return jnp.take(table, ids, axis=0, mode="clip")
    parted = ids.shape[0] % (data * model) == 0
    positions = dividing_axis(SEQ_AXIS, ids.shape[1])

    def local(part: Array, ids: Array) -> Array:
        rows = _own_rows(part, ids)
        if parted:
            return jax.lax.psum_scatter(rows, MODEL_AXIS, scatter_dimension=0, tiled=True)
        return jax.lax.psum(rows, MODEL_AXIS)

    found = PartitionSpec((DATA_AXIS, MODEL_AXIS) if parted else DATA_AXIS, positions)
    specs = (PartitionSpec(MODEL_AXIS), PartitionSpec(DATA_AXIS, positions))
    return jax.shard_map(local, in_specs=specs, out_specs=found)(table, ids)


def lookup_shared(table: Float[Array, "n d"] | RowGradientTable, ids: Int[Array, " k"]) -> Float[Array, "k d"]:
    """Rows of `table` at ids that are the same on all devices, on all devices; the table is never gathered."""
    if isinstance(table, RowGradientTable):
        return table.look_up(ids)
    if axis_size(MODEL_AXIS) == 1:
        return jnp.take(table, ids, axis=0, mode="clip")

    def local(part: Array, ids: Array) -> Array:
        return jax.lax.psum(_own_rows(part, ids), MODEL_AXIS)

    specs = (PartitionSpec(MODEL_AXIS), PartitionSpec())
    return jax.shard_map(local, in_specs=specs, out_specs=PartitionSpec())(table, ids)


def _own_rows(part: Array, ids: Array) -> Array:
    """Rows of this device's part of a table; zeros for ids of other parts."""
    index = ids - jax.lax.axis_index(MODEL_AXIS) * part.shape[0]
    mine = (index >= 0) & (index < part.shape[0])
    rows = jnp.take(part, jnp.where(mine, index, 0), axis=0, mode="clip")
    return jnp.where(mine[..., None], rows, 0.0)


def last_items(events: Int[Array, "b l"], lengths: Int[Array, " b"], count: int) -> Int[Array, "b n"]:
    """The last items of histories that are aligned to the left, latest first, 0 where there are fewer."""
    place = lengths[:, None] - 1 - jnp.arange(count)
    return jnp.where(place >= 0, jnp.take_along_axis(events, jnp.maximum(place, 0), axis=1), 0)


def take_position(x: Array, index: Array) -> Array:
    """One position of each row, [b, l, ...] and indices [b] -> [b, ...], or several, indices [b, s] -> [b, s, ...].

    Local to each row on any mesh.
    """
    found = jnp.take_along_axis(x, index.reshape(index.shape[0], -1, *(1,) * (x.ndim - 2)), axis=1)
    return found[:, 0] if index.ndim == 1 else found
