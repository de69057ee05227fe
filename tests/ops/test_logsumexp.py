"""Running sums of exponentials equal their definition, history by history, on one device and over a sharded axis."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.ops.scan import running_logsumexp
from recjax.ops.scan.running_logsumexp import NOTHING, cumulative_logsumexp

SEGMENTS = np.array([[1] * 5 + [2] * 6 + [0] * 5, [0] * 3 + [1] * 13])
VALID = SEGMENTS > 0
# Row 1 goes on with a history from before.
STARTS = np.array([[t in (0, 5) for t in range(16)], [False] * 16])


def _inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 16, 3)) * [1, 20, 300]
    return jnp.asarray(x, jnp.float32), jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)


def _dense(x, z0, initial):
    """By a masked sum over the past for each position."""
    seen = np.tril(np.ones((16, 16), bool)) & (SEGMENTS[:, :, None] == SEGMENTS[:, None, :]) & VALID[:, None, :]
    # Padding hands on what stands before it.
    seen[0, 11:] = seen[0, 10]
    terms = jnp.where(seen[..., None], x[:, None], NOTHING)
    first = jnp.stack([jnp.full((16, 3), initial), jnp.broadcast_to(z0[1], (16, 3))])
    return jax.nn.logsumexp(jnp.concatenate([terms, first[:, :, None]], axis=2), axis=2)


def _graded(function):
    probe = jnp.cos(jnp.arange(96.0)).reshape(2, 16, 3)

    def total(x, z0):
        z = function(x, z0)
        return jnp.sum(z * probe), z

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


def _run(x, z0, initial):
    return cumulative_logsumexp(x, z0=z0, starts=jnp.asarray(STARTS), valid=jnp.asarray(VALID), initial=initial)


@pytest.mark.parametrize(("form", "initial"), [("_loop", NOTHING), ("_tree", 0.0)])
def test_equals_the_definition_in_value_and_gradient(form, initial, monkeypatch):
    monkeypatch.setattr(running_logsumexp, "_local", getattr(running_logsumexp, form))
    got = _graded(partial(_run, initial=initial))(*_inputs())
    expected = _graded(partial(_dense, initial=initial))(*_inputs())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4), got, expected)


def test_sharded_over_time_equals_one_device():
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    expected = _graded(partial(_run, initial=0.0))(*_inputs())
    with jax.set_mesh(mesh):
        x, z0 = _inputs()
        x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", "seq")))
        z0 = jax.device_put(z0, NamedSharding(mesh, PartitionSpec("data")))
        got = _graded(partial(_run, initial=0.0))(x, z0)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4), got, expected)
