"""Mixers that compare events with each other equal their definitions, written out with NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.mixers.attention import Attention
from recjax.mixers.hstu import HSTU
from recjax.mixers.hybrid import HybridAttention
from recjax.mixers.linformer import Linformer
from recjax.mixers.memory import MemoryAttention
from recjax.mixers.mixer import SeqContext
from recjax.mixers.performer import Performer, directions
from recjax.mixers.reformer import Reformer
from recjax.mixers.stack import Encoder, Stack
from recjax.mixers.static_mixing import StaticMixing
from recjax.ops.attention.block_memory import Reach, block_memory_attention
from recjax.ops.attention.dense import attention
from recjax.ops.attention.lsh import hashes, lsh_attention
from recjax.typing import InputError
from tests.drawn import drawn_for

WIDTH, LENGTH = 8, 12
SEGMENTS = np.array([[1] * 7 + [2] * 5, [1] * 9 + [0] * 3], np.int32)
SECONDS = np.cumsum(np.random.default_rng(1).integers(0, 9000, SEGMENTS.shape), axis=1).astype(np.int32)
CAUSAL = (SEGMENTS[:, :, None] == SEGMENTS[:, None]) & np.tril(np.ones((LENGTH, LENGTH), bool))


def _context(length: int = LENGTH, segments=SEGMENTS) -> SeqContext:
    grow = lambda x: jnp.asarray(np.pad(x, ((0, 0), (0, length - LENGTH))))  # noqa: E731
    return SeqContext(grow(segments), grow(np.tile(np.arange(LENGTH), (2, 1))), grow(SECONDS))


def _x(length: int = LENGTH) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)
    return np.pad(x, ((0, 0), (0, length - LENGTH), (0, 0)))


def _built(config, causal: bool = True, context: SeqContext | None = None):
    """The mixer's module, and parameters none of which is zero."""
    module = config.build(width=WIDTH, causal=causal, dtype=jnp.float32, name=None)
    params = drawn_for(module.init, jax.random.key(0), _x(), _context() if context is None else context)
    random = np.random.default_rng(1)
    return module, jax.tree.map(lambda p: p + 0.3 * random.standard_normal(p.shape, np.float32), params)


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _dense(params, name: str, x: np.ndarray) -> np.ndarray:
    part = params["params"][name]
    return x @ np.asarray(part["kernel"], np.float64) + np.asarray(part.get("bias", 0.0), np.float64)


def test_queries_of_intervals_are_the_time_since_the_event_before():
    """By the equations; ten times the intervals attend otherwise, and without any an event is the mean of the past."""
    module, params = _built(Attention(heads=2, query="interval"))
    x, apply = _x().astype(np.float64), jax.jit(module.apply)

    def found(params, scale):
        context = _context()
        return np.asarray(
            apply(params, _x(), SeqContext(context.segments, context.positions, scale * context.timestamps))
        )

    gap = np.diff(SECONDS, axis=1, prepend=0) / 86400 * ((SEGMENTS > 0) & (np.diff(SEGMENTS, axis=1, prepend=-1) == 0))
    part = params["params"]["interval"]
    inner = np.log1p(gap)[..., None] @ np.asarray(part["inner"]["kernel"], np.float64)
    gelu = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))  # the usual approximation
    outer = gelu @ np.asarray(part["outer"]["kernel"], np.float64)
    normed = (outer - outer.mean(-1, keepdims=True)) / np.sqrt(outer.var(-1, keepdims=True) + 1e-6)
    normed = normed * np.asarray(part["norm"]["scale"]) + np.asarray(part["norm"]["bias"])
    heads = lambda z: z.reshape(2, LENGTH, 2, -1).swapaxes(1, 2)  # noqa: E731
    query, key, value = (heads(_dense(params, name, y)) for name, y in (("query", normed), ("key", x), ("value", x)))
    assert all("bias" not in params["params"][name] for name in ("query", "key", "value"))
    weights = _softmax(np.where(CAUSAL[:, None], query @ key.swapaxes(2, 3) / np.sqrt(WIDTH / 2), -1e30))
    expected = _dense(params, "output", (weights @ value).swapaxes(1, 2).reshape(2, LENGTH, WIDTH))
    events = SEGMENTS > 0
    np.testing.assert_allclose(found(params, 1)[events], expected[events], rtol=1e-4, atol=1e-4)
    assert abs(found(params, 1) - found(params, 10))[events].max() > 1e-2
    fresh = jax.jit(module.init)(jax.random.key(0), _x(), _context())
    shares = CAUSAL / np.maximum(CAUSAL.sum(axis=2, keepdims=True), 1)
    mean = _dense(fresh, "output", shares @ _dense(fresh, "value", x))
    np.testing.assert_allclose(found(fresh, 0)[events], mean[events], rtol=1e-4, atol=1e-5)


def test_hstu_is_its_equations_and_n_is_a_constant_of_the_model():
    module, params = _built(HSTU(heads=2, channels=3, max_length=50, window=4))
    x = _x().astype(np.float64)
    silu = lambda z: z / (1 + np.exp(-z))  # noqa: E731
    u, v, q, k = np.split(silu(_dense(params, "uvqk", x)), 4, axis=-1)
    gap = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    seconds = np.maximum(SECONDS[:, :, None] - SECONDS[:, None], 0)
    octave = np.floor(np.log2(np.maximum(seconds, 1)) + 1e-9).astype(int)
    bucket = np.where(seconds < 2, seconds, 2 * octave + (seconds >= 1.5 * 2.0**octave))
    events, times = (np.asarray(params["params"][name], np.float64)[0] for name in ("event_bias", "time_bias"))
    bias = events[np.maximum(gap, 0)] + times[bucket]
    mixed = []
    for head in (slice(0, 3), slice(3, 6)):
        weights = silu(q[..., head] @ k[..., head].swapaxes(1, 2) + bias) / 50 * (CAUSAL & (gap < 4))
        mixed.append(weights @ v[..., head])
    mixed = np.concatenate(mixed, axis=-1)
    mixed = mixed - mixed.mean(-1, keepdims=True)
    mixed /= np.sqrt(np.square(mixed).mean(-1, keepdims=True) + 1e-6)
    expected = _dense(params, "output", u * mixed)
    for length in (LENGTH, 20):
        found = np.asarray(jax.jit(module.apply)(params, _x(length), _context(length)))[:, :LENGTH]
        np.testing.assert_allclose(found[SEGMENTS > 0], expected[SEGMENTS > 0], rtol=1e-4, atol=1e-5)


def test_a_stack_of_mixers_alone_has_no_feed_forward_network():
    stack = Stack((HSTU(max_length=LENGTH),), 2, WIDTH, True, "pre", inner=0)
    params = jax.eval_shape(Encoder(stack).init, jax.random.key(0), _x(), _context())["params"]
    assert set(params["block_1"]) == {"mixer", "mixer_norm"}


@pytest.mark.parametrize(
    ("config", "rows"),
    [(Attention(window=5), 5), (Attention(window=5, first=2), 7), (HSTU(window=6), 6), (Attention(), 40)],
)
def test_a_window_bounds_the_state(config, rows):
    state = config.init_state(width=WIDTH, rows=2, max_length=40, dtype=jnp.float32)
    assert sum(cache.room for cache in state) == rows
    assert config.capabilities.memory == ("history" if config.window is None else "constant")


def test_a_full_history_forgets_its_oldest_events_as_a_window_does():
    module, params = _built(Attention(heads=2))
    windowed = Attention(heads=2, window=4).build(width=WIDTH, causal=True, dtype=jnp.float32, name=None)  # pyright: ignore
    context = _context(segments=np.ones_like(SEGMENTS))
    expected = jax.jit(windowed.apply)(params, _x(), context)
    state = Attention(heads=2).init_state(width=WIDTH, rows=2, max_length=4, dtype=jnp.float32)
    step = jax.jit(lambda x, context, state: module.apply(params, x, context, state=state))
    for index in range(8):
        y, state = step(_x()[:, index : index + 1], jax.tree.map(lambda a, i=index: a[:, i : i + 1], context), state)
    np.testing.assert_allclose(y[:, 0], expected[:, 7], rtol=1e-5, atol=1e-5)


def test_hybrid_attention_goes_on_item_by_item():
    config = HybridAttention(heads=2, slots=2)
    segments = np.where(np.arange(LENGTH) < np.array([[12], [8]]), 1, 0)
    positions = jnp.asarray(np.tile(np.arange(LENGTH) // 2, (2, 1)))
    context = SeqContext(jnp.asarray(segments), positions)
    module, params = _built(config, context=context)
    expected = np.asarray(jax.jit(module.apply)(params, _x(), context))
    state, found = config.init_state(width=WIDTH, rows=2, max_length=LENGTH // 2, dtype=jnp.float32), []
    step = jax.jit(lambda x, context, state: module.apply(params, x, context, state=state))
    for start in range(0, LENGTH, 4):
        part = jax.tree.map(lambda a, s=start: a[:, s : s + 4], context)
        y, state = step(_x()[:, start : start + 4], part, state)
        found.append(y)
    found = np.concatenate(found, axis=1)
    np.testing.assert_allclose(found[segments > 0], expected[segments > 0], rtol=1e-5, atol=1e-5)


def test_block_memory_is_its_definition():
    initial, window, block, top = reach = Reach(initial=3, window=4, block=3, top=2)
    rng = np.random.default_rng(3)
    q, k, v = rng.normal(size=(3, 2, 2, 29, 4))
    expected = np.zeros_like(v)
    for row, head, i in np.ndindex(2, 2, 29):
        outside = i - window
        sees = set(range(max(outside + 1, 0), i + 1)) | set(range(min(initial, i + 1)))
        starts = [s for s in range(0, 29, block) if s <= outside and s + block > initial]
        match = {s: q[row, head, i] @ k[row, head, s : s + block].mean(0) for s in starts}
        for s in sorted(match, key=match.__getitem__)[-top:]:
            sees |= {j for j in range(s, s + block) if j <= outside}
        sees = sorted(sees)
        expected[row, head, i] = _softmax(k[row, head, sees] @ q[row, head, i] / 2.0) @ v[row, head, sees]
    single = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    run = jax.jit(block_memory_attention, static_argnums=(4,), static_argnames=("chunk",))
    found = run(*single, jnp.zeros(2, jnp.int32), reach, chunk=8)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    later = run(single[0][:, :, 20:], *single[1:], jnp.full(2, 20), reach, chunk=8)
    np.testing.assert_allclose(later, expected[:, :, 20:], rtol=1e-4, atol=1e-5)
    whole = run(*single, jnp.zeros(2, jnp.int32), reach._replace(top=9), chunk=8)
    np.testing.assert_allclose(whole, attention(*single, jnp.ones((2, 29), jnp.int32)), rtol=1e-4, atol=1e-5)


def test_performer_is_its_definition_and_its_features_estimate_the_softmax():
    phi = lambda z, drawn: np.exp(z @ drawn.T - np.square(z).sum(-1, keepdims=True) / 2)  # noqa: E731
    module, params = _built(Performer(features=6, seed=1))
    x = _x().astype(np.float64)
    q, k = (_dense(params, name, x) / WIDTH**0.25 for name in ("query", "key"))
    drawn = directions(1, 6, WIDTH)
    weights = CAUSAL * (phi(q, drawn) @ phi(k, drawn).swapaxes(1, 2))
    expected = _dense(params, "output", weights / weights.sum(-1, keepdims=True) @ _dense(params, "value", x))
    found = np.asarray(jax.jit(module.apply)(params, _x(), _context()))
    np.testing.assert_allclose(found[SEGMENTS > 0], expected[SEGMENTS > 0], rtol=1e-3, atol=1e-3)
    drawn, q, k = directions(2, 4096, WIDTH), 0.15 * x[0], 0.15 * x[1]
    np.testing.assert_allclose(phi(q, drawn) @ phi(k, drawn).T / 4096, np.exp(q @ k.T), rtol=0.05)
    block = drawn[:WIDTH] / np.linalg.norm(drawn[:WIDTH], axis=1, keepdims=True)
    np.testing.assert_allclose(block @ block.T, np.eye(WIDTH), atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_lsh_attention_is_its_definition(causal):
    rng = np.random.default_rng(4)
    q, v = rng.normal(size=(2, 2, 2, LENGTH, 4))
    rotations = rng.normal(size=(2, 4, 1)).astype(np.float32)
    buckets = np.asarray(hashes(jnp.asarray(q, jnp.float32), jnp.asarray(rotations)))
    np.testing.assert_array_equal(buckets[..., 0], (np.einsum("bhlc,rc->rbhl", q, rotations[..., 0]) < 0)[..., 0])
    key = q / np.linalg.norm(q, axis=-1, keepdims=True)
    expected = np.zeros_like(v)
    for row, head, i in np.ndindex(2, 2, LENGTH):
        scores, values = [], []
        for found in buckets[:, row, head]:
            alike = [j for j in range(LENGTH) if found[j] == found[i] and SEGMENTS[row, j] == SEGMENTS[row, i]]
            near = [j for n, j in enumerate(alike) if abs(n - alike.index(i)) < 3 and (j <= i or not causal)]
            scores += [-1e5 if j == i else q[row, head, i] @ key[row, head, j] / 2.0 for j in near]
            values += [v[row, head, j] for j in near]
        expected[row, head, i] = _softmax(np.array(scores)) @ np.array(values)
    single = [jnp.asarray(x, jnp.float32) for x in (q, v)]
    run = jax.jit(lambda *x: lsh_attention(*x, jnp.asarray(SEGMENTS), jnp.asarray(rotations), window=3, causal=causal))
    np.testing.assert_allclose(run(*single), expected, rtol=1e-4, atol=1e-5)


def test_linformer_is_its_definition_and_padding_adds_nothing():
    segments = np.where(np.arange(LENGTH) < np.array([[12], [7]]), 1, 0)
    context = _context(segments=segments)
    module, params = _built(Linformer(length=16, rank=3), causal=False, context=context)
    x = _x().astype(np.float64)
    valid = (segments > 0)[..., None]
    key, value = (
        np.einsum(
            "lr,blc->brc",
            np.asarray(params["params"][f"{name}_mixtures"], np.float64)[:LENGTH],
            _dense(params, name, x) * valid,
        )
        for name in ("key", "value")
    )
    weights = _softmax(_dense(params, "query", x) @ key.swapaxes(1, 2) / np.sqrt(WIDTH))
    expected = _dense(params, "output", weights @ value)
    run = jax.jit(module.apply)
    np.testing.assert_allclose(run(params, _x(), context), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        run(params, np.where(valid, _x(), 9.0), context)[1, :7], expected[1, :7], rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InputError, match="rows have 20 positions; this Linformer knows 16"):
        module.init(jax.random.key(0), _x(20), _context(20))


def test_static_mixing_weighs_events_without_looking_at_them():
    module, params = _built(StaticMixing("uniform", heads=2))
    x = _x().astype(np.float64)
    values = _dense(params, "value", x)
    mean = CAUSAL / CAUSAL.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        jax.jit(module.apply)(params, _x(), _context()), _dense(params, "output", mean @ values), rtol=1e-4, atol=1e-5
    )
    module, params = _built(StaticMixing("position"))
    bias = np.asarray(params["params"]["event_bias"], np.float64)[0]
    gap = np.maximum(np.arange(LENGTH)[:, None] - np.arange(LENGTH), 0)
    weights = _softmax(np.where(CAUSAL, bias[gap], -np.inf))
    expected = _dense(params, "output", weights @ _dense(params, "value", x))
    np.testing.assert_allclose(jax.jit(module.apply)(params, _x(), _context()), expected, rtol=1e-4, atol=1e-5)
    assert "query" not in _built(StaticMixing("random"))[1]["params"]


def test_wrong_settings_are_named():
    with pytest.raises(InputError, match="relative is 'time', expected one of 'none', 'events', 'times', 'both'"):
        Attention(relative="time")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="kv_heads is 3, expected a number that divides the 4 attention heads"):
        Attention(heads=4, kv_heads=3)
    with pytest.raises(InputError, match="first is 2, expected 0"):
        Attention(first=2)
    with pytest.raises(InputError, match="Attention cannot be bidirectional"):
        Stack((Attention(window=4, first=1),), 1, WIDTH, False, "pre", WIDTH)
    with pytest.raises(InputError, match="hstu reads timestamps and the batch has none"):
        _built(HSTU(), context=SeqContext(*map(jnp.asarray, (SEGMENTS, SEGMENTS))))
    with pytest.raises(InputError, match="block is 9, expected at most the window's 8 events"):
        MemoryAttention(window=8, block=9)
    with pytest.raises(InputError, match="buckets is 3"):
        Reformer(buckets=3)
