"""The chunked normaliser of a catalog equals the dense one, in value and gradient, on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from recjax.ops.items.chunked_logsumexp import log_partition

ROWS, TOKENS, WIDTH, CODES = 64, 16, 6, 10
START, SIZE = 9, 31


def represent(weights, rows):
    return jnp.concatenate([rows["vectors"], weights[rows["codes"]]], axis=-1)


def _problem():
    rng = np.random.default_rng(0)
    rows = {
        "vectors": rng.normal(size=(ROWS, WIDTH)).astype(np.float32),
        "codes": rng.integers(0, CODES, ROWS).astype(np.int32),
    }
    weights = rng.normal(size=(CODES, 3)).astype(np.float32)
    hidden = rng.normal(size=(TOKENS, WIDTH + 3)).astype(np.float32)
    excluded = rng.integers(0, SIZE + 1, (TOKENS, 5)).astype(np.int32)
    excluded[:, 1] = excluded[:, 0]  # a repeat counts once
    return weights, rows, hidden, excluded


def _dense(weights, rows, hidden, excluded):
    items = represent(weights, rows)[START + 1 : START + 1 + SIZE]
    scores = hidden @ items.T
    barred = jnp.any(excluded[:, :, None] == jnp.arange(1, SIZE + 1), axis=1)
    return jax.nn.logsumexp(jnp.where(barred, -jnp.inf, scores), axis=-1)


def _value_and_grads(function):
    weights, rows, hidden, excluded = _problem()
    factor = jnp.linspace(-1, 1, TOKENS)
    return jax.jit(jax.value_and_grad(lambda w, h: jnp.sum(factor * function(w, rows, h, excluded)), argnums=(0, 1)))(
        weights, hidden
    )


@pytest.mark.parametrize(("shape", "chunk"), [((1, 1, 1), 7), ((1, 1, 1), 4096), ((4, 2, 1), 5), ((2, 4, 1), 16)])
def test_chunked_is_dense(shape, chunk):
    expected = _value_and_grads(_dense)
    axes = ("data", "model", "seq")
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * 3, devices=devices)

    def chunked(weights, rows, hidden, excluded):
        limits = jnp.int32(START), jnp.int32(SIZE)
        return log_partition(represent, weights, rows, hidden, excluded, *limits, chunk=chunk)

    with jax.set_mesh(mesh):
        found = _value_and_grads(chunked)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_rows_of_other_catalogs_change_nothing():
    weights, rows, hidden, excluded = jax.tree.map(jnp.asarray, _problem())
    damaged = {name: np.array(value) for name, value in rows.items()}
    damaged["vectors"][: START + 1] = 1e6
    damaged["vectors"][START + SIZE + 1 :] = np.nan
    values = [
        log_partition(represent, weights, table, hidden, excluded, jnp.int32(START), jnp.int32(SIZE), chunk=8)
        for table in (rows, damaged)
    ]
    np.testing.assert_array_equal(*values)
