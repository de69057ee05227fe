"""Hashed dropout masks behave like independent coin throws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.dropout import dropout, keep_mask


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate(rate):
    kept = np.asarray(keep_mask(jax.random.key(3), (1000, 200), rate)).mean()
    assert abs(kept - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / 200_000)


def test_neighbours_rows_and_keys_are_uncorrelated():
    a = np.asarray(keep_mask(jax.random.key(0), (512, 512), 0.5)).astype(float) - 0.5
    b = np.asarray(keep_mask(jax.random.key(1), (512, 512), 0.5)).astype(float) - 0.5
    bound = 4 * 0.25 / 512
    for x, y in [(a[:, 1:], a[:, :-1]), (a[1:], a[:-1]), (a, b), (a[:, 64:], a[:, :-64])]:
        assert abs((x * y).mean()) < bound


def test_same_key_same_mask_and_identity_without_key():
    x = jnp.ones((4, 8))
    np.testing.assert_array_equal(dropout(x, 0.5, jax.random.key(5)), dropout(x, 0.5, jax.random.key(5)))
    np.testing.assert_array_equal(dropout(x, 0.5, None), x)
    assert set(np.unique(dropout(x, 0.5, jax.random.key(5)))) == {0.0, 2.0}
