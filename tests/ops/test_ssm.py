"""State spaces: the HiPPO matrix, its discretisations, and one system as kernel, recurrence and convolution."""

import re
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.ops.scan import ssm
from recjax.ops.scan.lti_conv import lti_conv
from recjax.ops.scan.ssm import (
    bilinear,
    bilinear_dplr,
    diagonal_kernel,
    diagonal_pairs,
    dplr_kernel,
    hippo_legs,
    legs_dplr,
    legs_pairs,
    log_uniform,
    recur,
    zoh,
)

DT = np.array([1e-3, 1e-2, 1e-1], np.float32)
"""One channel each: both ends of the usual range of step sizes, and its middle."""


@cache
def _system(init: str, states: int, outputs: int = 1) -> Any:
    """dt [d], poles, inputs and, for "dplr", the low-rank part [d, n], and C [d, k, n], in complex64."""
    values = legs_pairs(states) if init == "dplr" else diagonal_pairs(init, states)  # pyright: ignore
    rng = np.random.default_rng(0)
    c = rng.normal(size=(2, len(DT), outputs, states // 2))
    poles, *rest = (jnp.asarray(np.tile(x, (len(DT), 1)), jnp.complex64) for x in values)
    low_rank, inputs = rest if init == "dplr" else (None, rest[0])
    return jnp.asarray(DT), poles, inputs, low_rank, jnp.asarray(c[0] + 1j * c[1], jnp.complex64)


def _matrices(channel: int, system, rule: str):
    """Abar [2n, 2n], Bbar [2n], C [2n] of one channel in float64, by dense linear algebra on whole pairs."""
    parts: Any = (None if x is None else np.asarray(x, complex)[channel] for x in system)
    dt, poles, inputs, low_rank, c = parts
    poles, inputs, c = (np.concatenate([x, x.conj()], axis=-1) for x in (poles, inputs, c[0]))
    a = np.diag(poles)
    if low_rank is not None:
        p = np.concatenate([low_rank, low_rank.conj()])
        a = a - np.outer(p, p.conj())
    identity = np.eye(len(poles))
    if rule == "zoh":
        values, vectors = np.linalg.eig(a)
        a_bar = vectors @ np.diag(np.exp(dt * values)) @ np.linalg.inv(vectors)
        return a_bar, np.linalg.solve(a, (a_bar - identity) @ inputs), c
    inverse = np.linalg.inv(identity - dt / 2 * a)
    return inverse @ (identity + dt / 2 * a), inverse @ (dt * inputs), c


def _taps(system, rule: str, length: int) -> np.ndarray:
    """K_l = C Abar^l Bbar by multiplying again and again, float64 [d, l]."""
    kernels = []
    for channel in range(len(DT)):
        a_bar, x, c = _matrices(channel, system, rule)
        taps = []
        for _ in range(length):
            taps.append((c @ x).real)
            x = a_bar @ x
        kernels.append(taps)
    return np.array(kernels)


@partial(jax.jit, static_argnums=(1, 2))
def _compiled_kernel(system: Any, rule: str, length: int) -> Any:
    dt, poles, inputs, low_rank, c = system
    if low_rank is not None:
        return dplr_kernel(dt, poles, inputs, low_rank, c, length)
    run = {"zoh": zoh, "bilinear": bilinear}[rule]
    return diagonal_kernel(run(dt, poles, inputs), c, length)


def _kernel(system: Any, rule: str, length: int) -> np.ndarray:
    return np.asarray(_compiled_kernel(system, rule, length))


def _step(system, rule: str):
    dt, poles, inputs, low_rank, _ = system
    if low_rank is not None:
        return bilinear_dplr(dt, poles, inputs, low_rank)
    return {"zoh": zoh, "bilinear": bilinear}[rule](dt, poles, inputs)


def _error(found, expected) -> float:
    """Largest error of each channel, as a share of its largest value; of all channels the largest."""
    return float(np.max(np.abs(found - expected).max(axis=-1) / np.abs(expected).max(axis=-1)))


@pytest.mark.parametrize("states", [4, 64])
def test_the_diagonal_form_rebuilds_the_hippo_matrix(states):
    a, b = hippo_legs(states)
    form = legs_dplr(states)
    rebuilt = form.basis @ (np.diag(form.poles) - np.outer(form.low_rank, form.low_rank.conj())) @ form.basis.conj().T
    np.testing.assert_allclose(rebuilt, a, atol=1e-10)
    np.testing.assert_allclose(form.basis @ form.inputs, b, atol=1e-10)
    np.testing.assert_allclose(form.basis.conj().T @ form.basis, np.eye(states), atol=1e-12)
    assert (form.poles.real == -0.5).all() and (form.inputs.real > 0).all() and (form.inputs.imag == 0).all()
    for values in (form.poles, form.low_rank, form.inputs):
        np.testing.assert_allclose(values[::-1], values.conj(), atol=1e-10)


def test_hippo_matrix_by_its_formula():
    a, b = hippo_legs(3)
    np.testing.assert_allclose(a, -np.array([[1, 0, 0], [3**0.5, 2, 0], [5**0.5, 15**0.5, 3]]))
    np.testing.assert_allclose(b, [1, 3**0.5, 5**0.5])


def test_diagonal_starts():
    np.testing.assert_allclose(diagonal_pairs("lin", 4)[0], [-0.5, -0.5 + 1j * np.pi])
    np.testing.assert_allclose(diagonal_pairs("real", 4)[0], [-1, -2])
    np.testing.assert_allclose(diagonal_pairs("inv", 4)[0].imag, [12 / np.pi, 4 / np.pi / 3])
    # Inv approximates the poles of LegS, whose largest is near N^2 / pi.
    legs = diagonal_pairs("legs", 64)[0]
    assert (legs.imag > 0).all() and (legs.real == -0.5).all()
    np.testing.assert_allclose(legs.imag.max(), 1303, atol=1)
    np.testing.assert_allclose(diagonal_pairs("inv", 64)[0].imag.max(), legs.imag.max(), rtol=0.02)


def test_the_diagonal_part_of_legs_answers_like_the_whole():
    """To a constant input the first Legendre coefficient, x' = -x + u, answers 1 - e^-t: theorem 3 of the S4D paper."""
    poles, inputs = diagonal_pairs("legs", 64)
    reader = legs_dplr(64).basis[0, 32:]
    times = np.linspace(0.0, 2.0, 40)
    answer = 2 * (reader * np.expm1(times[:, None] * poles) / poles @ inputs).real
    np.testing.assert_allclose(answer, 1 - np.exp(-times), atol=5e-3)


def test_step_sizes_are_spread_evenly_on_a_logarithmic_scale():
    drawn = np.exp(jax.jit(log_uniform(1e-3, 1e-1), static_argnums=1)(jax.random.key(0), (20000,)))
    np.testing.assert_allclose(np.quantile(drawn, [0, 0.25, 0.5, 0.75, 1]), 10.0 ** np.arange(-3, -0.9, 0.5), rtol=0.06)


@pytest.mark.parametrize(
    ("init", "rule", "states", "length"),
    [
        ("dplr", "bilinear", 4, 15),
        ("dplr", "bilinear", 64, 100),
        ("inv", "zoh", 64, 100),
        ("real", "bilinear", 40, 100),
    ],
)
def test_kernels_equal_powers_in_float64(init, rule, states, length):
    """ "real" with 40 states has a pole at -2 / dt, which forgets everything at once."""
    system = _system(init, states)
    found = _kernel(system, rule, length)
    assert found.shape == (len(DT), 1, length) and found.dtype == np.float32
    assert _error(found[:, 0], _taps(system, rule, length)) < 1e-5


@pytest.mark.parametrize(("init", "rule"), [("dplr", "bilinear"), ("lin", "zoh")])
def test_recurrence_equals_convolution_and_goes_on_from_any_state(init, rule):
    length, system = 100, _system(init, 64)
    u = np.random.default_rng(1).normal(size=(2, length, len(DT))).astype(np.float32)
    valid = np.arange(length) < np.array([[length], [70]])

    @jax.jit
    def run(u, valid, state):
        return recur(_step(system, rule), system[-1][:, 0], u, state, valid)

    empty = np.zeros((2, len(DT), 32), np.complex64)
    whole, last = jax.device_get(run(u, valid, empty))
    convolved = np.asarray(jax.jit(lti_conv, static_argnums=2)(u, _kernel(system, rule, length), "fft"))
    scale = np.abs(convolved).max(axis=(0, 1))
    assert np.max(np.abs(convolved - whole)[valid] / scale) < 1e-4
    # Halves of the same length: one compilation.
    first, state = run(u[:, :50], valid[:, :50], empty)
    second, state = run(u[:, 50:], valid[:, 50:], state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state, last, rtol=1e-5, atol=1e-5)
    # What stands at padding reaches no state.
    spoiled = np.where(valid[..., None], u, np.float32(1e30))
    np.testing.assert_array_equal(run(spoiled, valid, empty)[1], last)


def test_a_constant_input_stays_bounded():
    """10,000 steps end at the steady state of the continuous system, -A^-1 B, which is that of both rules."""
    for init, rule in (("dplr", "bilinear"), ("lin", "zoh")):
        system = _system(init, 64)

        @jax.jit
        def run(system, rule=rule):
            empty = jnp.zeros((1, len(DT), 32), jnp.complex64)
            return recur(_step(system, rule), system[-1][:, 0], jnp.ones((1, 10_000, len(DT))), empty)

        y, state = jax.device_get(run(system))
        assert np.isfinite(y).all()
        for channel in range(len(DT)):
            a_bar, b_bar, _ = _matrices(channel, system, rule)
            steady = np.linalg.solve(np.eye(64) - a_bar, b_bar)[:32]
            np.testing.assert_allclose(state[0, channel], steady, atol=0.02 * np.abs(steady).max())


def test_kernel_gradients_are_those_of_the_recurrence():
    length, (dt, poles, inputs, low_rank, c) = 12, _system("dplr", 8)
    probe = np.random.default_rng(2).normal(size=(len(DT), length)).astype(np.float32)
    impulse = np.zeros((1, length, len(DT)), np.float32)
    impulse[:, 0] = 1

    def by_kernel(dt, poles, inputs, low_rank, c):
        return jnp.sum(dplr_kernel(dt, poles, inputs, low_rank, c, length)[:, 0] * probe)

    def by_steps(dt, poles, inputs, low_rank, c):
        empty = jnp.zeros((1, *poles.shape), jnp.complex64)
        y, _ = recur(bilinear_dplr(dt, poles, inputs, low_rank), c[:, 0], impulse, empty)
        return jnp.sum(y[0].T * probe)

    arguments = (dt, poles, inputs, low_rank, c)
    found, expected = (jax.jit(jax.grad(f, argnums=tuple(range(5))))(*arguments) for f in (by_kernel, by_steps))
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-4 * np.abs(wanted).max())


def test_channels_in_blocks_give_the_same(monkeypatch):
    def run():
        dt, poles, inputs, low_rank, c = _system("dplr", 8, outputs=2)
        value = lambda dt, c: jnp.sum(jnp.sin(dplr_kernel(dt, poles, inputs, low_rank, c, 9)))  # noqa: E731
        return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(dt, c)

    whole = run()
    monkeypatch.setattr(ssm, "BLOCK_ELEMENTS", 1)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), run(), whole)
    assert "scan" in str(jax.make_jaxpr(lambda *xs: dplr_kernel(*xs, 9))(*_system("dplr", 8)))


def test_a_kernel_of_sharded_channels_is_convolved_without_communication():
    """Forward and gradient: nothing is gathered, and only the gradient of the kernel is summed over rows."""
    length = 80
    mesh = jax.make_mesh((4, 2, 1), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    dt, poles, inputs, low_rank, c = (np.repeat(np.asarray(x), 2, axis=0) for x in _system("dplr", 4))
    u = np.random.default_rng(3).normal(size=(8, length, len(dt))).astype(np.float32)

    def total(u, *system):
        return jnp.sum(jnp.square(lti_conv(u, dplr_kernel(*system, length))))

    graded = jax.jit(jax.value_and_grad(total, argnums=tuple(range(6))))
    expected = graded(u, dt, poles, inputs, low_rank, c)
    with jax.set_mesh(mesh):
        put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
        arguments = (put(u, "data", None, "model"), *(put(x, "model") for x in (dt, poles, inputs, low_rank, c)))
        compiled = jax.jit(jax.value_and_grad(total, argnums=tuple(range(6)))).lower(*arguments).compile()
        found, text = compiled(*arguments), compiled.as_text() or ""
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max()))
    assert ("fft" in text) and not re.search(r"all-gather|all-to-all|collective-permute", text)
