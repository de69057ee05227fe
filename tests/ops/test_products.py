"""Forms for XLA:CPU compute what the plain ones do, and are left out elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np

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
