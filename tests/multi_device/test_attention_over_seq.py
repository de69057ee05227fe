"""Attention whose positions are spread over the mesh's `seq` axis equals that of one device."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.ops.attention.dense import attention
from recjax.ops.attention.pairs import GapBias

ROWS, LENGTH = 2, 24
SEGMENTS = np.array([[1] * 14 + [2] * 10, [1] * 15 + [0] * 9], np.int32)
SECONDS = np.cumsum(np.random.default_rng(5).integers(0, 4000, SEGMENTS.shape), axis=1).astype(np.int32)


def _loss(q, k, v, events, times, segments, seconds, key=None):
    """With everything at once: groups, a window, first events, both biases."""
    bias = GapBias(events, times, seconds)
    out = attention(q, k, v, segments, window=9, first=2, bias=bias, block=8, dropout=0.5, key=key)
    probe = jnp.cos(jnp.arange(out.size).reshape(out.shape) / 7.0) * (segments > 0)[:, None, :, None]
    return jnp.sum(out * probe), out


def test_equals_one_device_in_value_and_gradient():
    rng = np.random.default_rng(0)
    shapes = [(ROWS, heads, LENGTH, 4) for heads in (2, 1, 1)] + [(2, 128), (1, 64)]
    inputs = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    graded = jax.value_and_grad(_loss, argnums=(0, 1, 2, 3, 4), has_aux=True)
    (_, out), expected = jax.jit(graded)(*inputs, SEGMENTS, SECONDS)
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        place = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))  # noqa: E731
        spread = [place(x, "data", None, "seq") for x in inputs[:3]] + [place(x) for x in inputs[3:]]
        marks = [place(x, "data", "seq") for x in (SEGMENTS, SECONDS)]
        (_, found), got = jax.jit(graded)(*spread, *marks)
        assert found.sharding.spec[2] == "seq"
        dropped = jax.eval_shape(_loss, *spread, *marks, jax.random.key(0))
    np.testing.assert_allclose(found, out, rtol=1e-5, atol=1e-5)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)
    assert dropped[1].shape == out.shape
