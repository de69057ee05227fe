"""Assignments that use all clusters about equally, by Sinkhorn's algorithm (Cuturi, NeurIPS 2013), in log space.

The plan of entropic optimal transport between vectors and clusters of equal size is exp((f_i + g_k - d_ik) / epsilon).
Of it only the prices g are needed: vector i belongs to the cluster with the least d_ik - g_k, whatever the other
vectors are. So an assignment that was balanced over a catalog goes on for items that come later.
"""

from functools import partial

import jax
import jax.numpy as jnp

from recjax.ops.kmeans import HIGHEST, plus_plus
from recjax.typing import Array, Float, Int


def squared_distances(vectors: Float[Array, "n d"], centroids: Float[Array, "k d"]) -> Float[Array, "n k"]:
    """Of every vector to every centroid, less the vector's own square, which favours no centroid."""
    products = jnp.matmul(vectors, centroids.T, precision=HIGHEST)
    return jnp.sum(jnp.square(centroids), axis=-1) - 2.0 * products


@partial(jax.jit, static_argnames=("epsilon", "rounds"))
def balancing_prices(
    distances: Float[Array, "n k"], *, epsilon: float = 0.003, rounds: int = 100
) -> Float[Array, " k"]:
    """Offsets to take off the distances to each cluster so that nearest ones are nearly equally frequent.

    The softness falls from 1 to `epsilon` over most of the rounds: from the start at a small one the prices would move
    too slowly, and a large one balances the plan but not its hard assignments.

    Args:
        distances: to all clusters, of at least one vector.
        epsilon: softness of the plan at the end, as a share of the mean distance beyond the nearest cluster.
        rounds: scalings of rows and columns.

    Returns:
        float32, in the unit of the distances.
    """
    # A number common to a vector's distances changes nothing; without it all of them are on one scale.
    beyond = distances - jnp.min(distances, axis=1, keepdims=True)
    unit = jnp.maximum(jnp.mean(beyond), 1e-30)
    beyond = beyond / unit
    share = jnp.log(distances.shape[0] / distances.shape[1])

    def scaled(number: Array, prices: Array) -> Array:
        soft = jnp.maximum(epsilon ** (number / (0.7 * rounds)), epsilon)
        rows = jax.nn.logsumexp((prices - beyond) / soft, axis=1, keepdims=True)
        return soft * (share - jax.nn.logsumexp(-beyond / soft - rows, axis=0))

    return unit * jax.lax.fori_loop(0, rounds, scaled, jnp.zeros(distances.shape[1]))


@partial(jax.jit, static_argnames=("clusters", "iterations"))
def balanced_clusters(
    vectors: Float[Array, "n d"], clusters: int, key: Array, *, iterations: int = 10
) -> Int[Array, " n"]:
    """k-means clusters of nearly equal size: the assignment of each round is balanced.

    Args:
        vectors: at least one.
        clusters: how many.
        key: of the seeding.
        iterations: rounds.
    """
    centroids, prices = balanced_kmeans(vectors, clusters, key, iterations)
    return jnp.argmin(squared_distances(vectors, centroids) - prices, axis=1).astype(jnp.int32)


def balanced_kmeans(
    vectors: Float[Array, "n d"], clusters: int, key: Array, iterations: int = 10
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
    """Centroids of clusters of nearly equal size, and the prices to take off the distances to them."""

    def moved(_: Array, centroids: Array) -> Array:
        distances = squared_distances(vectors, centroids)
        assigned = jnp.argmin(distances - balancing_prices(distances), axis=1)
        one_hot = jax.nn.one_hot(assigned, clusters, dtype=vectors.dtype)
        counts = one_hot.sum(axis=0)[:, None]
        means = jnp.matmul(one_hot.T, vectors, precision=HIGHEST) / jnp.maximum(counts, 1.0)
        return jnp.where(counts > 0, means, centroids)

    centroids = jax.lax.fori_loop(0, iterations, moved, plus_plus(vectors, clusters, key))
    return centroids, balancing_prices(squared_distances(vectors, centroids))
