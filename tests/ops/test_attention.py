"""Blocked attention equals the plain definition, and segments never see each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.attention.dense import attend_keys, attention, attention_reference, pointwise_attention
from recjax.ops.attention.pairs import GapBias, log_bucket


def _inputs(rows=3, heads=2, length=50, width=8):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(rows, heads, length, width)).astype(np.float32) for _ in range(3))
    segments = np.zeros((rows, length), np.int32)
    segments[0] = 1
    segments[1, :20], segments[1, 20:45] = 1, 2
    segments[2, :7], segments[2, 7:30], segments[2, 30:41] = 1, 2, 3
    return q, k, v, segments


def _reference(q, k, v, segments, causal):
    allowed = segments[:, :, None] == segments[:, None, :]
    if causal:
        allowed &= np.tril(np.ones(allowed.shape[1:], bool))
    swap = lambda x: x.swapaxes(1, 2)  # noqa: E731
    return swap(attention_reference(swap(q), swap(k), swap(v), allowed))


@pytest.mark.parametrize(("causal", "blocks"), [(True, (16, 64)), (False, (16,))])
def test_equals_reference_in_value_and_gradient(causal, blocks):
    q, k, v, segments = _inputs()
    probe = np.cos(np.arange(v.size, dtype=np.float32).reshape(v.shape) / 7)

    @partial(jax.jit, static_argnums=0)
    def graded(function, *arrays):
        def total(*arrays):
            values = function(*arrays)
            return jnp.sum(values * probe), values

        return jax.grad(total, argnums=(0, 1, 2), has_aux=True)(*arrays)

    expected, plain = graded(lambda q, k, v: _reference(q, k, v, segments, causal), q, k, v)
    for block in blocks:
        ours = partial(attention, segments=segments, causal=causal, block=block)
        got, values = graded(ours, q, k, v)
        np.testing.assert_allclose(values, plain, rtol=2e-5, atol=2e-6)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_causality_and_segments_are_exact():
    q, k, v, segments = _inputs()
    function = jax.jit(lambda k, v: attention(q, k, v, segments, block=16))
    before = np.asarray(function(k, v))
    k[2, :, 10] += 3.0
    v[2, :, 10] -= 5.0
    after = np.asarray(function(k, v))
    changed = np.any(before != after, axis=(1, 3))
    assert not changed[[0, 1]].any()
    assert not changed[2, :10].any() and changed[2, 10:30].all() and not changed[2, 30:].any()


def test_last_position_equals_the_full_result():
    q, k, v, segments = _inputs()
    last, rows = np.array([49, 44, 40]), np.arange(3)
    full = np.asarray(jax.jit(partial(attention, block=16))(q, k, v, segments))[rows, :, last]
    allowed = (segments == segments[rows, last][:, None]) & (np.arange(50)[None] <= last[:, None])
    alone = np.asarray(jax.jit(attend_keys)(q[rows, :, last][:, :, None], (k,), (v,), allowed[:, None]))
    np.testing.assert_allclose(alone[:, :, 0], full, rtol=1e-5, atol=1e-6)


def test_dropout_keeps_the_mean():
    q, k, v, segments = (x[:1] for x in _inputs())
    plain = jax.jit(attention)(q, k, v, segments)
    draw = jax.jit(lambda keys: jax.vmap(lambda key: attention(q, k, v, segments, dropout=0.3, key=key))(keys))
    draws = np.asarray(draw(jax.random.split(jax.random.key(0), 1600)))
    assert not np.allclose(draws[0], draws[1])
    np.testing.assert_allclose(np.mean(draws, axis=0)[0], plain[0], atol=0.15)


ROWS, HEADS, LENGTH, CHANNELS = 2, 2, 24, 4
HISTORIES = np.array([[1] * 14 + [2] * 10, [0] * 2 + [1] * 15 + [0] * 7], np.int32)
SECONDS = np.cumsum(np.random.default_rng(5).integers(0, 4000, (ROWS, LENGTH)), axis=1).astype(np.int32)
CASES = {
    "grouped-first": {"groups": 1, "window": 5, "first": 2},
    "both-sides": {"causal": False, "window": 6},
    "items": {"slots": 2, "window": 3},
    "pointwise": {"share": 1 / 50, "window": 7},
}


def _definition(xp, q, k, v, events, times, *, groups=HEADS, causal=True, slots=1, window=99, first=0, share=None):
    """Every pair, with NumPy in float64 or to be differentiated; gaps below 16 are told apart, times by 2 an octave."""
    k, v = (xp.repeat(x, HEADS // groups, axis=1) for x in (k, v))
    items = np.arange(LENGTH) // slots
    gap = items[:, None] - items[None]
    begins = np.array([[np.argmax(row == number) for number in row] for row in HISTORIES])
    allowed = (np.abs(gap) < window) | (np.arange(LENGTH)[None, None] < begins[:, :, None] + first)
    allowed = allowed & (HISTORIES[:, :, None] == HISTORIES[:, None]) & ((gap >= 0) | (not causal))
    seconds = SECONDS[:, :, None] - SECONDS[:, None]
    steps = np.maximum(np.abs(seconds), 1)
    octave = np.floor(np.log2(steps) + 1e-9).astype(int)
    bucket = np.where(steps < 2, np.abs(seconds), 2 * octave + (steps >= 1.5 * 2.0**octave))
    places = np.where((gap < 0) & (not causal), 128 - gap, np.maximum(gap, 0))
    buckets = np.where((seconds < 0) & (not causal), 64 + bucket, np.where(seconds < 0, 0, bucket))
    bias = events[:, places][None] + xp.moveaxis(times[:, buckets], 0, 1)
    scores = xp.einsum("bhlc,bhmc->bhlm", q, k)
    if share is not None:
        scores = scores + bias
        return xp.einsum("bhlm,bhmc->bhlc", xp.where(allowed[:, None], scores / (1 + xp.exp(-scores)) * share, 0), v)
    scores = xp.where(allowed[:, None], scores / np.sqrt(CHANNELS) + bias, -np.inf)
    weights = xp.exp(scores - scores.max(-1, keepdims=True))
    return xp.einsum("bhlm,bhmc->bhlc", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("case", CASES)
def test_options_equal_the_definition_in_value_and_gradient(case):
    """In blocks of queries, and with the keys of a block one block at a time."""
    options = CASES[case]
    rng = np.random.default_rng(2)
    groups, sides = options.get("groups", HEADS), 1 if options.get("causal", True) else 2
    shapes = [(ROWS, heads, LENGTH, CHANNELS) for heads in (HEADS, groups, groups)]
    inputs = [rng.normal(size=shape) for shape in (*shapes, (HEADS, sides * 128), (1, sides * 64))]
    probe = (
        np.cos(np.arange(ROWS * HEADS * LENGTH * CHANNELS).reshape(shapes[0]) / 7.0) * (HISTORIES > 0)[:, None, :, None]
    )
    function = pointwise_attention if "share" in options else attention
    passed = {name: value for name, value in options.items() if name != "groups"}

    def ours(long, q, k, v, events, times):
        bias = GapBias(events, times, jnp.asarray(SECONDS), signed=sides == 2)
        out = function(q, k, v, jnp.asarray(HISTORIES), bias=bias, block=8, long=long, **passed)
        return jnp.sum(out * probe), out

    def plain(*inputs):
        return jnp.sum(_definition(jnp, *inputs, **options) * probe)

    @jax.jit
    def everything(*inputs):
        places = (0, 1, 2, 3, 4)
        graded = [jax.value_and_grad(partial(ours, long), places, has_aux=True)(*inputs) for long in (0, 1024)]
        return jax.grad(plain, places)(*inputs), graded

    wanted = _definition(np, *inputs, **options)
    gradients, found = everything(*(x.astype(np.float32) for x in inputs))
    for (_, out), got in found:
        np.testing.assert_allclose(np.asarray(out) * (probe != 0), wanted * (probe != 0), rtol=2e-5, atol=2e-6)
        for a, b in zip(got, gradients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_buckets_grow_by_octaves_and_lose_no_gap():
    gaps = np.arange(5000)
    for bits in (1, 3):
        buckets = np.asarray(jax.jit(log_bucket, static_argnums=1)(gaps, bits))
        np.testing.assert_array_equal(buckets[: 2 ** (bits + 1)], gaps[: 2 ** (bits + 1)])
        assert set(np.diff(buckets)) == {0, 1}
        np.testing.assert_array_equal(buckets[2048], buckets[1024] + 2**bits)
    assert int(log_bucket(jnp.asarray(2**31 - 1), 1)) == 61
