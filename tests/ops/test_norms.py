import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops import norms
from recjax.ops.norms import global_norm
from recjax.parallel.mesh import MeshShape


def tree(rows=256):
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "table": jax.random.normal(keys[0], (rows, 24)) * 3,
        "kernel": jax.random.normal(keys[1], (5, 7)),
        "scalar": jax.random.normal(keys[2], ()),
        "half": jnp.full((128,), 0.1, jnp.bfloat16),
    }


def expected(tree):
    return np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in jax.tree.leaves(tree)))


@pytest.mark.parametrize("large", [1, 2**20])
@pytest.mark.parametrize("rows", [256, 250])
def test_is_the_norm_of_everything(monkeypatch, large, rows):
    monkeypatch.setattr(norms, "LARGE", large)
    np.testing.assert_allclose(jax.jit(global_norm)(tree(rows)), expected(tree(rows)), rtol=1e-5)
    assert global_norm({}) == 0


@pytest.mark.parametrize("model", [1, 4])
def test_on_a_mesh(monkeypatch, model):
    monkeypatch.setattr(norms, "LARGE", 1)
    with jax.set_mesh(MeshShape(model=model).build()):
        np.testing.assert_allclose(jax.jit(global_norm)(tree()), expected(tree()), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows(monkeypatch, bad):
    monkeypatch.setattr(norms, "LARGE", 1)
    values = tree()
    values["table"] = values["table"].at[130, 3].set(bad)
    assert not np.isfinite(global_norm(values))


def test_a_large_gradient_is_not_copied():
    memory = jax.jit(global_norm).lower(jnp.ones((2**15, 64))).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2**20  # the squares would take 8 MiB
