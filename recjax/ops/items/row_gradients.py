"""Gradients of a table by rows, and updates that touch no others.

A sampled loss looks up a few thousand rows of a table that may have a hundred million. Its dense gradient is as large
as the table and nearly all zeros, and an optimiser that walks over it reads and writes the table and all its moments.
Here a lookup adds a tap, an array of zeros, to what it finds (`RowGradientTable`): the gradient with respect to the tap
is that of the rows looked up. Rows looked up several times are joined, and only their slots of table and moments are
read and written.

With a mesh, table and moments are sharded by rows over the model axis. Ids and gradients are gathered over the data
axis, a few rows of each device instead of an all-reduce of the table, and each device updates the rows that it owns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.mesh_axes import axis_size
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Float, Int

RowRule = Callable[[tuple[Array, ...], Array, Any], tuple[Array, ...]]
"""(rows of table and moments, each [r, d]; gradients [r, d]; scalars) -> new rows."""


def joined_rows(
    ids: Sequence[Int[Array, "..."]], values: Sequence[Float[Array, "... d"]], rows: int
) -> tuple[Int[Array, " r"], Float[Array, "r d"]]:
    """Distinct rows of a table of `rows` rows, and the sum of the values of each.

    Args:
        ids: of several lookups: [b, l] sharded by rows of the batch, or [n] the same on all devices.
        values: of each lookup, [b, l, d] or [n, d].
        rows: of the table.

    Returns:
        Ids and sums; slots that are not needed have an id beyond the table and zeros. On a mesh, slots are sharded over
        the model axis, ids count from the first row of a device's shard.
    """
    width = values[0].shape[-1]
    spread = [ids.ndim > 1 for ids in ids]
    model = axis_size(MODEL_AXIS)

    def local(ids: list[Array], values: list[Array]) -> tuple[Array, Array]:
        ids = [part.reshape(-1) for part in ids]
        values = [part.reshape(-1, width) for part in values]
        if on_mesh:
            gather = lambda x: jax.lax.all_gather(x, DATA_AXIS, tiled=True)  # noqa: E731
            ids = [gather(part) if own else part for part, own in zip(ids, spread, strict=True)]
            values = [gather(part) if own else part for part, own in zip(values, spread, strict=True)]
        share = rows // model
        first = jax.lax.axis_index(MODEL_AXIS) * share if on_mesh else 0
        return _join(jnp.concatenate(ids) - first, jnp.concatenate(values), share)

    on_mesh = axis_size(DATA_AXIS) * model > 1
    if not on_mesh:
        return local(list(ids), list(values))
    specs = [PartitionSpec(DATA_AXIS) if own else PartitionSpec() for own in spread]
    slots = PartitionSpec(MODEL_AXIS)
    # Equal on all devices of the data axis after the exchange, which the checker cannot see.
    island: Any = jax.shard_map(local, in_specs=(specs, specs), out_specs=(slots, slots), check_vma=False)
    return island(list(ids), list(values))


def _join(ids: Array, values: Array, rows: int) -> tuple[Array, Array]:
    """Sums of values by id; ids outside 0..rows - 1 are left out."""
    ids = jnp.where((ids >= 0) & (ids < rows), ids, rows)
    order = jnp.argsort(ids)
    ids, values = ids[order], values[order]
    first = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]])
    slot = jnp.cumsum(first, dtype=jnp.int32) - 1
    sums = jax.ops.segment_sum(values, slot, ids.shape[0], indices_are_sorted=True)
    found = jnp.full(ids.shape, rows, jnp.int32).at[slot].set(ids, indices_are_sorted=True)
    return found, jnp.where((found < rows)[:, None], sums, 0.0)


def update_rows(
    rule: RowRule, arrays: tuple[Array, ...], ids: Int[Array, " r"], values: Float[Array, "r d"], scalars: Any
) -> tuple[Array, ...]:
    """Table and moments [n, d] with the rows `ids` replaced by what `rule` makes of them; the others are not read.

    Args:
        rule: the optimiser, on rows.
        arrays: table and moments.
        ids: distinct, of `joined_rows`.
        values: gradients of these rows.
        scalars: a tree of scalars for the rule.
    """

    def local(arrays: tuple[Array, ...], ids: Array, values: Array, scalars: Any) -> tuple[Array, ...]:
        old = tuple(array.at[ids].get(mode="fill", fill_value=0.0) for array in arrays)
        new = rule(old, values, scalars)
        return tuple(
            array.at[ids].set(rows, mode="drop", unique_indices=True) for array, rows in zip(arrays, new, strict=True)
        )

    if axis_size(DATA_AXIS) * axis_size(MODEL_AXIS) == 1:
        return local(arrays, ids, values, scalars)
    slots = PartitionSpec(MODEL_AXIS)
    island: Any = jax.shard_map(
        local, in_specs=(slots, slots, slots, PartitionSpec()), out_specs=slots, check_vma=False
    )
    return island(arrays, ids, values, scalars)
