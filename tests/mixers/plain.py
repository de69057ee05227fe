"""The layers inside mixers in NumPy, float64, and the batch that their definitions are tried on."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from recjax.mixers.mixer import SeqContext
from tests.drawn import drawn_for

WIDTH, LENGTH = 8, 16
# Two histories, one history between padding.
SEGMENTS = np.array([[1] * 9 + [2] * 7, [0] * 2 + [1] * 11 + [0] * 3], np.int32)


def context() -> SeqContext:
    positions = np.array([[*range(9), *range(7)], [0, 0, *range(11), 0, 0, 0]], np.int32)
    return SeqContext(*map(jnp.asarray, (SEGMENTS, positions, positions * 5000 + positions**2 * 300)))


def inputs(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, LENGTH, WIDTH)).astype(np.float32)


def histories() -> Iterator[tuple[int, slice]]:
    yield from ((0, slice(0, 9)), (0, slice(9, 16)), (1, slice(2, 13)))


def built(config, causal: bool = True):
    """Parameters, none of them at a special value, and the compiled function of (parameters, x)."""
    module = config.build(width=WIDTH, causal=causal, dtype=jnp.float32, name=None)
    params = drawn_for(module.init, jax.random.key(0), inputs(), context())
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * random.standard_normal(leaf.shape, np.float32), params)
    return params, jax.jit(lambda params, x: module.apply(params, x, context()))


def equals(config, definition, *, causal: bool = True) -> None:
    """Asserts that a mixer does to each history what `definition`(float64 parameters, x [l, d], history) says."""
    params, apply = built(config, causal)
    got, plain = np.asarray(apply(params, inputs())), jax.tree.map(lambda leaf: np.float64(leaf), params["params"])
    for row, where in histories():
        expected = definition(plain, np.float64(inputs()[row, where]))
        np.testing.assert_allclose(got[row, where], expected, rtol=2e-5, atol=2e-5)


def project(params, name: str, x: np.ndarray, heads: int | None = None) -> np.ndarray:
    """A projection [l, d], or [h, l, c] where there are heads."""
    y = x @ params[name]["kernel"] + params[name].get("bias", 0)
    return y if heads is None else split(y, heads)


def split(x: np.ndarray, heads: int) -> np.ndarray:
    return x.reshape(len(x), heads, -1).swapaxes(0, 1)


def joined(x: np.ndarray) -> np.ndarray:
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)


def rms(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def recurrence(q, k, v, a) -> np.ndarray:
    """o_t = q_t S_t, S_t = diag(a_t) S_{t-1} + k_t v_t^T, head by head, event by event; arrays [h, l, c]."""
    out = np.zeros(v.shape)
    for h in range(len(q)):
        state = np.zeros((k.shape[-1], v.shape[-1]))
        for t in range(q.shape[1]):
            state = np.atleast_1d(a[h, t])[:, None] * state + np.outer(k[h, t], v[h, t])
            out[h, t] = q[h, t] @ state
    return out
