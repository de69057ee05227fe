"""Linear attention, retention and gated linear attention are what their definitions say."""

import numpy as np
import pytest

from recjax.mixers.gla import GatedLinearAttention
from recjax.mixers.linear_attention import LinearAttention
from recjax.mixers.retention import Retention
from recjax.typing import InputError
from tests.mixers import plain
from tests.mixers.plain import joined, project, rms, silu

FEATURES = {
    "elu": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
}


@pytest.mark.parametrize(("feature", "causal"), [("elu", True), ("relu", False), ("identity", True)])
def test_linear_attention_weighs_by_products_of_features(feature, causal):
    def definition(params, x):
        q, k, v = (project(params, name, x, heads=2) for name in ("query", "key", "value"))
        weights = np.einsum("hlc,hmc->hlm", FEATURES[feature](q), FEATURES[feature](k))
        mixed = (np.tril(weights) if causal else weights) @ v
        return project(params, "output", joined(rms(mixed, params["norm"]["scale"])))

    plain.equals(LinearAttention(heads=2, feature=feature), definition, causal=causal)


def test_retention_weighs_by_distance():
    """The parallel form of the paper, eq. 5: rotations as complex numbers, decays as a matrix."""
    heads = 2

    def rotated(x):
        half = x.shape[-1] // 2
        turns = np.exp(1j * np.arange(x.shape[1])[:, None] * 10_000.0 ** (-np.arange(half) / half))
        return (x[..., :half] + 1j * x[..., half:]) * turns

    def definition(params, x):
        q, k, v = (project(params, name, x, heads) for name in ("query", "key", "value"))
        weights = np.einsum("hlc,hmc->hlm", rotated(q), rotated(k).conj()).real / np.sqrt(q.shape[-1])
        distance = np.subtract.outer(np.arange(len(x)), np.arange(len(x)))
        rates = (1 - 2.0 ** (-5 - np.arange(heads)))[:, None, None]
        mixed = (weights * np.where(distance >= 0, rates ** np.maximum(distance, 0), 0)) @ v
        return project(params, "output", joined(rms(mixed, params["norm"]["scale"])) * silu(project(params, "gate", x)))

    plain.equals(Retention(heads=heads), definition)


def test_gated_linear_attention_forgets_as_the_events_say():
    def definition(params, x):
        q, k, v = (project(params, name, x, heads=2) for name in ("query", "key", "value"))
        decay = plain.sigmoid(project(params, "decay", project(params, "decay_low", x))) ** (1 / 16)
        mixed = plain.recurrence(q / np.sqrt(q.shape[-1]), k, v, plain.split(decay, 2))
        return project(params, "output", joined(rms(mixed, params["norm"]["scale"])) * silu(project(params, "gate", x)))

    plain.equals(GatedLinearAttention(heads=2, rank=4), definition)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="heads is 3, expected a number that divides the width, 8"):
        LinearAttention(heads=3).build(width=8, causal=True, dtype=np.float32, name="mixer")
    with pytest.raises(InputError, match="feature is 'softmax', expected one of 'elu', 'relu', 'identity'"):
        LinearAttention(feature="softmax")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="even width of heads"):
        Retention(heads=8).build(width=8, causal=True, dtype=np.float32, name="mixer")
    with pytest.raises(InputError, match="heads is 8, expected a number that divides half the width, 4"):
        GatedLinearAttention(heads=8).build(width=8, causal=True, dtype=np.float32, name="mixer")
