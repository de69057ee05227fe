"""LRU, S5 and RG-LRU against their definitions in float64, their initialisation, and a sharded time axis."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.mixers.lru import LRU, eigenvalues
from recjax.mixers.mixer import SeqContext
from recjax.mixers.rg_lru import RGLRU, root
from recjax.mixers.s5 import DAY, S5, Start
from recjax.ops.scan.ssm import hippo_legs, legs_dplr
from recjax.typing import InputError

WIDTH, LENGTH = 8, 16
SEGMENTS = np.array([[1] * 9 + [2] * 7, [1] * 11 + [0] * 5], np.int32)


def _context(segments=SEGMENTS, times=None) -> SeqContext:
    segments = jnp.asarray(segments)
    return SeqContext(
        segments, jnp.asarray(np.zeros(segments.shape, np.int32)), None if times is None else jnp.asarray(times)
    )


def _made(config, causal=True, context=None):
    """Parameters, inputs, and the compiled function of both and a context."""
    module = config.build(width=WIDTH, causal=causal, dtype=jnp.float32, name="mixer")
    x = np.random.default_rng(0).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)
    params = jax.jit(module.init)(jax.random.key(0), x, context or _context())
    return params, x, jax.jit(module.apply)


def _complex(pairs) -> np.ndarray:
    pairs = np.asarray(pairs, np.float64)
    return pairs[..., 0] + 1j * pairs[..., 1]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _histories():
    """Row, first position and end of each history of `SEGMENTS`."""
    return [(0, 0, 9), (0, 9, 16), (1, 0, 11)]


def test_lru_is_what_the_paper_says():
    params, x, apply = _made(LRU(state=5))
    y, p = apply(params, x, _context()), params["params"]
    nu, theta, gamma = np.asarray(p["ssm"]["ring"], np.float64)
    decay = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    for row, start, stop in _histories():
        h = np.zeros(5, complex)
        for t in range(start, stop):
            h = decay * h + np.exp(gamma) * (x[row, t] @ _complex(p["ssm"]["input"]))
            expected = (h @ _complex(p["output"])).real + x[row, t] * np.asarray(p["skip"])
            np.testing.assert_allclose(y[row, t], expected, rtol=1e-5, atol=1e-5)


def test_lru_begins_on_its_ring():
    module = LRU(state=4000, r_min=0.5, r_max=0.9, max_phase=1.0)
    ring = module.build(width=WIDTH, causal=True, dtype=jnp.float32, name="mixer")
    decay, gamma = jax.jit(lambda key: eigenvalues(ring._ring(key, (3, 4000))))(jax.random.key(0))
    radius = np.abs(np.asarray(decay))
    assert radius.min() >= 0.5 and radius.max() <= 0.9
    # Uniform on the ring: the squared radius is uniform.
    np.testing.assert_allclose(np.quantile(radius**2, [0.25, 0.5, 0.75]), [0.39, 0.53, 0.67], atol=0.02)
    np.testing.assert_allclose(np.quantile(np.angle(decay), [0.25, 0.75]), [0.25, 0.75], atol=0.03)
    np.testing.assert_allclose(np.asarray(gamma) ** 2, 1 - radius**2, rtol=1e-4)


def test_s5_is_the_whole_system_held_from_event_to_event():
    """Kept halves, eigenvectors and zero-order hold give what HiPPO-N gives with a matrix exponential."""
    size, step = 8, 0.05
    a = hippo_legs(size)[0]
    normal = a + np.outer(*(np.sqrt(np.arange(size) + 0.5),) * 2)
    config = S5(blocks=1, gate=False, step_min=step, step_max=step * 1.000001)
    params, x, apply = _made(config)
    p = params["params"]
    start = Start(1, size // 2)

    @jax.jit
    def drawn(key, other):
        ours = start.input(key, (WIDTH, size // 2, 2)), start.output(other, (size // 2, WIDTH, 2))
        return *ours, jax.random.normal(key, (WIDTH, 1, size)), jax.random.normal(other, (2, 1, size, WIDTH))

    p["ssm"]["input"], p["output"], *numbers = drawn(jax.random.key(5), jax.random.key(6))
    real, parts = (np.asarray(x, np.float64) for x in numbers)
    real, parts = real[:, 0] * WIDTH**-0.5, parts[:, 0] * size**-0.5
    y = apply(params, x, _context())
    keep = scipy.linalg.expm(step * normal)
    held = np.linalg.solve(normal, keep - np.eye(size))
    kept = legs_dplr(size).basis[:, size // 2 :]
    for row, first, stop in _histories():
        state = np.zeros(size)
        for t in range(first, stop):
            state = keep @ state + held @ (x[row, t] @ real)
            seen = 2 * (kept @ kept.conj().T @ state @ (parts[0] + 1j * parts[1])).real
            expected = seen + x[row, t] * np.asarray(p["skip"])
            np.testing.assert_allclose(y[row, t], expected, rtol=2e-4, atol=2e-5)


def test_s5_begins_with_the_steps_asked_for():
    params, _, _ = _made(S5(state=4000, blocks=500, step_min=1e-3, step_max=1e-1))
    steps = np.asarray(params["params"]["ssm"]["log_step"]) / np.log(10)
    np.testing.assert_allclose(np.quantile(steps, [0.0, 0.25, 0.5, 0.75, 1.0]), [-3, -2.5, -2, -1.5, -1], atol=0.06)
    decays = np.asarray(params["params"]["ssm"]["eigenvalues"])
    np.testing.assert_allclose(np.exp(decays[:, 0]), 0.5, rtol=1e-6)
    assert (decays[:, 1] > 0).all()


def test_s5_forgets_more_over_longer_gaps():
    config = S5(blocks=2, times=True, gate=False, step_min=0.05, step_max=0.1)
    context = lambda gap: _context(np.ones((2, LENGTH), np.int32), np.arange(LENGTH) * np.full((2, 1), gap))  # noqa: E731
    params, x, apply = _made(config, context=context(0))
    other = x.copy()
    other[:, 0] += 1.0
    effect = [
        np.abs(np.subtract(*(np.asarray(apply(params, each, context(gap))) for each in (x, other)))[:, -1]).max()
        for gap in (0, DAY, 30 * DAY)
    ]
    assert effect[0] > effect[1] > effect[2] > 0
    with pytest.raises(InputError, match="S5 with times=true reads timestamps"):
        apply(params, x, _context())


def test_rg_lru_is_what_the_paper_says():
    params, x, apply = _made(RGLRU(heads=2))
    random = np.random.default_rng(1)
    noise = lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape, np.float32)  # noqa: E731
    params = jax.tree.map(noise, params)
    y = apply(params, x, _context())
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    dense = lambda name, x: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    for row, start, stop in _histories():
        inputs, h = dense("input", x[row, start:stop]), np.zeros(WIDTH)
        for t in range(stop - start):
            u = p["bias"] + sum(p["kernel"][back] * inputs[t - back] for back in range(min(4, t + 1)))
            r, i = (
                _sigmoid(np.einsum("hi,hij->hj", u.reshape(2, -1), p[f"{name}_kernel"]).ravel() + p[f"{name}_bias"])
                for name in ("recurrence", "entry")
            )
            a = np.exp(-8 * r * np.log1p(np.exp(p["ssm"]["decay"])))
            h = a * h + np.sqrt(1 - a**2) * i * u if t else i * u
            gate = dense("gate", x[row, start + t])
            gate = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
            np.testing.assert_allclose(y[row, start + t], dense("output", gate * h), rtol=2e-4, atol=2e-5)


def test_rg_lru_begins_with_the_decays_asked_for():
    module = RGLRU(r_min=0.9, r_max=0.999).build(width=WIDTH, causal=True, dtype=jnp.float32, name="mixer")
    decay = np.exp(-np.logaddexp(0, jax.jit(lambda key: module._decay(key, (4000,)))(jax.random.key(0))))
    assert 0.899 < decay.min() < 0.905 and 0.997 < decay.max() < 0.9991
    np.testing.assert_allclose(np.median(decay**2), (0.81 + 0.998) / 2, atol=0.01)


def test_root_has_a_bounded_derivative():
    slope = jax.jit(jax.vmap(jax.grad(root)))(np.array([0, 1e-12, 0.25], np.float32))
    np.testing.assert_allclose(slope, [1000.0, 1000.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("config", [S5(blocks=2, gate=False)])
def test_the_second_run_is_the_first_of_the_histories_reversed(config):
    """With the second run's reading set to that of the first, reversing every history reverses the outputs."""
    params, x, apply = _made(config, causal=False)
    size = params["params"]["output"].shape[0] // 2
    params["params"]["output"] = np.concatenate([np.asarray(params["params"]["output"])[:size]] * 2)
    turned, order = x.copy(), np.tile(np.arange(LENGTH), (2, 1))
    for row, start, stop in _histories():
        order[row, start:stop] = order[row, start:stop][::-1]
    for row in range(2):
        turned[row] = x[row, order[row]]
    y, other = np.asarray(apply(params, x, _context())), np.asarray(apply(params, turned, _context()))
    for row, start, stop in _histories():
        np.testing.assert_allclose(other[row, start:stop], y[row, start:stop][::-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [S5(blocks=2, times=True), RGLRU()])
def test_a_sharded_time_axis_changes_nothing(config):
    times = np.cumsum(np.random.default_rng(2).integers(0, 3 * DAY, (2, LENGTH)), axis=1).astype(np.int32)
    context = _context(times=times)
    params, x, _ = _made(config, context=context)
    module = config.build(width=WIDTH, causal=True, dtype=jnp.float32, name="mixer")
    weight = (SEGMENTS > 0)[..., None] * np.cos(np.arange(x.size).reshape(x.shape)).astype(np.float32)
    loss = lambda params, x, context: jnp.sum(module.apply(params, x, context) * weight)  # noqa: E731
    expected = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x, context)
    mesh = jax.make_mesh((2, 1, 4), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        x, context = jax.device_put((x, context), NamedSharding(mesh, PartitionSpec("data", "seq")))
        got = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x, context)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), got, expected)


def test_states_stay_bounded_over_a_hundred_thousand_events():
    """Constant input, slow eigenvalues: ten chunks of ten thousand."""
    config = LRU(state=4, r_min=0.99, r_max=0.9999)
    params, _, _ = _made(config)
    module = config.build(width=WIDTH, causal=True, dtype=jnp.float32, name="mixer")
    segments = np.ones((1, 10_000), np.int32)
    context = SeqContext(*map(jnp.asarray, (segments, segments)), continues=jnp.asarray(np.ones(1, bool)))
    run = jax.jit(lambda state: module.apply(params, jnp.ones((1, 10_000, WIDTH)), context, state=state)[1])
    states = list(
        itertools.accumulate(
            range(10),
            lambda s, _: run(s),
            initial=config.init_state(width=WIDTH, rows=1, max_length=0, dtype=jnp.float32),
        )
    )
    decay, gamma = map(np.asarray, jax.jit(eigenvalues)(params["params"]["ssm"]["ring"]))
    limit = gamma * np.sum(_complex(params["params"]["ssm"]["input"]), axis=0) / (1 - decay)
    np.testing.assert_allclose(states[-1][0], limit, rtol=2e-3)


def test_settings_that_cannot_be_are_refused():
    for make in (
        lambda: LRU(r_min=0.9, r_max=0.8),
        lambda: LRU(max_phase=0.0),
        lambda: S5(step_min=0.1, step_max=0.01),
        lambda: S5(state=10, blocks=4).build(width=8, causal=True, dtype=jnp.float32, name="mixer"),
        lambda: RGLRU(r_max=1.0),
        lambda: RGLRU(heads=3).build(width=8, causal=True, dtype=jnp.float32, name="mixer"),
        lambda: RGLRU().build(width=8, causal=False, dtype=jnp.float32, name="mixer"),
    ):
        with pytest.raises(InputError):
            make()
