"""The linear recurrence equals its definition in value and gradient, on one device and over a sharded time axis."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.ops.scan import kernel
from recjax.ops.scan.elementwise import linear_scan
from recjax.typing import InputError

FAST = ("sequential", "associative")
SEGMENTS = np.array([[1] * 5 + [2] * 6 + [0] * 5, [0] * 3 + [1] * 13])
VALID = SEGMENTS > 0
STARTS = np.concatenate([np.ones((2, 1), bool), SEGMENTS[:, 1:] != SEGMENTS[:, :-1]], axis=1) & VALID
ENDS = np.concatenate([SEGMENTS[:, 1:] != SEGMENTS[:, :-1], np.ones((2, 1), bool)], axis=1) & VALID


def _inputs(complex_values: bool, static: bool, rows=2, length=16, width=3):
    rng = np.random.default_rng(0)
    shape, decays = (rows, length, width), (width,) if static else (rows, length, width)
    a, b, h0 = rng.uniform(0.3, 1.0, decays), rng.normal(size=shape), rng.normal(size=(rows, width))
    if complex_values:
        a = a * np.exp(1j * rng.uniform(0, 3, decays))
        b, h0 = b + 1j * rng.normal(size=shape), h0 + 1j * rng.normal(size=h0.shape)
    return [x.astype(np.complex64 if complex_values else np.float32) for x in (a, b, h0)]


def _loop(inputs, flags, reverse):
    """The definition in NumPy, float64."""
    kind = np.complex128 if np.iscomplexobj(inputs[1]) else np.float64
    a, b, h0 = (np.asarray(x, kind) for x in inputs)
    starts, valid = flags
    a = np.broadcast_to(a, b.shape)
    states = np.zeros_like(b)
    for row in range(b.shape[0]):
        h = h0[row]
        for t in reversed(range(b.shape[1])) if reverse else range(b.shape[1]):
            if valid[row, t]:
                h = (0 if starts[row, t] else a[row, t] * h) + b[row, t]
            states[row, t] = h
    return states, states[:, 0 if reverse else -1]


def _graded(impl, reverse, starts, valid):
    """Compiled: a scalar that weighs every output, all gradients, and the outputs."""

    def total(a, b, h0):
        states, last = linear_scan(a, b, h0=h0, starts=starts, valid=valid, reverse=reverse, impl=impl)
        probe = jnp.cos(jnp.arange(states.size).reshape(states.shape))
        return (jnp.sum(states * probe) + jnp.sum(last * probe[:, 3])).real + jnp.sum(jnp.abs(last) ** 2), (
            states,
            last,
        )

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))


@pytest.mark.parametrize(
    ("complex_values", "static", "flagged", "reverse"),
    [(False, False, True, False), (True, True, True, True), (False, True, False, True), (True, False, False, False)],
)
def test_equals_the_definition_in_value_and_gradient(complex_values, static, flagged, reverse, monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK", 8)  # two blocks of the rows' positions
    inputs = _inputs(complex_values, static)
    starts, valid = (ENDS if reverse else STARTS, VALID) if flagged else (None, None)
    impls = ("reference", *FAST, "auto", "kernel")
    expected, *found = jax.jit(lambda *x: [_graded(impl, reverse, starts, valid)(*x) for impl in impls])(*inputs)
    flags = (starts, valid) if flagged else (np.zeros_like(VALID), np.ones_like(VALID))
    loop = _loop(inputs, flags, reverse)
    for got, wanted in zip(expected[0][1], loop, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    for got in found:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5), got, expected)


@pytest.mark.parametrize("impl", FAST)
def test_histories_of_a_row_never_touch_each_other(impl):
    """Not even an infinity or a NaN of one, or of padding, changes a bit of another or of its gradients."""
    a, b, h0 = _inputs(False, False)
    function = _graded(impl, False, STARTS, VALID)
    (_, (states, _)), grads = jax.device_get(function(a, b, h0))
    spoiled = b.copy()
    spoiled[0, 2] = spoiled[1, 1] = np.inf
    spoiled[0, 3] = spoiled[0, 12] = np.nan
    (_, (after, last)), grads_after = jax.device_get(function(a, spoiled, h0))
    others = VALID & ~((np.arange(2)[:, None] == 0) & (SEGMENTS == 1))
    assert not np.isfinite(after[0, 2:5]).any()
    np.testing.assert_array_equal(states[others], after[others])
    for before, then in zip(grads[:2], grads_after[:2], strict=True):
        np.testing.assert_array_equal(before[others], then[others])
    # Padding at the end hands on the last event's state.
    np.testing.assert_allclose(last[0], states[0, 10], rtol=1e-5)
    assert (grads_after[1][~VALID] == 0).all() and (grads_after[0][~VALID | STARTS] == 0).all()


@pytest.mark.parametrize("impl", FAST)
def test_extreme_decays_over_long_rows(impl):
    length = 4096
    a, b = np.array([0, 1, 0.5], np.float32), np.ones((1, length, 3), np.float32)
    scan = jax.jit(jax.value_and_grad(lambda a, b: jnp.sum(linear_scan(a, b, impl=impl)[0]), argnums=(0, 1)))
    value, (da, db) = jax.device_get(scan(a, b))
    np.testing.assert_allclose(value, length + length * (length + 1) / 2 + 2 * length, rtol=1e-3)
    np.testing.assert_allclose(db[0, 0], [1, length, 2], rtol=1e-5)
    np.testing.assert_allclose(da[0], length - 1, rtol=1e-5)
    assert np.isfinite(da).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_goes_on_from_the_state_of_what_came_before(reverse):
    a, b, h0 = _inputs(True, False)
    run = jax.jit(lambda a, b, h0: linear_scan(a, b, h0=h0, reverse=reverse))
    whole, last = run(a, b, h0)
    parts = [slice(0, 6), slice(6, 16)]
    states, h = [], h0
    for part in reversed(parts) if reverse else parts:
        piece, h = run(a[:, part], b[:, part], h)
        states.append(np.asarray(piece))
    np.testing.assert_array_equal(np.concatenate(states[::-1] if reverse else states, axis=1), whole)
    np.testing.assert_array_equal(h, last)


@pytest.mark.parametrize("impl", FAST)
def test_bfloat16_inputs_are_carried_in_float32(impl):
    a, b, h0 = _inputs(False, True, length=64)
    a = 1 - (1 - a) * 0.02
    run = jax.jit(jax.grad(lambda b: jnp.sum(jnp.square(linear_scan(a, b, h0=h0, impl=impl)[0]))))
    exact, rounded = run(b), run(b.astype(jnp.bfloat16))
    assert jax.eval_shape(partial(linear_scan, impl=impl), a, b.astype(jnp.bfloat16))[0].dtype == jnp.float32
    assert rounded.dtype == jnp.bfloat16
    error = np.asarray(rounded, np.float32) - np.asarray(exact)
    assert np.sqrt(np.mean(error**2) / np.mean(np.square(exact))) < 1e-2


@pytest.mark.parametrize(("impl", "static", "reverse"), [("sequential", True, False), ("associative", False, True)])
def test_sharded_over_time_equals_one_device_and_gathers_states_only(impl, static, reverse):
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    a, b, h0 = _inputs(True, static)
    starts, valid = ENDS if reverse else STARTS, VALID
    expected = _graded(impl, reverse, starts, valid)(a, b, h0)
    along = NamedSharding(mesh, PartitionSpec("data", "seq"))
    with jax.set_mesh(mesh):
        b, starts, valid = (jax.device_put(x, along) for x in (b, starts, valid))
        a = a if static else jax.device_put(a, along)
        h0 = jax.device_put(h0, NamedSharding(mesh, PartitionSpec("data")))
        compiled = _graded(impl, reverse, starts, valid).lower(a, b, h0).compile()
        got, text = compiled(a, b, h0), compiled.as_text() or ""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5), got, expected)
    # A device holds 4 positions of a row; what is gathered is one step of each of the 4 devices.
    gathered = re.findall(r"(?:c64|f32|pred)\[([\d,]*)\][^=]* all-gather\(", text)
    assert gathered and all(np.prod([int(n) for n in shape.split(",")]) <= 4 * 1 * 3 for shape in gathered), gathered
    assert "all-to-all" not in text


def test_rows_and_channels_are_sharded_without_communication():
    mesh = jax.make_mesh((4, 2, 1), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    a, b, _ = _inputs(False, False, rows=8, width=6)
    with jax.set_mesh(mesh):
        spread = NamedSharding(mesh, PartitionSpec("data", None, "model"))
        a, b = jax.device_put((a, b), spread)
        run = jax.jit(jax.grad(lambda a, b: jnp.sum(jnp.square(linear_scan(a, b)[0])), argnums=(0, 1)))
        text = run.lower(a, b).compile().as_text() or ""
    assert "while" in text and not re.search(r"all-(gather|reduce|to-all)|collective-permute", text)


def test_bad_input_is_refused():
    a, b, _ = _inputs(False, True)
    with pytest.raises(InputError, match="no scan is called 'fast'"):
        linear_scan(a, b, impl="fast")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"decays of shape \(2,\)"):
        linear_scan(a[:2], b)
