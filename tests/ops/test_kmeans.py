"""k-means against float64 NumPy, and the properties that its users rely on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.kmeans import assign, kmeans, lloyd_round, plus_plus


def blobs(per=40, clusters=6, width=5, spread=0.05, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, width)) * 3
    labels = rng.permutation(np.repeat(np.arange(clusters), per))
    return (centres[labels] + spread * rng.normal(size=(len(labels), width))).astype(np.float32), centres, labels


def lloyd(vectors, centroids, rounds):
    """float64; no cluster may run empty."""
    vectors, centroids = vectors.astype(np.float64), centroids.astype(np.float64)
    for _ in range(rounds):
        nearest = ((vectors[:, None] - centroids) ** 2).sum(-1).argmin(1)
        centroids = np.stack([vectors[nearest == c].mean(0) for c in range(len(centroids))])
    return centroids


@pytest.mark.parametrize("chunk", [7, 512])
def test_assign_equals_brute_force(chunk):
    rng = np.random.default_rng(1)
    vectors, centroids = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    distances = ((vectors[:, None].astype(np.float64) - centroids) ** 2).sum(-1)
    nearest, found = assign(vectors, centroids, chunk=chunk)
    np.testing.assert_array_equal(nearest, distances.argmin(1))
    np.testing.assert_allclose(found, distances.min(1), rtol=1e-5)


def test_equal_centroids_go_to_the_first():
    nearest, _ = assign(jnp.ones((3, 2)), jnp.ones((4, 2)))
    np.testing.assert_array_equal(nearest, [0, 0, 0])


def test_finds_well_separated_clusters_and_their_means():
    vectors, _, labels = blobs()
    centroids = np.asarray(kmeans(vectors, 6, jax.random.key(0), iterations=10, chunk=64))
    nearest = np.asarray(assign(vectors, centroids)[0])
    assert len({(int(a), int(b)) for a, b in zip(labels, nearest, strict=True)}) == 6  # one to one
    means = np.stack([vectors[nearest == c].astype(np.float64).mean(0) for c in range(6)])
    np.testing.assert_allclose(centroids, means, atol=1e-5)


def test_rounds_are_those_of_lloyd_whatever_the_chunk():
    vectors, _, _ = blobs(spread=1.5)
    for chunk in (37, 64):
        found = vectors[:4]
        for _ in range(3):
            found = lloyd_round(vectors, found, chunk=chunk)
        np.testing.assert_allclose(found, lloyd(vectors, vectors[:4], 3), atol=1e-4)


def test_the_same_key_gives_the_same_bits():
    vectors, _, _ = blobs()
    first, again, other = (kmeans(vectors, 6, jax.random.key(k), iterations=10, chunk=64) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_seeds_are_distinct_vectors_while_there_are_any():
    seed = jax.jit(plus_plus, static_argnums=1)
    vectors = jnp.asarray(np.repeat(np.eye(5, dtype=np.float32), 20, axis=0))
    for key in range(4):
        seeds = np.asarray(seed(vectors, 5, jax.random.key(key)))
        np.testing.assert_array_equal(np.unique(seeds, axis=0), np.unique(np.eye(5, dtype=np.float32), axis=0))


def test_empty_clusters_start_again_at_the_farthest_vectors():
    vectors = np.array([[0, 0], [0.5, 0], [9, 0], [0, 7], [0, 0.5]], np.float32)
    centroids = np.array([[0, 0], [-90, 0], [-91, 0]], np.float32)
    found = lloyd_round(vectors, centroids, chunk=2)
    np.testing.assert_allclose(found, [vectors.mean(0), [9, 0], [0, 7]], atol=1e-6)


def test_more_clusters_than_vectors():
    vectors = jnp.asarray([[0.0, 1.0], [2.0, 3.0]])
    centroids = kmeans(vectors, 5, jax.random.key(0), iterations=2)
    assert np.isfinite(centroids).all() and float(assign(vectors, centroids)[1].max()) == 0.0
