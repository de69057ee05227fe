"""Forms for XLA:CPU compute what the plain ones do, and are left out elsewhere."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.nn.dense import Dense
from recjax.ops import products
from recjax.ops.mesh_axes import platform
from recjax.ops.products import row_max, transposed

RANDOM = np.random.default_rng(0)


def test_forms_are_exact(monkeypatch):
    x = RANDOM.normal(size=(5, 33)).astype(np.float32)
    x[1], x[2, 7] = -np.inf, np.inf
    for name in ("cpu", "tpu"):
        monkeypatch.setattr(products, "platform", lambda name=name: name)
        found = jax.jit(lambda x: (row_max(x), transposed(x), row_max(x.astype(jnp.bfloat16))))(x)
        np.testing.assert_array_equal(found[0], x.max(axis=1))
        np.testing.assert_array_equal(found[1], x.T)
        assert found[2].dtype == jnp.bfloat16
        text = jax.jit(lambda x: (row_max(x), transposed(x))).lower(x).as_text()
        assert ("optimization_barrier" in text) == ("compare" in text) == (name == "cpu")
    assert platform() == "cpu"


def test_what_is_not_a_number_stays_found():
    """By whoever exponentiates: the maximum may be a number, the difference to it is not."""
    x = np.array([[1.0, np.nan, 3.0], [np.nan, 2.0, 1.0]], np.float32)
    assert np.isnan(np.sum(np.exp(x - np.asarray(row_max(x))[:, None]), axis=1)).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (4, 2, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_layer_is_the_plain_one(shape, dtype):
    """Outputs and gradients, of positions [b, l, d] on any mesh and of vectors, twice differentiated too."""
    x, dy = (RANDOM.normal(size=(4, 8, size)).astype(np.float32) for size in (6, 10))
    ours, plain = (layer(10, dtype=jnp.dtype(dtype)) for layer in (Dense, nn.Dense))
    params = plain.init(jax.random.key(0), x)

    def loss(params, x, layer):
        return jnp.sum(jnp.square(layer.apply(params, x).astype(jnp.float32) - dy))

    def curved(x, layer):
        return jnp.sum(jnp.square(jax.grad(loss, 1)(params, x, layer)))

    mesh = jax.make_mesh(shape, ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", "seq")))
        found, expected = (
            jax.jit(jax.value_and_grad(lambda *given, layer=layer: loss(*given, layer), (0, 1)))(params, placed)
            for layer in (ours, plain)
        )
        text = jax.jit(jax.grad(lambda x: loss(params, x, ours))).lower(placed).as_text()
    assert ("optimization_barrier" in text) == (shape[2] == 1)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance), found, expected)
    if dtype == "float32" and shape == (1, 1, 1):
        second = [jax.jit(jax.grad(lambda x, layer=layer: curved(x, layer)))(x) for layer in (ours, plain)]
        np.testing.assert_allclose(*second, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(ours.apply(params, x[0, 0]), plain.apply(params, x[0, 0]), rtol=1e-6)
