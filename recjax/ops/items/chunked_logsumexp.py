"""The softmax normaliser of a catalog whose item representations are made chunk by chunk.

A model that reads texts has no item table to multiply with: the representation of an item is made from its columns
(a text vector, codes to look up). `log_partition` walks over chunks of rows, makes their representations,
scores them and keeps a running sum, so that neither `[tokens, items]` scores nor `[items, width]` representations
exist beyond a chunk; the backward pass makes a chunk's scores again. Chunks without an item of the catalog in question
are skipped, so a table of many catalogs costs what the one in question costs.

With a mesh, tokens are sharded over the data axis and rows over the model axis; a maximum and a sum per token cross the
model axis, and states and their gradients once each.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.items.softmax import EXCLUDED
from recjax.ops.mesh_axes import axis_size
from recjax.typing import DATA_AXIS, MODEL_AXIS, SEQ_AXIS, Array, Float, Int

Represent = Callable[[Any, Any], Array]
"""(weights, rows: a tree of arrays [c, ...]) -> float32 [c, d]; a function of its arguments alone."""


def log_partition(
    represent: Represent,
    weights: Any,
    rows: Any,
    hidden: Float[Array, "t d"],
    excluded: Int[Array, "t e"],
    start: Int[Array, ""],
    size: Int[Array, ""],
    *,
    chunk: int = 4096,
) -> Float[Array, " t"]:
    """log of the sum of exp(hidden . representation) over the items of a catalog that are not excluded.

    Args:
        represent: makes representations.
        weights: trained arrays that it uses; gradients flow to them.
        rows: the table, a tree of arrays with a common leading axis; never differentiated.
        hidden: user states.
        excluded: ids of items that do not compete, 0-padded, repeats allowed.
        start: row before the catalog's first item: item i is row `start + i`.
        size: items of the catalog.
        chunk: most rows at a time.

    Returns:
        float32; about -1e30 where every item is excluded.
    """
    devices = axis_size(DATA_AXIS) * axis_size(MODEL_AXIS)
    on_mesh, parted = devices > 1, hidden.shape[0] % devices == 0
    local = partial(_local, represent, chunk=chunk, joined=on_mesh)
    if not on_mesh:
        return local(weights, rows, hidden, excluded, start, size)
    tokens, everywhere = PartitionSpec(DATA_AXIS), PartitionSpec()
    states = PartitionSpec((DATA_AXIS, MODEL_AXIS)) if parted else tokens

    def island(weights, rows, hidden, *rest):
        # Gradients of what devices share are summed over the mesh here, not inside the branch that skips a chunk:
        # devices take different branches, and would wait for each other forever.
        weights = jax.tree.map(lambda x: jax.lax.pcast(x, (DATA_AXIS, MODEL_AXIS), to="varying"), weights)
        if parted:  # each device gets the gradients of a part of the states: half of what a sum of all would send
            return local(weights, rows, jax.lax.all_gather(hidden, MODEL_AXIS, tiled=True), *rest)
        return local(weights, rows, jax.lax.pcast(hidden, MODEL_AXIS, to="varying"), *rest)

    return jax.shard_map(
        island,
        in_specs=(everywhere, PartitionSpec(MODEL_AXIS), states, tokens, everywhere, everywhere),
        out_specs=tokens,
    )(weights, rows, hidden, excluded, start, size)


def shared_products(represent: Represent, weights: Any, rows: Any, hidden: Float[Array, "t d"]) -> Float[Array, "t n"]:
    """hidden . representation of a few rows that all devices have, such as drawn negatives.

    With a mesh, tokens are parted over the data and the model axis, and each device makes all representations. What is
    summed over the devices are gradients of `weights`; those of the representations, which are of their tokens' size,
    would be summed first if the compiler laid this out.

    Args:
        represent: makes representations.
        weights: trained arrays that it uses; gradients flow to them.
        rows: a tree of arrays with a common leading axis; never differentiated.
        hidden: user states.
    """
    devices = axis_size(DATA_AXIS) * axis_size(MODEL_AXIS)
    if devices == 1 or hidden.shape[0] % devices or axis_size(SEQ_AXIS) > 1:
        return hidden @ represent(weights, rows).T
    everywhere, parts = PartitionSpec(), PartitionSpec((DATA_AXIS, MODEL_AXIS))

    def island(weights, rows, hidden):
        weights = jax.tree.map(lambda x: jax.lax.pcast(x, (DATA_AXIS, MODEL_AXIS), to="varying"), weights)
        return hidden @ represent(weights, rows).T

    return jax.shard_map(island, in_specs=(everywhere, everywhere, parts), out_specs=parts)(weights, rows, hidden)


def _local(represent, weights, rows, hidden, excluded, start, size, *, chunk: int, joined: bool) -> Array:
    """The normaliser over this device's rows, joined over the model axis of a mesh if `joined`."""
    count = jax.tree.leaves(rows)[0].shape[0]
    chunk = min(chunk, count)
    first_row = jax.lax.axis_index(MODEL_AXIS) * count if joined else 0
    tokens = jnp.arange(hidden.shape[0])[:, None]
    masked = jnp.where(excluded > 0, start + excluded, -1)

    def scores(number: Array, weights: Any, hidden: Array) -> Array:
        """Scores [t, chunk] of one chunk; the last one overlaps its neighbour and leaves out what that one had."""
        begin = jnp.minimum(number * chunk, count - chunk)
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, begin, chunk), rows)
        local = begin + jnp.arange(chunk)
        row = first_row + local
        competes = (local >= number * chunk) & (row > start) & (row <= start + size)
        products = jnp.einsum("td,cd->tc", hidden, represent(weights, part), preferred_element_type=jnp.float32)
        place = masked - first_row - begin
        place = jnp.where((place >= 0) & (place < chunk), place, chunk)
        return jnp.where(competes, products, EXCLUDED).at[tokens, place].set(EXCLUDED, mode="drop")

    # Around the branch, not inside it: what a branch keeps for its gradient is kept for every chunk, even the table.
    @jax.checkpoint
    def add(carry: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        begin = first_row + number * chunk
        needed = (begin + chunk > start) & (begin <= start + size)

        def with_chunk(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            top, total = carry
            found = scores(number, weights, hidden)
            new_top = jax.lax.stop_gradient(jnp.maximum(top, jnp.max(found, axis=-1)))
            return new_top, total * jnp.exp(top - new_top) + jnp.sum(jnp.exp(found - new_top[:, None]), axis=-1)

        return jax.lax.cond(needed, with_chunk, lambda carry: carry, carry), None

    # Derived from `hidden`, so that the loop's carry varies over the mesh as its result does.
    zero = jax.lax.stop_gradient(hidden[:, 0].astype(jnp.float32)) * 0.0
    (top, total), _ = jax.lax.scan(add, (zero + EXCLUDED, zero), jnp.arange(-(-count // chunk)))
    if joined:
        best = jax.lax.pmax(jax.lax.stop_gradient(top), MODEL_AXIS)
        total = jax.lax.psum(total * jnp.exp(top - best), MODEL_AXIS)
        top = best
    return top + jnp.log(jnp.maximum(total, 1e-30))
