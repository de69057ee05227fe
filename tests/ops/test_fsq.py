"""Finite scalar quantisation against a float64 reference written out digit by digit."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.fsq import bound, centred, check_levels, code_of, digits_of, place_values, round_through
from recjax.typing import InputError

PUBLISHED = (8, 8, 8, 6, 5)


def reference_bound(z: float, levels: int, kind: str) -> float:
    if kind == "sigmoid":
        return (levels - 1) / (1 + math.exp(-z))
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = 0.5 if levels % 2 == 0 else 0.0
    value = math.tanh(z + math.tan(offset / half)) * half - offset  # around 0
    return value + levels // 2


@pytest.mark.parametrize("kind", ["tanh", "sigmoid"])
def test_bound_equals_the_reference_and_uses_every_level(kind):
    z = np.linspace(-9, 9, 701)
    values = np.asarray(bound(jnp.asarray(np.repeat(z[:, None], 5, 1), jnp.float32), PUBLISHED, kind))
    expected = [[reference_bound(number, levels, kind) for levels in PUBLISHED] for number in z]
    np.testing.assert_allclose(values, expected, atol=2e-5)
    for dimension, levels in enumerate(PUBLISHED):
        digits = np.round(values[:, dimension])
        assert set(digits) == set(range(levels))
        assert (np.diff(digits) >= 0).all()


def test_zero_stands_on_a_level_not_between_two():
    middle = np.asarray(bound(jnp.zeros(5), PUBLISHED, "tanh"))
    np.testing.assert_allclose(middle, [4, 4, 4, 3, 2], atol=0.02)


def test_published_place_values_and_codes():
    assert place_values(PUBLISHED) == (1, 8, 64, 512, 3072)
    assert math.prod(PUBLISHED) == 15_360
    digits = np.array([[7, 7, 7, 5, 4], [0, 0, 0, 0, 0], [1, 2, 3, 4, 0]])
    np.testing.assert_array_equal(code_of(jnp.asarray(digits), PUBLISHED), [15_359, 0, 1 + 16 + 192 + 2048])


def test_codes_and_digits_are_inverse():
    levels = (3, 2, 4)
    digits = np.array([tuple(reversed(row)) for row in itertools.product(*map(range, reversed(levels)))])
    codes = np.asarray(code_of(jnp.asarray(digits), levels))
    np.testing.assert_array_equal(codes, np.arange(24))
    np.testing.assert_array_equal(digits_of(jnp.asarray(codes), levels), digits)


def test_rounding_lets_the_gradient_through():
    x = jnp.array([0.2, 1.7, 2.5])
    np.testing.assert_array_equal(round_through(x), [0.0, 2.0, 2.0])
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(round_through(x) * jnp.array([1.0, 2, 3])))(x), [1, 2, 3])


def test_centred_digits():
    np.testing.assert_allclose(centred(jnp.array([0.0, 8 - 1, 2]), (8, 8, 5)), [-1, 0.75, 0])


def test_levels_and_bounds_that_cannot_be():
    for levels in ((), (8, 1), (2**16, 2**16)):
        with pytest.raises(InputError, match="levels"):
            check_levels(levels)
    with pytest.raises(InputError, match="'relu', expected one of: tanh, sigmoid"):
        bound(jnp.zeros(1), (3,), "relu")  # type: ignore[arg-type]
