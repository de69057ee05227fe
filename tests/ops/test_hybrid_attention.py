"""Hybrid attention equals a float64 definition, holds no square array in long rows, and keeps segments apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.attention.dense import LONG, attend_keys, attention, pointwise_attention
from recjax.ops.attention.pairs import GapBias
from recjax.typing import InputError

SLOTS, ITEMS = 4, 13
LENGTH = SLOTS * ITEMS
SEGMENTS = np.repeat([[1] * 13, [1] * 5 + [2] * 6 + [0] * 2, [1] * 2 + [2] * 6 + [3] * 3 + [0] * 2], SLOTS, axis=1)


def _inputs():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(3, 2, LENGTH, 8)), jnp.float32) for _ in range(3))


def _definition(q, k, v, segments, slots):
    """Token by token, float64: a token sees the tokens of its segment whose item is its own or an earlier one."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    output = np.zeros_like(v)
    for row in range(q.shape[0]):
        for i in range(q.shape[2]):
            sees = [j for j in range(q.shape[2]) if segments[row, j] == segments[row, i] and j // slots <= i // slots]
            scores = np.einsum("hc,hmc->hm", q[row, :, i], k[row][:, sees]) / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            output[row, :, i] = np.einsum("hm,hmc->hc", weights, v[row][:, sees])
    return output


def _dense(q, k, v, segments, slots):
    """The same with one explicit mask, to be differentiated; the value is checked against `_definition`."""
    items = jnp.arange(q.shape[2]) // slots
    allowed = (segments[:, :, None] == segments[:, None, :]) & (items[:, None] >= items[None])
    scores = jnp.einsum("bhlc,bhmc->bhlm", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("bhlm,bhmc->bhlc", jax.nn.softmax(jnp.where(allowed[:, None], scores, -jnp.inf)), v)


PATHS = {
    "blocks": lambda q, k, v, s: attention(q, k, v, s, slots=SLOTS, block=18),
    "one-block": lambda q, k, v, s: attention(q, k, v, s, slots=SLOTS),
    "online": lambda q, k, v, s: attention(q, k, v, s, slots=SLOTS, block=18, long=0),
}


@pytest.mark.parametrize("path", PATHS)
def test_equals_the_definition_in_value_and_gradient(path):
    (q, k, v), segments = _inputs(), jnp.asarray(SEGMENTS)
    probe = jnp.cos(jnp.arange(v.size).reshape(v.shape) / 7.0)
    expected = _definition(q, k, v, SEGMENTS, SLOTS)
    np.testing.assert_allclose(PATHS[path](q, k, v, segments), expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(_dense(q, k, v, segments, SLOTS), expected, rtol=2e-5, atol=2e-6)

    def gradient(function):
        return jax.jit(jax.grad(lambda q, k, v: jnp.sum(function(q, k, v) * probe), argnums=(0, 1, 2)))(q, k, v)

    ours = gradient(lambda q, k, v: PATHS[path](q, k, v, segments))
    theirs = gradient(lambda q, k, v: _dense(q, k, v, segments, SLOTS))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_both_directions_inside_an_item_and_only_the_past_between_items():
    (q, k, v), segments = _inputs(), jnp.asarray(SEGMENTS)
    for path in ("blocks", "online"):
        function = jax.jit(lambda k, v, path=path: PATHS[path](q, k, v, segments))
        before = np.asarray(function(k, v))
        token = SLOTS * 3 + 2  # the third token of row 2's fourth item, in its second segment
        after = np.asarray(function(k.at[2, :, token].add(3.0), v.at[2, :, token].add(-5.0)))
        changed = np.any(before != after, axis=(1, 3))
        assert not changed[:2].any()
        assert changed[2, SLOTS * 3 : SLOTS * 8].all()
        assert not changed[2, : SLOTS * 3].any() and not changed[2, SLOTS * 8 :].any()


def test_last_item_equals_the_full_result():
    (q, k, v), segments = _inputs(), jnp.asarray(SEGMENTS)
    full = attention(q, k, v, segments, slots=SLOTS)
    last = np.array([12, 10, 7])
    tokens = last[:, None] * SLOTS + np.arange(SLOTS)
    items = np.arange(LENGTH) // SLOTS
    allowed = (SEGMENTS[np.arange(3), tokens[:, 0]][:, None] == SEGMENTS) & (items[None] <= last[:, None])
    pick = lambda x: jnp.take_along_axis(x, jnp.asarray(tokens)[:, None, :, None], axis=2)  # noqa: E731
    last = attend_keys(pick(q), (k,), (v,), jnp.asarray(allowed)[:, None])
    np.testing.assert_allclose(last, pick(full), rtol=1e-5, atol=1e-6)


def _shapes(jaxpr):
    """Shapes of everything a program computes, programs inside it included."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield getattr(variable.aval, "shape", ())
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _shapes(inner)


LONG_ROWS = {
    "hybrid": lambda q, s, bias, key: attention(q, q, q, s, slots=SLOTS, dropout=0.1, key=key),
    "window": lambda q, s, bias, key: attention(q, q, q, s, bias=bias, window=200, first=2, dropout=0.1, key=key),
    "both-sides": lambda q, s, bias, key: attention(q, q, q, s, causal=False),
    "pointwise": lambda q, s, bias, key: pointwise_attention(q, q, q, s, bias=bias, share=0.01),
}


@pytest.mark.parametrize("name", LONG_ROWS)
def test_long_rows_hold_no_square_array(name):
    length = LONG + 8 * SLOTS
    x = jnp.zeros((1, 1, length, 8))
    segments = jnp.ones((1, length), jnp.int32)

    def loss(q, table, key):
        return jnp.sum(LONG_ROWS[name](q, segments, GapBias(table, table, segments), key) ** 2)

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, jnp.zeros((1, 128)), jax.random.key(0))
    shapes = list(_shapes(program.jaxpr))
    assert max(map(np.prod, shapes)) < length * length / 4
    assert not [shape for shape in shapes if sum(size >= length for size in shape) > 1]
    squares = list(_shapes(jax.make_jaxpr(lambda x: _dense(x, x, x, segments, SLOTS))(x).jaxpr))
    assert [shape for shape in squares if sum(size >= length for size in shape) > 1]  # the search can find one


def test_dropout_keeps_the_mean_and_its_gradient_is_that_of_the_value():
    q, k, v = (x[:1, :1] for x in _inputs())
    segments = jnp.asarray(SEGMENTS[:1])

    def online(q, key):
        return attention(q, k, v, segments, slots=SLOTS, block=16, long=0, dropout=0.3, key=key)

    plain = online(q, None)
    draws = jax.jit(jax.vmap(online, in_axes=(None, 0)))(q, jax.random.split(jax.random.key(0), 64))
    assert not np.allclose(draws[0], draws[1])
    assert np.mean(np.abs(np.mean(draws, axis=0) - plain)) < 0.05 < np.mean(np.abs(draws[0] - plain))
    key, direction = jax.random.key(3), jnp.sin(jnp.arange(q.size).reshape(q.shape))
    total = jax.jit(lambda q: jnp.sum(online(q, key) * jnp.cos(direction)))
    numeric = (total(q + 1e-2 * direction) - total(q - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(jnp.sum(jax.grad(total)(q) * direction), numeric, rtol=2e-2)
    short = jax.jit(lambda key: attention(q, k, v, segments, slots=SLOTS, dropout=0.3, key=key))
    assert not np.allclose(short(jax.random.key(0)), short(jax.random.key(1)))


def test_half_precision_stays_near_single():
    (q, k, v), segments = _inputs(), jnp.asarray(SEGMENTS)
    for path in ("blocks", "online"):
        half = PATHS[path](*(x.astype(jnp.bfloat16) for x in (q, k, v)), segments)
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half.astype(jnp.float32), PATHS[path](q, k, v, segments), atol=0.05)


def test_rows_that_cut_an_item_are_refused():
    (q, k, v), segments = _inputs(), jnp.asarray(SEGMENTS)
    with pytest.raises(InputError, match="rows of 52 tokens do not hold whole items of 5 tokens"):
        attention(q, k, v, segments, slots=5)
