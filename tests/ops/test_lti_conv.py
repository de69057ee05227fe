"""Convolution by transforms and by products of matrices equals the sum it stands for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.ops.scan.lti_conv import lti_conv
from recjax.typing import InputError


def _inputs(length: int, sides: int, rows: int = 3, width: int = 4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, length, width)), rng.normal(size=(width, sides, length))


def _direct(u: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The definition in float64."""
    y = np.zeros_like(u)
    for t in range(u.shape[1]):
        for s in range(u.shape[1]):
            if s <= t:
                y[:, t] += kernel[:, 0, t - s] * u[:, s]
            elif kernel.shape[1] == 2:
                y[:, t] += kernel[:, 1, s - t - 1] * u[:, s]
    return y


@pytest.mark.parametrize("impl", ["fft", "toeplitz"])
@pytest.mark.parametrize(("length", "sides"), [(17, 1), (16, 2)])
def test_equals_the_direct_sum(impl, length, sides):
    u, kernel = _inputs(length, sides)
    probe = np.random.default_rng(1).normal(size=u.shape)
    value = lambda u, kernel: (jnp.sum((y := lti_conv(u, kernel, impl)) * probe), y)  # noqa: E731
    run = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
    (_, y), (du, dkernel) = run(jnp.asarray(u, jnp.float32), jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(y, _direct(u, kernel), atol=2e-5)
    # It is linear in both: a gradient's product with a direction is the sum in that direction.
    u_way, kernel_way = _inputs(length, sides)[0][::-1], np.random.default_rng(2).normal(size=kernel.shape)
    np.testing.assert_allclose(np.sum(du * u_way), np.sum(_direct(u_way, kernel) * probe), rtol=1e-4)
    np.testing.assert_allclose(np.sum(dkernel * kernel_way), np.sum(_direct(u, kernel_way) * probe), rtol=1e-4)


def test_short_rows_keep_the_past_bit_by_bit():
    u, kernel = _inputs(40, 1)
    later = u.copy()
    later[:, 25:] += 1.0
    run = jax.jit(lti_conv)
    before, after = (np.asarray(run(jnp.asarray(x, jnp.float32), jnp.asarray(kernel))) for x in (u, later))
    np.testing.assert_array_equal(before[:, :25], after[:, :25])


def test_bfloat16_inputs_are_convolved_in_float32():
    u, kernel = (jnp.asarray(x, jnp.bfloat16) for x in _inputs(80, 1))
    y = jax.jit(lti_conv)(u, kernel)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, _direct(np.asarray(u, float), np.asarray(kernel, float)), atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 2, 1), (2, 2, 2)])
def test_transforms_are_not_gathered(shape):
    """Rows over the data axis, channels over the model axis; a mesh with a `seq` axis gives the same."""
    mesh = jax.make_mesh(shape, ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    u, kernel = (jnp.asarray(x, jnp.float32) for x in _inputs(80, 1, rows=8))
    total = lambda u, kernel: jnp.sum(jnp.square(lti_conv(u, kernel)))  # noqa: E731
    expected = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(u, kernel)
    with jax.set_mesh(mesh):
        u = jax.device_put(u, NamedSharding(mesh, PartitionSpec("data", None, "model")))
        kernel = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec("model")))
        compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(u, kernel).compile()
        found, text = compiled(u, kernel), compiled.as_text() or ""
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)
    assert "fft" in text and not re.search(r"all-gather|all-to-all|collective-permute", text)


def test_bad_input_is_refused():
    u, kernel = map(jnp.asarray, _inputs(8, 1))
    with pytest.raises(InputError, match="no convolution is called 'fast'"):
        lti_conv(u, kernel, "fast")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="fits no inputs"):
        lti_conv(u[:, :7], kernel)
