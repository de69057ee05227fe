"""Blocked attention equals the plain definition, and segments never see each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.attention import attend_last, attention, attention_reference


def _inputs(rows=3, heads=2, length=50, width=8):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(rows, heads, length, width)), jnp.float32) for _ in range(3))
    segments = np.zeros((rows, length), np.int32)
    segments[0] = 1
    segments[1, :20], segments[1, 20:45] = 1, 2
    segments[2, :7], segments[2, 7:30], segments[2, 30:41] = 1, 2, 3
    return q, k, v, jnp.asarray(segments)


def _reference(q, k, v, segments, causal):
    allowed = segments[:, :, None] == segments[:, None, :]
    if causal:
        allowed &= np.tril(np.ones(allowed.shape[1:], bool))
    swap = lambda x: x.swapaxes(1, 2)  # noqa: E731
    return swap(attention_reference(swap(q), swap(k), swap(v), allowed))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("block", [16, 64])
def test_equals_reference_in_value_and_gradient(causal, block):
    q, k, v, segments = _inputs()
    probe = jnp.cos(jnp.arange(v.size).reshape(v.shape) / 7.0)

    def total(function):
        return lambda q, k, v: jnp.sum(function(q, k, v) * probe)

    ours = lambda q, k, v: attention(q, k, v, segments, causal=causal, block=block)  # noqa: E731
    plain = lambda q, k, v: _reference(q, k, v, segments, causal)  # noqa: E731
    np.testing.assert_allclose(ours(q, k, v), plain(q, k, v), rtol=2e-5, atol=2e-6)
    got = jax.jit(jax.grad(total(ours), argnums=(0, 1, 2)))(q, k, v)
    expected = jax.grad(total(plain), argnums=(0, 1, 2))(q, k, v)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_causality_and_segments_are_exact():
    q, k, v, segments = _inputs()
    function = jax.jit(lambda k, v: attention(q, k, v, segments, block=16))
    before = np.asarray(function(k, v))
    after = np.asarray(function(k.at[2, :, 10].add(3.0), v.at[2, :, 10].add(-5.0)))
    changed = np.any(before != after, axis=(1, 3))
    assert not changed[[0, 1]].any()
    assert not changed[2, :10].any() and changed[2, 10:30].all() and not changed[2, 30:].any()


def test_last_position_equals_the_full_result():
    q, k, v, segments = _inputs()
    last = jnp.asarray([49, 44, 40])
    rows = jnp.arange(3)
    full = attention(q, k, v, segments, block=16)[rows, :, last]
    allowed = (segments == segments[rows, last][:, None]) & (jnp.arange(50)[None] <= last[:, None])
    np.testing.assert_allclose(attend_last(q[rows, :, last], k, v, allowed), full, rtol=1e-5, atol=1e-6)


def test_dropout_keeps_the_mean():
    q, k, v, segments = _inputs(rows=3)
    plain = attention(q, k, v, segments)
    draws = [attention(q, k, v, segments, dropout=0.3, key=jax.random.key(i)) for i in range(400)]
    assert not np.allclose(draws[0], draws[1])
    np.testing.assert_allclose(np.mean(draws, axis=0)[0], plain[0], atol=0.15)
