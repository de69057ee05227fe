"""Rows of a batch in parts that a CPU's cache holds.

A layer that goes over more states than the cache holds waits for memory; and a program whose arrays need more than some
30 MB is given them by the operating system anew at each call, page by page, which takes longer than what is computed in
them. On a CPU rows that do not see each other are therefore taken a few at a time. Accelerators take them all.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from recjax.ops.mesh_axes import axis_size, platform
from recjax.typing import DATA_AXIS, Array

FORWARD_BYTES = 1_000_000
"""Bytes of the states between two layers of a part on a device, where there is no backward pass."""


def parts_of(rows: int, row_bytes: int, part_bytes: int) -> int:
    """Parts of a batch, a multiple of the data axis, of as nearly `part_bytes` as may be; 1 elsewhere than on CPUs."""
    fitting = max(1.0, part_bytes / row_bytes)
    if jax.sharding.get_abstract_mesh().empty or platform() != "cpu" or rows <= fitting:
        return 1
    devices = axis_size(DATA_AXIS)
    possible = [count for count in range(devices, rows + 1, devices) if rows % count == 0]
    return min(possible, key=lambda count: abs(math.log(rows / count / fitting)), default=1)


def split_rows(x: Array, parts: int) -> Array:
    """[b, ...] -> [parts, b / parts, ...], part p holding rows p, p + parts, ...

    Strided, because rows are sharded in contiguous blocks: each device then finds its share of every part in its own
    rows, and nothing moves.
    """
    return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)


def by_parts(function: Callable[[Any], Any], batch: Any, row_bytes: int) -> Any:
    """`function(batch)`, of arrays [b, ...] to arrays [b, ...] row by row, part after part."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    parts = parts_of(rows, row_bytes, FORWARD_BYTES) // axis_size(DATA_AXIS)
    if parts <= 1:
        return function(batch)
    found = jax.lax.map(function, jax.tree.map(lambda x: split_rows(x, parts), batch))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(rows, *x.shape[2:]), found)
