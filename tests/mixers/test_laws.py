"""The laws that every mixer keeps, whatever it computes. A new mixer joins by a line in `MIXERS`."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.mixers.attention import Attention
from recjax.mixers.gla import GatedLinearAttention
from recjax.mixers.hstu import HSTU
from recjax.mixers.hybrid import HybridAttention
from recjax.mixers.lightnet import LightNet
from recjax.mixers.linear_attention import LinearAttention
from recjax.mixers.linformer import Linformer
from recjax.mixers.lru import LRU
from recjax.mixers.mamba2 import Mamba2
from recjax.mixers.memory import MemoryAttention
from recjax.mixers.mixer import SeqContext
from recjax.mixers.parts.axes import Axis
from recjax.mixers.performer import Performer
from recjax.mixers.reformer import Reformer
from recjax.mixers.retention import Retention
from recjax.mixers.rg_lru import RGLRU
from recjax.mixers.s4 import S4
from recjax.mixers.s4d import S4D
from recjax.mixers.s5 import S5
from recjax.mixers.stack import Encoder, Stack
from recjax.mixers.static_mixing import StaticMixing
from recjax.mixers.toeplitz import Toeplitz
from recjax.typing import InputError
from tests.drawn import drawn

WIDTH, LENGTH = 8, 16
MIXERS = {
    "attention": Attention(heads=2),
    "attention-rotary": Attention(heads=2, kv_heads=1, positions="rotary"),
    "attention-relative": Attention(heads=2, relative="both"),
    "attention-interval": Attention(heads=2, query="interval", window=12),
    "attention-window": Attention(heads=2, positions="rotary", window=5, first=2),
    "hstu": HSTU(heads=2, max_length=LENGTH),
    "hstu-window": HSTU(max_length=LENGTH, window=5),
    "hybrid": HybridAttention(heads=2, slots=1),
    "s4": S4(states=8),
    "s4d": S4D(states=8, systems=2),
    "lru": LRU(state=6),
    "rg_lru": RGLRU(heads=2),
    "s5": S5(blocks=2, times=True),
    "linformer": Linformer(heads=2, length=LENGTH, rank=4),
    "memory": MemoryAttention(heads=2, initial=1, window=4, block=2, top=2),
    "performer": Performer(heads=2, features=8),
    "reformer": Reformer(heads=2, buckets=2, window=4),
    "static-position": StaticMixing("position", heads=2, window=6),
    "static-random": StaticMixing("random", heads=2),
    "linear_attention": LinearAttention(heads=2),
    "retention": Retention(heads=2),
    "gla": GatedLinearAttention(heads=2, rank=4),
    "mamba2": Mamba2(head_width=8, states=4),
    "lightnet": LightNet(heads=2, sink=True, key_norm=True, axes=(Axis("item", 3), Axis("slot", 3))),
    "toeplitz": Toeplitz(heads=2, size=4, axes=(Axis("slot", 3), Axis("time", 3600))),
}
PACKED = [name for name, mixer in MIXERS.items() if mixer.capabilities.packing and mixer.capabilities.causal]
CAUSAL = [name for name, mixer in MIXERS.items() if mixer.capabilities.causal]
BIDIRECTIONAL = [name for name, mixer in MIXERS.items() if mixer.capabilities.bidirectional]
REMEMBERING = [name for name, mixer in MIXERS.items() if mixer.capabilities.memory != "none" and name in CAUSAL]

SPECTRAL = ("s4", "s4d", "lru", "s5", "rg_lru", "mamba2")
"""Recurrences that begin with decays and frequencies of their own; the start of the others takes long to compile."""

# Row 0 holds two histories, row 1 one and padding.
SEGMENTS = np.array([[1] * 9 + [2] * 7, [1] * 11 + [0] * 5], np.int32)


def _context(segments=SEGMENTS, first=0) -> SeqContext:
    """Positions count inside a history; times are irregular."""
    segments = np.asarray(segments)
    starts = np.maximum.accumulate(
        np.where(np.diff(segments, axis=1, prepend=-1) != 0, np.arange(segments.shape[1]), 0), axis=1
    )
    positions = (np.arange(segments.shape[1]) - starts + first).astype(np.int32)
    times = (positions * 3600 + positions**2 * 60).astype(np.int32)
    return SeqContext(*map(jnp.asarray, (segments, positions, times)))


def _inputs(rows: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, LENGTH, WIDTH)).astype(np.float32)


def _module(name: str, causal: bool, dtype: str = "float32"):
    return MIXERS[name].build(width=WIDTH, causal=causal, dtype=jnp.dtype(dtype), name=None)  # pyright: ignore


def _params(name: str, causal: bool):
    """The mixer's parameters, moved, since zero-initialised parts would hide what they do."""
    init = partial(_module(name, causal).init, jax.random.key(0), _inputs(), _context(_segments(name)))
    params = init() if name in SPECTRAL else drawn(jax.eval_shape(init))
    random = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape, np.float32), params)


def _segments(name: str) -> np.ndarray:
    """Packed rows, or whole ones for a mixer that packs none."""
    return SEGMENTS if name in PACKED else np.ones_like(SEGMENTS)


LAST, SEVERAL = np.array([14, 8], np.int32), np.array([[14, 0, 3], [8, 9, 2]], np.int32)


@cache
def _built(name: str):
    """All that is asked of a mixer alone as one function of (x, context): one program compiles sooner than five.

    All is its parameters, the result, the result at `LAST` and at `SEVERAL`, in bfloat16, and the gradients of a loss
    over what is no padding.
    """
    module, half = (_module(name, name in CAUSAL, dtype) for dtype in ("float32", "bfloat16"))
    target = _inputs(seed=3)

    def everything(x, context):
        def loss(params):
            y = module.apply(params, x, context)
            return jnp.sum(jnp.where((context.segments > 0)[..., None], y * target, 0)), y

        params = _params(name, name in CAUSAL)
        grads, y = jax.grad(loss, has_aux=True)(params)
        found = {"params": params, "grads": grads, "y": y, "half": half.apply(params, x, context)}
        places = {"last": LAST, "several": SEVERAL}
        return found | {key: module.apply(params, x, context, last=last) for key, last in places.items()}

    return jax.jit(everything)


@cache
def _all(name: str):
    return jax.device_get(_built(name)(_inputs(), _context(_segments(name))))


def _y(name: str, x: np.ndarray, context: SeqContext) -> np.ndarray:
    return np.asarray(_built(name)(x, context)["y"])


def _empty(name: str, rows: int = 2):
    return MIXERS[name].init_state(width=WIDTH, rows=rows, max_length=LENGTH, dtype=jnp.float32)


@pytest.mark.parametrize("name", CAUSAL)
def test_the_future_changes_nothing(name):
    context = _context(np.ones_like(SEGMENTS))
    x = _inputs()
    later = x.copy()
    later[:, 10:] += 1.0
    before, after = _y(name, x, context), _y(name, later, context)
    np.testing.assert_array_equal(before[:, :10], after[:, :10])
    assert (before[:, 10:] != after[:, 10:]).any(axis=-1).all()


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_both_sides_count_where_they_may(name):
    context = _context(np.ones_like(SEGMENTS))
    x = _inputs()
    other = x.copy()
    other[:, 10] += 1.0
    apply = jax.jit(lambda x: _module(name, False).apply(_params(name, False), x, context))
    changed = np.any(np.asarray(apply(x)) != np.asarray(apply(other)), axis=-1)
    assert changed[:, :10].any() and changed[:, 11:].any()


@pytest.mark.parametrize("name", PACKED)
def test_histories_of_a_row_stay_apart_and_padding_is_inert(name):
    x, context = _inputs(), _context()
    base = _y(name, x, context)
    assert np.isfinite(base).all()
    other = x.copy()
    other[0, 3] += 1.0  # first history of row 0
    other[1, 12] = 1e30  # padding of row 1
    changed = np.any(base != _y(name, other, context), axis=-1)
    assert changed[0, 3:9].any() and not changed[0, 9:].any()
    assert not changed[1, :11].any()
    # The same histories alone in their rows.
    alone = np.zeros_like(x)
    alone[0, :7], alone[1] = x[0, 9:], x[1]
    segments = np.where(np.arange(LENGTH) < np.array([[7], [11]]), 1, 0)
    apart = _y(name, alone, _context(segments))
    np.testing.assert_allclose(apart[0, :7], base[0, 9:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(apart[1, :11], base[1, :11], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PACKED)
def test_padding_on_the_left_is_inert_too(name):
    x = _inputs()
    segments = np.where(np.arange(LENGTH) < 4, 0, 1) * np.ones((2, 1), np.int32)
    shifted, right = np.zeros_like(x), np.zeros_like(x)
    shifted[:, 4:], right[:, :12] = x[:, :12], x[:, :12]
    left = _y(name, shifted, _context(segments))
    right = _y(name, right, _context(segments[:, ::-1].copy()))
    np.testing.assert_allclose(left[:, 4:], right[:, :12], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_positions_alone_equal_the_full_result(name):
    found = _all(name)
    full = found["y"]
    np.testing.assert_allclose(found["last"], full[np.arange(2), LAST], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["several"], full[np.arange(2)[:, None], SEVERAL], rtol=1e-5, atol=1e-5)


@cache
def _going_on(name: str):
    """The compiled function of (parameters, x, context): results of chunks of 8, and of 8 single events after one."""
    module = _module(name, True)

    def steps(params, x, context, state, starts):
        """Goes on from `state` through the chunks of x [n, b, l, ...]; (results, states after each)."""

        def step(state, part):
            x, context, start = part
            context = dataclasses.replace(context, continues=jnp.broadcast_to(start > 0, 2))
            y, after = module.apply(params, x, context, state=state)
            return after, (y, after)

        return jax.lax.scan(step, state, (x, context, starts))[1]

    def cut(tree, size):
        return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(2, -1, size, *leaf.shape[2:]), 0, 1), tree)

    def going_on(params, x, context):
        chunks, states = steps(params, *cut((x, context), 8), _empty(name), np.array([0, 8]))
        first = jax.tree.map(lambda leaf: leaf[0], states)
        later = jax.tree.map(lambda leaf: leaf[:, 8:], (x, context))
        singles, _ = steps(params, *cut(later, 1), first, np.arange(8, 16))
        chunks, singles = (jnp.concatenate([*found], axis=1) for found in (chunks, singles))
        return chunks, jnp.concatenate([chunks[:, :8], singles], axis=1)

    return jax.jit(going_on)


@pytest.mark.parametrize("name", REMEMBERING)
def test_whole_history_equals_chunks_equals_single_events(name):
    """Row 0 has 16 events and row 1 has 11, fed in chunks of 8 and of 1, the last of row 1 ragged."""
    x, whole = _inputs(), _context(np.where(np.arange(LENGTH) < np.array([[16], [11]]), 1, 0))
    expected = _y(name, x, whole)
    for found in _going_on(name)(_all(name)["params"], x, whole):
        np.testing.assert_allclose(found[0], expected[0], rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(found[1, :11], expected[1, :11], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_first_axis_of_a_state_is_the_user(name):
    for leaf in jax.tree.leaves(jax.eval_shape(lambda: _empty(name, rows=3))):
        assert leaf.shape[0] == 3


@pytest.mark.parametrize("name", CAUSAL)
def test_bfloat16_is_close_to_float32(name):
    found, events = _all(name), _segments(name) > 0
    full, half = found["y"][events], found["half"].astype(np.float32)[events]
    assert np.sqrt(np.mean((full - half) ** 2)) < 0.03 * np.sqrt(np.mean(full**2)) + 1e-3


@pytest.mark.parametrize("name", CAUSAL)
def test_gradients_are_finite_and_reach_every_parameter(name):
    for path, leaf in jax.tree.leaves_with_path(_all(name)["grads"]):
        assert np.isfinite(leaf).all() and np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in REMEMBERING])
def test_what_keeps_no_state_says_so(name):
    stack = Stack((MIXERS[name],), 1, WIDTH, name in CAUSAL, "pre", WIDTH)
    with pytest.raises(InputError, match="be advanced event by event"):
        stack.init_state(2, LENGTH)


@pytest.mark.parametrize("name", MIXERS)
def test_what_a_mixer_cannot_do_is_refused(name):
    config, able = MIXERS[name], MIXERS[name].capabilities
    build = lambda causal: config.build(width=WIDTH, causal=causal, dtype=jnp.float32, name=None)  # noqa: E731
    if not able.bidirectional:
        with pytest.raises(InputError, match=f"{type(config).__name__} cannot be bidirectional"):
            build(False)
    if not able.separate_query:
        with pytest.raises(InputError, match=f"{type(config).__name__} takes queries, keys and values from one stream"):
            build(able.causal).init(jax.random.key(0), _inputs(), _context(), source=_inputs())


@pytest.mark.parametrize("scan", [False, True])
def test_a_stack_goes_on_as_it_reads_whole_histories(scan):
    attention = MIXERS["attention"]
    stack = Stack((attention, Attention(heads=1)), 4 if scan else 3, WIDTH, True, "pre", WIDTH, scan=scan)
    module = Encoder(stack)
    x, context = _inputs(), _context(np.ones_like(SEGMENTS))
    last = np.array([15, 6])

    @jax.jit
    def whole_and_at_last():
        params = module.init(jax.random.key(0), x, context)
        return params, module.apply(params, x, context), module.apply(params, x, context, last)

    params, whole, at_last = whole_and_at_last()
    np.testing.assert_allclose(at_last, whole[np.arange(2), last], rtol=1e-5, atol=1e-5)
    state, outputs = stack.init_state(2, LENGTH), []
    step = jax.jit(lambda p, x, c, s: module.apply(p, x, c, None, s))
    for start in (0, 8):
        part = jax.tree.map(lambda a, s=start: a[:, s : s + 8], context)
        y, state = step(
            params, x[:, start : start + 8], dataclasses.replace(part, continues=jnp.full(2, start > 0)), state
        )
        outputs.append(y)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, rtol=1e-5, atol=1e-5)
