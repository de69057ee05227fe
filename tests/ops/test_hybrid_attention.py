"""Hybrid attention equals a float64 definition, holds no square array in long rows, and keeps segments apart."""

from functools import cache

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
    return tuple(rng.normal(size=(3, 2, LENGTH, 8)).astype(np.float32) for _ in range(3))


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
    items = np.arange(q.shape[2]) // slots
    allowed = (segments[:, :, None] == segments[:, None, :]) & (items[:, None] >= items[None])
    scores = jnp.einsum("bhlc,bhmc->bhlm", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("bhlm,bhmc->bhlc", jax.nn.softmax(jnp.where(allowed[:, None], scores, -jnp.inf)), v)


PATHS = {
    "blocks": lambda q, k, v, s: attention(q, k, v, s, slots=SLOTS, block=18),
    "one-block": lambda q, k, v, s: attention(q, k, v, s, slots=SLOTS),
    "online": lambda q, k, v, s: attention(q, k, v, s, slots=SLOTS, block=18, long=0),
}


@cache
def _compiled(path: str):
    """Compiled: q, k, v -> values of a path, or of the definition with a mask, and gradients of a weighted sum."""
    function = PATHS.get(path, lambda q, k, v, s: _dense(q, k, v, s, SLOTS))

    def total(q, k, v):
        values = function(q, k, v, SEGMENTS)
        return jnp.sum(values * np.cos(np.arange(v.size, dtype=np.float32).reshape(v.shape) / 7)), values

    return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))


def _values(path: str, q, k, v) -> np.ndarray:
    return np.asarray(_compiled(path)(q, k, v)[1])


@pytest.mark.parametrize("path", PATHS)
def test_equals_the_definition_in_value_and_gradient(path):
    expected = _definition(*_inputs(), SEGMENTS, SLOTS)
    (ours, values), (theirs, dense) = (_compiled(each)(*_inputs()) for each in (path, "dense"))
    np.testing.assert_allclose(values, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(dense, expected, rtol=2e-5, atol=2e-6)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_both_directions_inside_an_item_and_only_the_past_between_items():
    for path in ("blocks", "online"):
        q, k, v = _inputs()
        before = _values(path, q, k, v)
        token = SLOTS * 3 + 2  # the third token of row 2's fourth item, in its second segment
        k[2, :, token] += 3.0
        v[2, :, token] -= 5.0
        changed = np.any(before != _values(path, q, k, v), axis=(1, 3))
        assert not changed[:2].any()
        assert changed[2, SLOTS * 3 : SLOTS * 8].all()
        assert not changed[2, : SLOTS * 3].any() and not changed[2, SLOTS * 8 :].any()


def test_last_item_equals_the_full_result():
    q, k, v = _inputs()
    full = _values("one-block", q, k, v)
    last = np.array([12, 10, 7])
    tokens = last[:, None] * SLOTS + np.arange(SLOTS)
    items = np.arange(LENGTH) // SLOTS
    allowed = (SEGMENTS[np.arange(3), tokens[:, 0]][:, None] == SEGMENTS) & (items[None] <= last[:, None])
    pick = lambda x: np.take_along_axis(x, tokens[:, None, :, None], axis=2)  # noqa: E731
    found = jax.jit(attend_keys)(pick(q), (k,), (v,), allowed[:, None])
    np.testing.assert_allclose(found, pick(full), rtol=1e-5, atol=1e-6)


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
    x, segments = np.zeros((1, 1, length, 8), np.float32), jnp.asarray(np.ones((1, length), np.int32))

    def loss(q, table, key):
        return jnp.sum(LONG_ROWS[name](q, segments, GapBias(table, table, segments), key) ** 2)

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, np.zeros((1, 128), np.float32), jax.random.key(0))
    shapes = list(_shapes(program.jaxpr))
    assert max(map(np.prod, shapes)) < length * length / 4
    assert not [shape for shape in shapes if sum(size >= length for size in shape) > 1]
    squares = list(_shapes(jax.make_jaxpr(lambda x: _dense(x, x, x, segments, SLOTS))(x).jaxpr))
    assert [shape for shape in squares if sum(size >= length for size in shape) > 1]  # the search can find one


def test_dropout_keeps_the_mean_and_its_gradient_is_that_of_the_value():
    q, k, v = (x[:1, :1] for x in _inputs())
    segments = SEGMENTS[:1]

    def online(q, key):
        return attention(q, k, v, segments, slots=SLOTS, block=16, long=0, dropout=0.3, key=key)

    plain = np.asarray(jax.jit(lambda q: online(q, None))(q))
    draws = np.asarray(jax.jit(jax.vmap(online, in_axes=(None, 0)))(q, jax.random.split(jax.random.key(0), 64)))
    assert not np.allclose(draws[0], draws[1])
    assert np.mean(np.abs(np.mean(draws, axis=0) - plain)) < 0.05 < np.mean(np.abs(draws[0] - plain))
    key, direction = jax.random.key(3), np.sin(np.arange(q.size, dtype=np.float32).reshape(q.shape))
    total = jax.jit(jax.value_and_grad(lambda q: jnp.sum(online(q, key) * np.cos(direction))))
    numeric = (float(total(q + 1e-2 * direction)[0]) - float(total(q - 1e-2 * direction)[0])) / 2e-2
    np.testing.assert_allclose(np.sum(np.asarray(total(q)[1]) * direction), numeric, rtol=2e-2)
    short = jax.jit(lambda key: attention(q, k, v, segments, slots=SLOTS, dropout=0.3, key=key))
    assert not np.allclose(short(jax.random.key(0)), short(jax.random.key(1)))


def test_half_precision_stays_near_single():
    for path in ("blocks", "online"):
        halves = (x.astype(jnp.bfloat16) for x in _inputs())
        half = jax.jit(PATHS[path])(*halves, SEGMENTS)
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(half, np.float32), _values(path, *_inputs()), atol=0.05)


def test_rows_that_cut_an_item_are_refused():
    with pytest.raises(InputError, match="rows of 52 tokens do not hold whole items of 5 tokens"):
        attention(*_inputs(), SEGMENTS, slots=5)
