"""The chunked recurrence of matrices equals its definition, on one device and over a sharded time axis."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.ops.scan.outer import outer_scan
from recjax.typing import InputError

HEADS, KEYS, VALUES, LENGTH = 2, 3, 4, 20
SEGMENTS = np.array([[1] * 5 + [2] * 6 + [3] * 2 + [0] * 7, [0] * 3 + [1] * 17])
VALID = SEGMENTS > 0
STARTS = np.concatenate([np.ones((2, 1), bool), SEGMENTS[:, 1:] != SEGMENTS[:, :-1]], axis=1) & VALID


def _inputs(per_channel: bool, length=LENGTH):
    rng = np.random.default_rng(0)
    shape = (2, HEADS, length)
    q, k, v = (rng.normal(size=(*shape, n)) for n in (KEYS, KEYS, VALUES))
    log_a = -rng.exponential(0.5, size=(*shape, KEYS) if per_channel else shape)
    s0 = rng.normal(size=(2, HEADS, KEYS, VALUES))
    return [x.astype(np.float32) for x in (q, k, v, log_a, s0)]


def _loop(inputs, starts, valid):
    """The definition in NumPy, float64."""
    q, k, v, log_a, state = (np.asarray(x, np.float64) for x in inputs)
    decay = np.exp(log_a).reshape(*q.shape[:3], -1)
    readings, state = np.zeros(v.shape), state.copy()
    for row in range(q.shape[0]):
        for t in range(q.shape[2]):
            if valid[row, t]:
                kept = 0 if starts[row, t] else decay[row, :, t, :, None] * state[row]
                state[row] = kept + k[row, :, t, :, None] * v[row, :, t, None]
                readings[row, :, t] = np.einsum("hk,hkc->hc", q[row, :, t], state[row])
    return readings, state


def _graded(impl, starts, valid, chunk=8):
    """Compiled: a scalar that weighs every output, all gradients, and the outputs."""

    def total(q, k, v, log_a, s0):
        readings, last = outer_scan(q, k, v, log_a, s0=s0, starts=starts, valid=valid, chunk=chunk, impl=impl)
        probe = jnp.cos(jnp.arange(readings.size).reshape(readings.shape))
        return jnp.sum(readings * probe) + jnp.sum(jnp.square(last)), (readings, last)

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3, 4), has_aux=True))


@pytest.mark.parametrize(
    ("per_channel", "flagged", "chunk"), [(False, True, 8), (True, True, 8), (False, False, 7), (True, False, 64)]
)
def test_equals_the_definition_in_value_and_gradient(per_channel, flagged, chunk):
    inputs = _inputs(per_channel)
    starts, valid = (STARTS, VALID) if flagged else (None, None)
    both = [_graded("reference", starts, valid), _graded("auto", starts, valid, chunk)]
    expected, got = jax.jit(lambda *x: [graded(*x) for graded in both])(*inputs)
    flags = (STARTS, VALID) if flagged else (np.zeros_like(VALID), np.ones_like(VALID))
    for defined, wanted in zip(expected[0][1], _loop(inputs, *flags), strict=True):
        np.testing.assert_allclose(defined, wanted, rtol=1e-5, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), got, expected)


@cache
def _flagged(per_channel: bool):
    """The function in chunks of 4, and what it gives for the inputs."""
    function = _graded("chunked", STARTS, VALID, chunk=4)
    return function, jax.device_get(function(*_inputs(per_channel)))


@pytest.mark.parametrize("per_channel", [False, True])
def test_histories_of_a_row_never_touch_each_other(per_channel):
    """Another history, or what stands in padding, changes no bit of a history or of its gradients."""
    inputs = _inputs(per_channel)
    function, spoiled = _flagged(per_channel)[0], [x.copy() for x in inputs]
    for x in spoiled[:3]:
        x[0, :, 1:4] += 3.0
        x[0, :, 14:] = x[1, :, :3] = np.nan
    spoiled[3][0, :, 2:4] -= 2.0
    (_, (readings, _)), grads = _flagged(per_channel)[1]
    (_, (after, last)), grads_after = jax.device_get(function(*spoiled))
    others = VALID & ~((np.arange(2)[:, None] == 0) & (SEGMENTS == 1))
    assert np.isfinite(last).all()
    own = lambda x: np.moveaxis(np.asarray(x), 1, 2)  # noqa: E731
    assert (own(readings)[0, 1:5] != own(after)[0, 1:5]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(own(readings)[others], own(after)[others])
    for before, then in zip(grads[:4], grads_after[:4], strict=True):
        np.testing.assert_array_equal(own(before)[others], own(then)[others])
    assert (own(grads_after[3])[~VALID | STARTS] == 0).all()


@pytest.mark.parametrize("per_channel", [False, True])
def test_extreme_decays_over_long_rows(per_channel):
    """Decays of exactly 0 and 1, and very small ones, side by side and in turns."""
    length = 4096
    q, k, v = (np.ones((1, 1, length, width), np.float32) for width in (2, 2, 1))
    turns = np.where(np.arange(length) % 256 == 0, -np.inf, 0.0)
    log_a = np.stack([turns, np.full(length, -60.0)], axis=-1) if per_channel else turns
    log_a = log_a[None, None].astype(np.float32)
    total = lambda q, k, v, log_a: jnp.sum(outer_scan(q, k, v, log_a)[0])  # noqa: E731
    value, grads = jax.device_get(jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(q, k, v, log_a))
    sums = length // 256 * (256 * 257 / 2)
    np.testing.assert_allclose(value, sums + length if per_channel else 2 * sums, rtol=1e-5)
    np.testing.assert_allclose(grads[1][0, 0, 256], [256, 1 if per_channel else 256], rtol=1e-5)
    assert all(np.isfinite(x).all() for x in grads)


def test_goes_on_from_the_state_of_what_came_before():
    q, k, v, log_a, s0 = _inputs(False)
    run = jax.jit(outer_scan, static_argnames="chunk")
    whole, last = run(q, k, v, log_a, s0=s0, chunk=64)
    readings, state = [], s0
    for start, stop in ((0, 19), (19, 20)):
        part, state = run(*(x[:, :, start:stop] for x in (q, k, v, log_a)), s0=state, chunk=4)
        readings.append(np.asarray(part))
    np.testing.assert_allclose(np.concatenate(readings, axis=2), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state, last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("per_channel", [False, True])
def test_bfloat16_inputs_are_carried_in_float32(per_channel):
    q, k, v, log_a, _ = _inputs(per_channel, length=32)
    q16, k16, v16 = (x.astype(jnp.bfloat16) for x in (q, k, v))
    run = jax.jit(partial(outer_scan, chunk=4))
    (exact, _), (rounded, state) = run(q, k, v, 0.1 * log_a), run(q16, k16, v16, 0.1 * log_a)
    assert rounded.dtype == jnp.bfloat16 and state.dtype == jnp.float32
    error = np.asarray(rounded, np.float32) - np.asarray(exact)
    assert np.sqrt(np.mean(error**2) / np.mean(np.square(exact))) < 1e-2


@pytest.mark.parametrize("per_channel", [False, True])
def test_sharded_over_time_equals_one_device_and_gathers_states_only(per_channel):
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    inputs = _inputs(per_channel)
    expected = _flagged(per_channel)[1]
    with jax.set_mesh(mesh):
        spread = jax.device_put(inputs[:4], NamedSharding(mesh, PartitionSpec("data", None, "seq")))
        s0 = jax.device_put(inputs[4], NamedSharding(mesh, PartitionSpec("data")))
        starts, valid = jax.device_put((STARTS, VALID), NamedSharding(mesh, PartitionSpec("data", "seq")))
        compiled = _graded("chunked", starts, valid, chunk=4).lower(*spread, s0).compile()
        got, text = compiled(*spread, s0), compiled.as_text() or ""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), got, expected)
    gathered = re.findall(r"(?:f32|pred)\[([\d,]*)\][^=]* all-gather\(", text)
    sizes = {int(np.prod([int(n) for n in shape.split(",")])) for shape in gathered}
    # Of a row's state on each of the 4 devices; a device's 5 positions of values alone would be as many numbers.
    assert gathered and max(sizes) == 4 * HEADS * KEYS * VALUES, sizes
    assert "all-to-all" not in text and "collective-permute" not in text


def test_bad_input_is_refused():
    q, k, v, log_a, _ = _inputs(False)
    with pytest.raises(InputError, match="no scan is called 'fast'"):
        outer_scan(q, k, v, impl="fast")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="do not fit each other"):
        outer_scan(q, k, v, log_a[:, :, 1:])
