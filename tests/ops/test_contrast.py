"""Contrastive losses and divergences against float64, with nothing of what has weight 0, the same on every mesh."""

import doctest
from functools import cache, partial

import jax
import numpy as np
import pytest

from recjax.ops import contrast
from recjax.ops.contrast import gaussian_kl, gaussian_w2, info_nce, prototype_info_nce, score_kl
from recjax.parallel.mesh import MeshShape

ROWS, WIDTH, CLUSTERS = 12, 5, 4


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


ONES, OTHERS = draws(0, ROWS, WIDTH), draws(1, ROWS, WIDTH)
GROUPS = np.array([0, 1, 0, 2, 3, 3, 3, 4, 5, 6, 7, 1], np.int32)
WEIGHTS = np.array([1, 0.5, 2, 0, 1, 1, 0, 1, 1, 1, 1, 3], np.float32)


def test_the_examples_of_the_docstrings():
    result = doctest.testmod(contrast)
    assert result.attempted >= 8 and not result.failed


def by_hand(anchors, partners, temperature, weights, groups, within) -> np.ndarray:
    losses = np.zeros(ROWS)
    anchors, partners = anchors.astype(np.float64), partners.astype(np.float64)
    for i in range(ROWS):
        positive = np.exp(anchors[i] @ partners[i] / temperature)
        total = positive
        for j in range(ROWS):
            if j != i and weights[j] > 0 and groups[j] != groups[i]:
                total += np.exp(anchors[i] @ partners[j] / temperature)
                total += np.exp(anchors[i] @ anchors[j] / temperature) if within else 0.0
        losses[i] = -weights[i] * np.log(positive / total)
    return losses


@pytest.mark.parametrize("within", [False, True])
def test_info_nce_equals_its_definition(within):
    @jax.jit
    def both(ones, others):
        found = info_nce(ones, others, temperature=0.7, weights=WEIGHTS, groups=GROUPS, within=within)
        return found, info_nce(ones, others, within=within)

    found, plain = both(ONES, OTHERS)
    np.testing.assert_allclose(found, by_hand(ONES, OTHERS, 0.7, WEIGHTS, GROUPS, within), rtol=1e-5, atol=1e-6)
    expected = by_hand(ONES, OTHERS, 1.0, np.ones(ROWS), np.arange(ROWS), within)
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-6)


def test_prototypes_of_the_batch_and_of_all():
    centroids, assignments = draws(2, CLUSTERS, WIDTH), GROUPS % CLUSTERS
    order = np.array([2, 0, 3, 1])

    @jax.jit
    def everything(ones, centroids):
        of_batch = prototype_info_nce(ones, centroids, assignments, temperature=0.7, weights=WEIGHTS)
        of_all = prototype_info_nce(ones, centroids, assignments, weights=WEIGHTS, negatives="prototypes")
        names = []
        for negatives in ("batch", "prototypes"):
            loss = partial(prototype_info_nce, ones, negatives=negatives)
            renamed = loss(centroids[order], np.argsort(order)[assignments])
            grads = jax.grad(lambda c, loss=loss: loss(c, assignments).sum())(centroids)
            names.append((loss(centroids, assignments), renamed, grads))
        return of_batch, of_all, names

    of_batch, of_all, names = everything(ONES, centroids)
    expected = by_hand(ONES, centroids[assignments], 0.7, WEIGHTS, assignments, False)
    np.testing.assert_allclose(of_batch, expected, rtol=1e-5, atol=1e-6)
    logits = ONES.astype(np.float64) @ centroids.T
    expected = WEIGHTS * (np.logaddexp.reduce(logits, axis=1) - logits[np.arange(ROWS), assignments])
    np.testing.assert_allclose(of_all, expected, rtol=1e-5, atol=1e-6)
    # Names of clusters mean nothing, and centroids are not trained.
    for found, renamed, grads in names:
        np.testing.assert_allclose(found, renamed, rtol=1e-6)
        assert not np.asarray(grads).any()


def test_divergences_equal_their_definitions():
    mask = draws(3, ROWS, WIDTH) > -1
    mask[:, 0] = True
    p, q = (np.where(mask, np.exp(x.astype(np.float64)), 0) for x in (ONES, OTHERS))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    expected = WEIGHTS * np.where(mask, p * np.log(np.where(mask, p, 1) / np.where(mask, q, 1)), 0).sum(1)
    deviations = [np.exp(draws(seed, ROWS, WIDTH)) for seed in (4, 5)]
    inputs = (ONES, deviations[0], OTHERS, deviations[1])

    @jax.jit
    def everything(*inputs):
        m, s, n, _ = inputs
        same = gaussian_kl(m, s, m, s), gaussian_w2(m, s, m, s)
        one = gaussian_kl(*(x[0] for x in inputs))
        scores = score_kl(m, n, mask=mask, weights=WEIGHTS)
        return scores, gaussian_kl(*inputs, weights=WEIGHTS), gaussian_w2(*inputs), same, one

    scores, kl, w2, same, one = jax.device_get(everything(*inputs))
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)
    m, s, n, t = (x.astype(np.float64) for x in inputs)
    expected = WEIGHTS * (np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum(1)
    np.testing.assert_allclose(kl, expected, rtol=1e-4)
    np.testing.assert_allclose(w2, ((m - n) ** 2 + (s - t) ** 2).sum(1), rtol=1e-5)
    assert not np.any(same)
    # KL(p || q) = E_p[log p - log q].
    z = m[0] + s[0] * np.random.default_rng(0).normal(size=(200_000, WIDTH))
    logs = [-0.5 * ((z - a) / b) ** 2 - np.log(b) for a, b in ((m[0], s[0]), (n[0], t[0]))]
    sampled = (logs[0] - logs[1]).sum(1)
    error = 5 * sampled.std() / np.sqrt(len(sampled))
    assert abs(float(one) - sampled.mean()) < error


WIDE = np.exp(draws(6, ROWS, WIDTH))
LOSSES = {
    "pairs": lambda a, b, w: info_nce(a, b, weights=w, groups=GROUPS, within=True),
    "batch": lambda a, b, w: prototype_info_nce(a, b[:CLUSTERS], GROUPS % CLUSTERS, weights=w),
    "prototypes": lambda a, b, w: prototype_info_nce(
        a, b[:CLUSTERS], GROUPS % CLUSTERS, weights=w, negatives="prototypes"
    ),
    "scores": lambda a, b, w: score_kl(a, b, weights=w),
    "kl": lambda a, b, w: gaussian_kl(a, WIDE, b, 2 * WIDE, weights=w),
    "w2": lambda a, b, w: gaussian_w2(WIDE, a, 2 * WIDE, b, weights=w),
}


@cache
def graded(name: str):
    """Compiled: the sum of a loss and its gradients."""
    return jax.jit(jax.value_and_grad(lambda a, b: LOSSES[name](a, b, WEIGHTS).sum(), argnums=(0, 1)))


@pytest.mark.parametrize("name", LOSSES)
def test_what_has_weight_0_gets_no_gradient_and_changes_nothing(name):
    gone = WEIGHTS == 0
    grad = graded(name)
    value, grads = grad(ONES, OTHERS)
    if name not in ("prototypes", "batch"):
        assert not np.asarray(grads[1])[gone].any() and np.asarray(grads[1])[~gone].any(axis=1).all()
    assert not np.asarray(grads[0])[gone].any() and np.asarray(grads[0])[~gone].any(axis=1).all()
    spoiled = ONES.copy(), OTHERS.copy()
    spoiled[0][gone] = np.nan
    if name not in ("prototypes", "batch"):
        spoiled[1][gone] = np.inf
    again, others = grad(*spoiled)
    np.testing.assert_array_equal(again, value)
    jax.tree.map(np.testing.assert_array_equal, others, grads)


@pytest.mark.parametrize("name", ["pairs", "batch"])
def test_a_batch_is_the_same_on_one_device_and_on_a_mesh(name):
    expected = graded(name)(ONES, OTHERS)
    mesh = MeshShape(4, 2, 1).build()
    with jax.set_mesh(mesh):
        rows = jax.device_put((ONES, OTHERS), jax.NamedSharding(mesh, jax.P("data")))
        found = graded(name)(*rows)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)
