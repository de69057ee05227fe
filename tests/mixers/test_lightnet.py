"""LightNet is a softmax over the past for every channel of the keys; its positions measure distances along axes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.mixers.lightnet import LightNet
from recjax.mixers.parts.axes import Axis
from recjax.mixers.toeplitz import Toeplitz
from recjax.nn.groups import SSM
from recjax.typing import InputError
from tests.mixers import plain
from tests.mixers.plain import joined, project, rms, silu


def _coordinates(axes, length):
    """Of one history, [l, m]."""
    at = np.arange(length)
    makers = {
        "position": lambda size: at,
        "item": lambda size: at // size,
        "slot": lambda size: at % size,
        "time": lambda size: (at * 5000 + at**2 * 300) // size,
    }
    return np.stack([makers[axis.of](axis.size) for axis in axes], axis=1)


def _definition(config, causal):
    """Sums of softmax weights, channel by channel."""

    def definition(params, x):
        q, k, v = (project(params, name, x, config.heads) for name in ("query", "key", "value"))
        k = rms(k, params["key_norm"]["scale"]) if config.key_norm else k
        channels, length = q.shape[-1], len(x)
        size = channels // max(len(config.axes), 1)
        weights = np.zeros((config.heads, length, length, channels))  # of event i in what t reads through channel c
        for t in range(length):
            seen = t + 1 if causal else length
            logits = np.concatenate([k[:, :seen], np.zeros((config.heads, int(config.sink), channels))], axis=1)
            share = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights[:, t, :seen] = (share / share.sum(axis=1, keepdims=True))[:, :seen]
        for j, along in enumerate(_coordinates(config.axes, length).T if config.axes else ()):
            rates = 10_000.0 ** (-np.arange(size) / size)
            distance = np.subtract.outer(along, along)
            weights[..., j * size : (j + 1) * size] *= np.cos(distance[..., None] * rates)
        mixed = np.einsum("htc,htic,hiv->htv", silu(q), weights, v)
        gate = silu(project(params, "gate", project(params, "gate_low", x)))
        return project(params, "output", rms(joined(mixed), params["norm"]["scale"]) * gate)

    return definition


AXES = (Axis("item", 3), Axis("slot", 3), Axis("time", 3600), Axis())


@pytest.mark.parametrize(
    ("config", "causal"),
    [
        (LightNet(heads=2, axes=()), False),
        (LightNet(heads=2, sink=True, gate_rank=3), True),
        (LightNet(heads=1, sink=True, key_norm=True, axes=AXES), False),
        (LightNet(heads=1, key_norm=True, axes=AXES), True),
    ],
    ids=["plain, both sides", "sink, past", "axes, both sides", "axes, past"],
)
def test_is_a_softmax_over_the_past_or_over_all(config, causal):
    plain.equals(config, _definition(config, causal), causal=causal)


def test_keys_of_any_size_are_exact_and_have_finite_gradients():
    """Weights far below the smallest float32, and keys that rise and fall by hundreds."""
    config = LightNet(heads=2)
    params, apply = plain.built(config)
    params = {"params": {**params["params"], "key": jax.tree.map(lambda leaf: 300 * leaf, params["params"]["key"])}}
    wide = jax.tree.map(lambda leaf: np.float64(leaf), params["params"])
    got = apply(params, plain.inputs())
    for row, where in plain.histories():
        expected = _definition(config, True)(wide, np.float64(plain.inputs()[row, where]))
        np.testing.assert_allclose(got[row, where], expected, rtol=1e-2, atol=2e-3)
    grads = jax.jit(jax.grad(lambda params: jnp.sum(jnp.square(apply(params, plain.inputs())[0]))))(params)
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("axes", [(Axis(),), (Axis("slot", 3), Axis("time", 3600))], ids=["one", "two"])
def test_toeplitz_is_a_kernel_of_distances(axes):
    config = Toeplitz(heads=2, size=3, axes=axes)

    def definition(params, x):
        decay = plain.sigmoid(params[SSM]["decay"])
        value = plain.split(x, 2)
        mixed = np.zeros_like(value)
        for j, along in enumerate(_coordinates(axes, len(x)).T):
            # Where a coordinate falls the axis begins afresh.
            run = np.cumsum(np.diff(along, prepend=along[0]) < 0)
            distance = np.subtract.outer(along, along)
            together = np.tril(np.equal.outer(run, run))
            taps = params["query"][j] * params["key"][j]
            kernel = np.einsum("hs,hslm->hlm", taps, decay[j][..., None, None] ** np.maximum(distance, 0))
            mixed = mixed + (kernel * together) @ value
        return project(params, "output", rms(joined(mixed), params["norm"]["scale"]))

    plain.equals(config, definition)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="5 axes of positions share the 4 channels"):
        LightNet(heads=2, axes=(Axis(),) * 5).build(width=8, causal=True, dtype=np.float32, name="mixer")
    with pytest.raises(InputError, match="expected one of 'position', 'item', 'slot', 'time'"):
        Axis("session")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="an axis of time reads timestamps"):
        Axis("time", 60).coordinate(dataclasses.replace(plain.context(), timestamps=None))
