"""Sums over the edges of a graph."""

import jax
import jax.numpy as jnp

from recjax.typing import Array, Float, Int


def neighbour_means(
    x: Float[Array, "n d"], sources: Int[Array, " m"], targets: Int[Array, " m"]
) -> Float[Array, "n d"]:
    """Mean over the edges that end at each node of the vectors they come from; zeros where none does.

    >>> x = jnp.array([[1.0], [2.0], [6.0]])
    >>> neighbour_means(x, jnp.array([1, 2, 0]), jnp.array([0, 0, 2]))[:, 0].tolist()
    [4.0, 0.0, 1.0]

    Args:
        x: of the nodes.
        sources: node that each edge comes from.
        targets: node that it ends at, ascending.
    """
    nodes = len(x)
    degrees = jax.ops.segment_sum(jnp.ones(len(targets), x.dtype), targets, nodes, indices_are_sorted=True)
    sums = jax.ops.segment_sum(x[sources], targets, nodes, indices_are_sorted=True)
    return sums / jnp.maximum(degrees, 1.0)[:, None]
