"""Forms of products and reductions that XLA:CPU computes fast; elsewhere they are the plain ones.

Its matrix product is fast where both operands are read row by row, [m, k] by [k, n]. Where one is to be read the other
way it takes twice the time, though a copy would cost little. Its maximum hands on what is not a number, which keeps it
from being vectorised.
"""

import jax
import jax.numpy as jnp
import numpy as np

from recjax.ops.mesh_axes import platform
from recjax.typing import Array, Float


def transposed(x: Float[Array, "m n"]) -> Float[Array, "n m"]:
    """The transpose, as an array of its own on a CPU, so that no product reads it the other way."""
    return jax.lax.optimization_barrier(x.T) if platform() == "cpu" else x.T


def row_max(x: Float[Array, "... n"]) -> Float[Array, "..."]:
    """The maximum of each row; of a row with NaN any number or NaN."""
    if platform() != "cpu":
        return jnp.max(x, axis=-1)
    least = np.asarray(-np.inf, x.dtype)
    return jax.lax.reduce(x, least, lambda a, b: jnp.where(a > b, a, b), (x.ndim - 1,))
