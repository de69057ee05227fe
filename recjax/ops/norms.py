"""The norm of a gradient: one pass over it and no copy."""

from typing import Any

import jax
import jax.numpy as jnp

from recjax.ops.mesh_axes import axis_size
from recjax.typing import MODEL_AXIS, Array, Float

BLOCK_ROWS = 128
LARGE = 2**20
"""Elements from which an array is worth a loop of its own on a CPU."""


def global_norm(tree: Any, *, whole: bool = True) -> Float[Array, ""]:
    """Euclidean norm of all arrays of a tree together, float32.

    XLA:CPU, with the faulty fusions off that `recjax.parallel.startup` switches off, writes the squares of an array to
    fresh memory before it adds them up: for the gradient of a large item table that costs more than the optimiser.
    There large arrays are added up by blocks of rows.

    Args:
        tree: arrays.
        whole: no array is cut over the data axis.
    """
    square = _sum_of_squares if whole else _plain
    squares = [square(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))


def _sum_of_squares(x: Array) -> Float[Array, ""]:
    # Rows that may be sharded are not reshaped: each device would need those of the others.
    if x.ndim == 0 or x.size < LARGE or x.shape[0] % BLOCK_ROWS or axis_size(MODEL_AXIS) > 1:
        return _plain(x)
    return jax.lax.platform_dependent(x, cpu=_blockwise, default=_plain)


def _plain(x: Array) -> Float[Array, ""]:
    return jnp.sum(x * x)


def _blockwise(x: Array) -> Float[Array, ""]:
    blocks = x.reshape(x.shape[0] // BLOCK_ROWS, -1)
    total, _ = jax.lax.scan(lambda total, block: (total + block * block, None), jnp.zeros_like(blocks[0]), blocks)
    return jnp.sum(total)
