"""Forms of products and reductions that XLA:CPU computes fast; elsewhere they are the plain ones.

Its matrix product is fast where both operands are read row by row, [m, k] by [k, n]. Where one is to be read the other
way it takes twice the time, though a copy would cost little. Its maximum hands on what is not a number, which keeps it
from being vectorised.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.ops.mesh_axes import axis_size, platform
from recjax.typing import SEQ_AXIS, Array, Float


def transposed(x: Float[Array, "m n"]) -> Float[Array, "n m"]:
    """The transpose, as an array of its own on a CPU, so that no product reads it the other way."""
    return jax.lax.optimization_barrier(x.T) if platform() == "cpu" else x.T


def projected(
    x: Float[Array, "... d"], kernel: Float[Array, "d e"], dimensions: Any = None, precision: Any = None
) -> Float[Array, "... e"]:
    """`x @ kernel`, with gradients that a CPU computes in the order of memory.

    Before the products of the gradients, what is computed element by element is written out, all positions as one axis.
    XLA would fuse it with a transpose, in which each number comes from another line of the cache. Where sequences are
    sharded positions stay as they are, since no device has a piece of the joined axis.

    Args:
        x: positions.
        kernel: of a dense layer.
        dimensions: as for `jax.lax.dot_general`, so that this stands in for it; other products are JAX's own.
        precision: likewise.
    """
    last_by_first = (((x.ndim - 1,), (0,)), ((), ()))
    dimensions = last_by_first if dimensions is None else dimensions
    if platform() == "cpu" and axis_size(SEQ_AXIS) == 1 and kernel.ndim == 2 and dimensions == last_by_first:
        return _projected(x, kernel, precision)
    return jax.lax.dot_general(x, kernel, dimensions, precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _projected(x: Array, kernel: Array, precision: Any) -> Array:
    return jnp.matmul(x, kernel, precision=precision)


def _projected_forward(x: Array, kernel: Array, precision: Any) -> tuple[Array, tuple[Array, Array]]:
    return _projected(x, kernel, precision), (x, kernel)


def _projected_backward(precision: Any, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    dy = jax.lax.optimization_barrier(dy.reshape(-1, dy.shape[-1]))
    rows = jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1]))
    dx = jnp.matmul(dy, kernel.T, precision=precision).reshape(x.shape)
    return dx, jnp.einsum("nd,ne->de", rows, dy, precision=precision)


_projected.defvjp(_projected_forward, _projected_backward)


def row_max(x: Float[Array, "... n"]) -> Float[Array, "..."]:
    """The maximum of each row; of a row with NaN any number or NaN."""
    if platform() != "cpu":
        return jnp.max(x, axis=-1)
    least = np.asarray(-np.inf, x.dtype)
    return jax.lax.reduce(x, least, lambda a, b: jnp.where(a > b, a, b), (x.ndim - 1,))
