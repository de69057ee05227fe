"""Advantages of groups: sums of 0, gradients where hits are rare, and divergences that are never negative."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from recjax.ops.policy import clipped_loss, group_advantages, kl_estimate, pass_advantages


def test_advantages_of_a_group_sum_to_zero():
    rewards = np.random.default_rng(0).integers(0, 3, (20, 6)).astype(np.float32)
    found = np.asarray(jax.jit(group_advantages)(rewards))
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-5)
    hits = np.arange(10) < np.arange(11)[:, None]
    found = np.asarray(jax.jit(lambda hits: pass_advantages(hits, 4))(hits))
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-5)
    assert not found[0].any() and not found[7:].any() and found[1:7, 0].all()


def test_pass_advantages_are_means_over_all_subsets():
    hits = np.array([True, True, False, False, False, False])
    subsets = list(combinations(range(6), 3))
    passed = np.array([float(hits[list(each)].any()) for each in subsets])
    scaled = (passed - passed.mean()) / passed.std()
    own = [np.mean([value for value, each in zip(scaled, subsets, strict=True) if i in each]) for i in range(6)]
    np.testing.assert_allclose(pass_advantages(jnp.asarray(hits), 3), own, atol=1e-5)


def test_where_no_sample_is_right_prefixes_have_a_gradient_and_plain_rewards_none():
    arm, target = np.arange(8), np.array([3, 7])  # two digits each: tens and units of 200 arms, none of them right
    drawn = np.stack([arm % 5, arm], axis=1)
    exact = (drawn == target).all(axis=1).astype(np.float32)
    prefix = np.sqrt(np.cumprod(drawn == target, axis=1).mean(axis=1)).astype(np.float32)
    assert not exact.any() and not np.asarray(group_advantages(jnp.asarray(exact))).any()
    assert np.asarray(group_advantages(jnp.asarray(prefix)))[3] > 1
    gradient = jax.grad(lambda x: jnp.sum(clipped_loss(x, group_advantages(jnp.asarray(prefix)))))(jnp.zeros(8))
    assert gradient[3] < 0 < gradient[0]


def test_clipping_and_divergence():
    grads = jax.vmap(jax.grad(clipped_loss), (0, 0))(jnp.log(jnp.array([1.3, 1.3, 0.7])), jnp.array([1.0, -1.0, -1.0]))
    assert grads[0] == 0 and grads[1] > 0 and grads[2] == 0
    chances, other = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2])
    mean = float(np.sum(chances * np.asarray(kl_estimate(jnp.log(chances), jnp.log(other)))))
    np.testing.assert_allclose(mean, np.sum(chances * np.log(chances / other)), rtol=1e-5)
