"""S4 and S4D: how they start, what the optimiser is told of them, and what they compute."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.mixers.mixer import SeqContext
from recjax.mixers.pattern import pattern
from recjax.mixers.s4 import S4
from recjax.mixers.s4d import S4D
from recjax.mixers.stack import Stack
from recjax.ops.scan.ssm import diagonal_pairs, legs_pairs, recur
from recjax.train.optimiser import AdamW
from recjax.typing import InputError

WIDTH, LENGTH = 6, 10


def _context(segments=None) -> SeqContext:
    segments = np.ones((2, LENGTH), np.int32) if segments is None else np.asarray(segments, np.int32)
    return SeqContext(jnp.asarray(segments), jnp.asarray(np.tile(np.arange(LENGTH), (2, 1))))


def _module(config, causal=True, width=WIDTH):
    return config.build(width=width, causal=causal, dtype=jnp.float32, name=None)  # pyright: ignore


def _init(config, causal=True, width=WIDTH):
    init = jax.jit(_module(config, causal, width).init)
    return init(jax.random.key(0), np.zeros((2, LENGTH, width), np.float32), _context())["params"]


@pytest.fixture(scope="module")
def wide():
    """Parameters of an S4 of enough channels for statistics."""
    return _init(S4(states=8, systems=4, dt_min=1e-4, dt_max=1e-1), width=2000)


def test_s4_starts_as_hippo_legs(wide):
    poles, low_rank, inputs = legs_pairs(8)
    ssm = wide["ssm"]
    np.testing.assert_allclose(-np.exp(ssm["log_decay"]), np.full((4, 4), -0.5), rtol=1e-6)
    for name, value in (("P", low_rank), ("B", inputs)):
        np.testing.assert_allclose(ssm[name], np.broadcast_to(np.stack([value.real, value.imag], -1), (4, 4, 2)), 1e-5)
    np.testing.assert_allclose(ssm["frequency"], np.broadcast_to(poles.imag, (4, 4)), rtol=1e-6)


def test_s4_starts_with_spread_steps_and_random_outputs(wide):
    dt = np.exp(wide["ssm"]["log_dt"])
    assert dt.shape == (2000,) and dt.min() >= 0.99e-4 and dt.max() <= 0.101
    np.testing.assert_allclose(np.log10(np.quantile(dt, [0.25, 0.5, 0.75])), [-3.25, -2.5, -1.75], atol=0.15)
    np.testing.assert_allclose(np.mean(np.sum(np.square(wide["C"]), axis=-1)), 1.0, rtol=0.05)
    np.testing.assert_allclose(np.std(wide["D"]), 1.0, rtol=0.06)


@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real"])
def test_s4d_starts_from_its_poles(init):
    ssm = jax.eval_shape(lambda: _init(S4D(states=8, init=init, systems=2)))["ssm"]
    assert {name: leaf.shape for name, leaf in ssm.items()} == {
        "log_dt": (WIDTH,),
        "log_decay": (2, 4),
        "frequency": (2, 4),
        "B": (2, 4, 2),
    }
    declared = S4D(states=8, init=init, systems=2).declared(WIDTH)
    drawn = jax.jit(lambda key: {name: make(key, shape) for name, (make, shape) in declared.items()})
    made = jax.device_get(drawn(jax.random.key(0)))
    poles, inputs = diagonal_pairs(init, 8)
    np.testing.assert_allclose(-np.exp(made["log_decay"][1]) + 1j * made["frequency"][1], poles, rtol=1e-6)
    np.testing.assert_allclose(made["B"][1, :, 0] + 1j * made["B"][1, :, 1], inputs, rtol=1e-6)


@pytest.mark.parametrize("config", [S4(states=4), S4D(states=4)])
def test_poles_steps_and_inputs_do_not_decay_and_have_a_rate_of_their_own(config):
    params = {"encoder": {"block_0": {"mixer": jax.eval_shape(lambda: _init(config))}}}
    mixer = AdamW(1e-3, weight_decay=0.1).decayed(params)["encoder"]["block_0"]["mixer"]
    assert set(mixer["ssm"]) == {"log_dt", "log_decay", "frequency", "B"} | ({"P"} if isinstance(config, S4) else set())
    assert not any(jax.tree.leaves(mixer["ssm"]))
    assert mixer["C"] and mixer["D"] and mixer["output"]["kernel"] and not mixer["output"]["bias"]


def _complex(pairs):
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def _by_hand(config, params, x) -> np.ndarray:
    """The mixer by its definition: event by event responses to an impulse, summed pair by pair of positions."""
    c = np.asarray(params["C"])
    c = c[..., 0] + 1j * c[..., 1]
    impulse = np.zeros((1, LENGTH, WIDTH), np.float32)
    impulse[:, 0] = 1
    empty = config.init_state(width=WIDTH, rows=1, max_length=LENGTH, dtype=jnp.float32)
    respond = jax.jit(lambda ssm, c: recur(config.step(ssm, WIDTH), c, impulse, empty)[0][0])
    responses = [np.asarray(respond(params["ssm"], c[:, side])) for side in range(c.shape[1])]
    y = np.asarray(params["D"]) * x
    for t in range(LENGTH):
        for s in range(LENGTH):
            if s <= t:
                y[:, t] += responses[0][t - s] * x[:, s]
            elif len(responses) == 2:
                y[:, t] += responses[1][s - t - 1] * x[:, s]
    output = params["output"]
    gelu = y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))  # the usual approximation
    value, gate = np.split(gelu @ np.asarray(output["kernel"]) + np.asarray(output["bias"]), 2, axis=-1)
    return value / (1 + np.exp(-gate))


@pytest.mark.parametrize(
    ("config", "causal"), [(S4(states=4), False), (S4D(states=4, init="inv", discretisation="bilinear"), True)]
)
def test_equals_its_definition(config, causal):
    """With both sides, the past counts from the event itself on and the future from the next event on."""
    params, module = _init(config, causal), _module(config, causal)
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)
    last = np.array([9, 4])
    apply = jax.jit(lambda p: [module.apply({"params": p}, x, _context(), last=at) for at in (None, last)])
    whole, at_last = apply(params)
    expected = _by_hand(config, params, x)
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(at_last, expected[np.arange(2), last], rtol=1e-4, atol=1e-5)


def test_padding_on_either_side_changes_nothing():
    config = S4D(states=4)
    params = _init(config, causal=False)
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)
    x[0, :3], x[1, 7:] = 1e30, 1e30
    x[1, :7] = x[0, 3:]
    segments = np.array([[0] * 3 + [1] * 7, [1] * 7 + [0] * 3])
    y = jax.jit(lambda p, x: _module(config, False).apply({"params": p}, x, _context(segments)))(params, x)
    np.testing.assert_allclose(y[0, 3:], y[1, :7], rtol=1e-5, atol=1e-5)


def test_the_length_of_rows_is_no_part_of_the_function():
    config = S4(states=4)
    params = _init(config)
    run = jax.jit(lambda p, length: config.kernel(p["ssm"], _complex(p["C"]), length), static_argnums=1)
    short, long = (np.asarray(run(params, length)) for length in (6, 21))
    np.testing.assert_allclose(short, long[..., :6], atol=1e-5 * np.abs(long).max())


def test_a_history_that_begins_knows_nothing_of_the_state_it_is_given():
    config = S4(states=4)
    params, module = {"params": _init(config)}, _module(config)
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)
    go_on = jax.jit(lambda p, x, c, s: module.apply(p, x, c, state=s))
    empty = config.init_state(width=WIDTH, rows=2, max_length=LENGTH, dtype=jnp.float32)
    y, after = go_on(params, x, replace(_context(), continues=jnp.array([False, False])), empty)
    again, _ = go_on(params, x, replace(_context(), continues=jnp.array([False, True])), after)
    np.testing.assert_array_equal(again[0], y[0])
    assert np.abs(np.asarray(again)[1] - np.asarray(y)[1]).max() > 1e-3


def test_patterns_name_them_and_their_settings():
    assert pattern("s4(states=8), s4d(init=inv; systems=2)", dropout=0.2) == (
        S4(states=8, dropout=0.2),
        S4D(init="inv", systems=2, dropout=0.2),
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S4(states=5), "states is 5, expected an even number"),
        (lambda: S4D(dt_min=0.1, dt_max=0.01), "dt_min is 0.1, expected at most dt_max, which is 0.01"),
        (
            lambda: S4D(init="fourier"),  # pyright: ignore[reportArgumentType]
            "init is 'fourier', expected one of 'lin', 'inv', 'legs', 'real'",
        ),
        (lambda: _module(S4(systems=4)), "systems is 4, expected a number that divides the width, 6"),
        (lambda: Stack((S4(),), 1, WIDTH, True, "sasrec", WIDTH), "separate query"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
