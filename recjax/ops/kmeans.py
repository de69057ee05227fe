"""k-means (Lloyd 1982) with k-means++ seeding (Arthur & Vassilvitskii, SODA 2007).

Distances are computed for a chunk of vectors at a time: no more than `[chunk, k]` of them exist at once. Sums over the
members of a cluster are products with one-hot matrices, which, unlike scattered additions, add in the same order every
time: the same key gives the same centroids on the same backend.
"""

from functools import partial

import jax
import jax.numpy as jnp

from recjax.typing import Array, Float, Int

CHUNK = 4096
"""Vectors whose distances to all centroids exist at a time."""

SAMPLE = 32
"""Vectors a cluster that seeding looks at: more only slow it down."""

HIGHEST = jax.lax.Precision.HIGHEST


@partial(jax.jit, static_argnames="chunk")
def assign(
    vectors: Float[Array, "n d"], centroids: Float[Array, "k d"], *, chunk: int = CHUNK
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Nearest centroid of each vector, the first of equal ones, and the squared distance to it."""
    nearest, distances = jax.lax.map(lambda block: _nearest(block, centroids), _blocks(vectors, chunk))
    return nearest.reshape(-1)[: len(vectors)], distances.reshape(-1)[: len(vectors)]


@partial(jax.jit, static_argnames=("clusters", "iterations", "chunk"))
def kmeans(
    vectors: Float[Array, "n d"], clusters: int, key: Array, *, iterations: int = 25, chunk: int = CHUNK
) -> Float[Array, "k d"]:
    """Centroids of `clusters` clusters.

    A cluster that loses its last vector starts again at a vector that is far from its own centroid, so there are always
    as many clusters in use as there are distinct vectors to fill them.

    Args:
        vectors: at least one.
        clusters: how many.
        key: of the seeding.
        iterations: rounds of assigning vectors and moving centroids.
        chunk: vectors whose distances exist at a time.
    """
    sample_key, seed_key = jax.random.split(key)
    size = min(len(vectors), SAMPLE * clusters)
    sample = vectors[jax.random.permutation(sample_key, len(vectors))[:size]]
    seeds = plus_plus(sample, clusters, seed_key)
    return jax.lax.fori_loop(0, iterations, lambda _, centroids: lloyd_round(vectors, centroids, chunk=chunk), seeds)


def plus_plus(vectors: Float[Array, "n d"], clusters: int, key: Array) -> Float[Array, "k d"]:
    """Seeds: vectors drawn one after another, each with probability proportional to its squared distance from those
    drawn before; where none is left at a distance, at random."""
    draws = jax.random.uniform(key, (clusters, 2))

    def pick(weights: Array, draw: Array) -> Array:
        sums = jnp.cumsum(weights)
        far = jnp.searchsorted(sums, draw[0] * sums[-1], side="right")
        index = jnp.where(sums[-1] > 0, far, (draw[1] * len(vectors)).astype(far.dtype))
        return jnp.minimum(index, len(vectors) - 1)

    def add(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        seeds, distances = carry
        chosen = vectors[pick(jnp.where(number == 0, 1.0, distances), draws[number])]
        distances = jnp.minimum(distances, jnp.sum(jnp.square(vectors - chosen), axis=-1))
        return seeds.at[number].set(chosen), distances

    seeds = jnp.zeros((clusters, vectors.shape[1]), vectors.dtype)
    return jax.lax.fori_loop(0, clusters, add, (seeds, jnp.full(len(vectors), jnp.inf, vectors.dtype)))[0]


@partial(jax.jit, static_argnames="chunk")
def lloyd_round(
    vectors: Float[Array, "n d"], centroids: Float[Array, "k d"], *, chunk: int = CHUNK
) -> Float[Array, "k d"]:
    """Means of the vectors nearest to each centroid; the j-th centroid without any goes to the j-th farthest vector."""
    clusters = len(centroids)

    def add(totals: tuple[Array, Array], block: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        members, exist = block
        nearest, distances = _nearest(members, centroids)
        one_hot = jax.nn.one_hot(nearest, clusters, dtype=members.dtype) * exist[:, None]
        sums, counts = totals
        sums = sums + jnp.matmul(one_hot.T, members, precision=HIGHEST)
        return (sums, counts + one_hot.sum(axis=0)), distances

    zeros = (jnp.zeros_like(centroids), jnp.zeros(clusters, centroids.dtype))
    blocks = (_blocks(vectors, chunk), _blocks(jnp.ones(len(vectors), vectors.dtype), chunk))
    (sums, counts), distances = jax.lax.scan(add, zeros, blocks)
    means = sums / jnp.maximum(counts, 1.0)[:, None]
    empty = counts == 0
    farthest = jax.lax.top_k(distances.reshape(-1)[: len(vectors)], min(clusters, len(vectors)))[1]
    again = vectors[farthest[jnp.clip(jnp.cumsum(empty) - 1, 0, len(farthest) - 1)]]
    return jnp.where(empty[:, None], again, means)


def _nearest(block: Float[Array, "c d"], centroids: Float[Array, "k d"]) -> tuple[Int[Array, " c"], Float[Array, " c"]]:
    products = jnp.matmul(block, centroids.T, precision=HIGHEST)
    scores = jnp.sum(jnp.square(centroids), axis=-1) - 2.0 * products
    nearest = jnp.argmin(scores, axis=-1).astype(jnp.int32)
    return nearest, jnp.sum(jnp.square(block - centroids[nearest]), axis=-1)


def _blocks(x: Array, chunk: int) -> Array:
    """[n, ...] -> [blocks, chunk, ...], filled up with zeros."""
    chunk = min(chunk, len(x))
    fill = -len(x) % chunk
    return jnp.pad(x, [(0, fill)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, chunk, *x.shape[1:])
