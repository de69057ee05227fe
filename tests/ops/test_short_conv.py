"""The short causal convolution: its definition, histories, states, and a sharded time axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.ops.scan.short_conv import short_conv
from recjax.typing import InputError

WIDTH, LENGTH, CHANNELS = 4, 16, 3
SEGMENTS = np.array([[1] * 7 + [2] * 9, [0] * 2 + [1] * 14])
STARTS = (np.diff(SEGMENTS, axis=1, prepend=0) != 0) & (SEGMENTS > 0)


def _inputs():
    rng = np.random.default_rng(0)
    shapes = ((2, LENGTH, CHANNELS), (WIDTH, CHANNELS), (CHANNELS,))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _definition(x, kernel, bias):
    y = np.zeros(x.shape)
    for row in range(x.shape[0]):
        for t in range(LENGTH):
            y[row, t] = bias
            for back in range(min(WIDTH, t + 1)):
                if SEGMENTS[row, t - back] == SEGMENTS[row, t]:
                    y[row, t] += kernel[back] * x[row, t - back]
    return y


@jax.jit
def _run(x, kernel, bias):
    return short_conv(x, kernel, bias, starts=STARTS)[0]


def test_equals_the_definition_and_isolates_histories():
    x, kernel, bias = _inputs()
    x[1, 0], x[0, 5] = np.nan, np.inf
    expected = _definition(*(np.asarray(a, np.float64) for a in (x, kernel, bias)))
    y = np.asarray(_run(x, kernel, bias))
    np.testing.assert_allclose(y[1, 2:], expected[1, 2:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y[0, 7:], expected[0, 7:], rtol=1e-5, atol=1e-6)
    assert np.isfinite(y[0, :5]).all() and not np.isfinite(y[0, 5:7]).any()


def test_goes_on_from_the_inputs_before():
    x, kernel, bias = _inputs()
    whole = np.asarray(jax.jit(short_conv)(x, kernel, bias)[0])
    run = jax.jit(lambda x, first, state, events: short_conv(x, kernel, bias, starts=first, state=state, events=events))
    state, outputs = np.full((2, WIDTH - 1, CHANNELS), 7, np.float32), []
    # Of each chunk of 5, row 1 has two events fewer than row 0: the rest of it is padding.
    for start, first in ((0, True), (5, False), (10, False)):
        flags = (np.arange(5) == 0) & np.full((2, 1), first)
        rows = np.stack([x[0, start : start + 5], x[1, start * 3 // 5 : start * 3 // 5 + 5]])
        y, state = jax.device_get(run(rows, flags, state, np.array([5, 3])))
        outputs.append(y)
    np.testing.assert_allclose(np.concatenate([y[0] for y in outputs]), whole[0, :15], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([y[1, :3] for y in outputs]), whole[1, :9], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state, np.stack([x[0, 12:15], x[1, 6:9]]))
    again = jax.jit(lambda x, state: short_conv(x, kernel, starts=np.array([[True], [False]]), state=state)[1])
    short = jax.device_get(again(x[:, :1], state))
    assert short is not None
    np.testing.assert_array_equal(short[0], np.stack([0 * x[0, 0], 0 * x[0, 0], x[0, 0]]))
    np.testing.assert_array_equal(short[1, :2], state[1, 1:])


def test_sharded_over_time_equals_one_device():
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    x, kernel, bias = _inputs()

    def total(x, kernel, bias, starts):
        y = short_conv(x, kernel, bias, starts=starts)[0]
        return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

    graded = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
    expected = graded(x, kernel, bias, STARTS)
    with jax.set_mesh(mesh):
        x, starts = jax.device_put((x, STARTS), NamedSharding(mesh, PartitionSpec("data", "seq")))
        compiled = graded.lower(x, kernel, bias, starts).compile()
        got, text = compiled(x, kernel, bias, starts), compiled.as_text() or ""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, expected)
    assert "collective-permute" in text and "all-gather" not in text and "all-to-all" not in text


def test_shapes_that_do_not_fit_are_refused():
    x, kernel, _ = _inputs()
    with pytest.raises(InputError, match="fits no inputs"):
        short_conv(x, kernel[:, :2])
    with pytest.raises(InputError, match="a state of shape"):
        short_conv(x, kernel, state=jnp.zeros((2, 2, CHANNELS)))
