"""Mamba-2 is the recurrence of the paper, and begins with the time scales it is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.mixers.mamba2 import Mamba2
from recjax.nn.groups import SSM
from recjax.typing import InputError
from tests.mixers import plain
from tests.mixers.plain import joined, project, rms, silu


def test_equals_the_recurrence():
    config = Mamba2(head_width=4, states=3, groups=2)
    heads, inner = config.heads(plain.WIDTH), 2 * plain.WIDTH
    assert heads == 4

    def definition(params, x):
        mixed, kernel = project(params, "input", x), params["kernel"]
        width = len(kernel)
        padded = np.concatenate([np.zeros((width - 1, mixed.shape[1])), mixed])
        taps = (padded[width - 1 - back :][: len(x)] * kernel[back] for back in range(width))
        mixed = silu(sum(taps) + params["bias"])
        value, key, query = np.split(mixed, [inner, inner + 2 * config.states], axis=-1)
        value = plain.split(value, heads)
        key, query = (np.repeat(plain.split(part, 2), heads // 2, axis=0) for part in (key, query))
        step = np.log1p(np.exp(project(params, "step", x) + params[SSM]["step_bias"])).T[..., None]
        decay = np.exp(-step * np.exp(params[SSM]["log_decay"])[:, None, None])
        out = plain.recurrence(query, key, step * value, decay) + params[SSM]["skip"][:, None, None] * value
        out = joined(out) * silu(project(params, "gate", x))
        return project(params, "output", rms(out, params["norm"]["scale"]))

    plain.equals(config, definition)


def test_begins_with_the_time_scales_asked_for():
    config = Mamba2(head_width=1, states=1, delta_min=1e-3, delta_max=0.1)
    module = config.build(width=256, causal=True, dtype=jnp.float32, name=None)  # pyright: ignore
    x, context = jnp.zeros((2, plain.LENGTH, 256)), plain.context()
    ssm = jax.jit(module.init)(jax.random.key(0), x, context)["params"][SSM]
    step, decay = np.log1p(np.exp(np.float64(ssm["step_bias"]))), np.exp(ssm["log_decay"])
    assert step.min() >= 0.99e-3 and step.max() <= 0.101 and (ssm["skip"] == 1).all()
    np.testing.assert_allclose(np.quantile(np.log10(step), [0.25, 0.5, 0.75]), [-2.5, -2, -1.5], atol=0.15)
    assert decay.min() >= 1 and decay.max() <= 16
    np.testing.assert_allclose(decay.mean(), 8.5, atol=0.7)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="heads of width 6 do not divide the 16 values"):
        Mamba2(head_width=6).build(width=8, causal=True, dtype=np.float32, name="mixer")
    with pytest.raises(InputError, match="groups is 3, expected a number that divides the number of heads, 2"):
        Mamba2(head_width=8, groups=3).build(width=8, causal=True, dtype=np.float32, name="mixer")
    with pytest.raises(InputError, match=r"delta_min is 0\.5, expected at most delta_max, which is 0\.1"):
        Mamba2(delta_min=0.5)
