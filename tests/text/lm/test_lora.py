"""Adapters change nothing at first, are all that is trained, and merge into the kernels that they adapt."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from recjax.models.model import Model
from recjax.nn.groups import FROZEN
from recjax.nn.lora import LoRA, beside, joined, merged
from recjax.nn.quantised import SCALE, quantised, restored
from recjax.text.lm.decoder import Decoder
from recjax.text.lm.folder import LanguageModel, read_language_model
from recjax.text.lm.generate import log_likelihoods
from recjax.text.rows import padded
from recjax.train.optimiser import AdamW
from recjax.train.state import initial_state
from recjax.train.step import make_train_step

TWIN = Path(__file__).parent / "twins" / "qwen2"
ALL = LoRA(rank=2, alpha=6.0, targets=("query", "key", "value", "output", "gate", "up", "down"))


@dataclass(frozen=True)
class Tuned(Model):
    """A system that learns texts by adapters of a decoder."""

    base: LanguageModel
    decoder: Decoder
    stats: Any = None

    def init(self, key, batch, items):
        return beside(self.base.params, self.decoder, key, batch)

    def loss(self, params, batch, items, key):
        found = -log_likelihoods(self.decoder, joined(params), batch)
        total, weight = found.sum(), jnp.float32((batch.segments > 0).sum())
        return total / weight, {"loss": (total, weight)}


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_adapters_alone_are_trained(weights):
    base = read_language_model(TWIN, layers=1, weights=weights)
    model: Any = Tuned(base, replace(base.decoder, lora=ALL))
    batch: Any = padded(np.random.default_rng(0).integers(0, 40, (4, 8)))
    optimiser: Any = AdamW(1e-2, weight_decay=0.1).build(20)
    state = initial_state(model, optimiser, batch, None, jax.random.key(0), False)  # pyright: ignore[reportArgumentType]
    before = jax.tree.map(np.asarray, state.params)
    plain = np.asarray(log_likelihoods(base.decoder, base.params, batch))
    np.testing.assert_array_equal(log_likelihoods(model.decoder, joined(before), batch), plain)

    moments = jax.tree.leaves(state.opt_state)
    adapters = sum(leaf.size for leaf in jax.tree.leaves(state.params["lora"]))
    assert 2 * adapters <= sum(leaf.size for leaf in moments) <= 2 * adapters + 4

    step, losses = make_train_step(model, optimiser), []
    for _ in range(20):
        state, sums = step(state, batch, None)  # pyright: ignore[reportArgumentType]
        losses.append(float(sums["loss"][0] / sums["loss"][1]))
    assert losses[-1] < losses[0] - 0.1
    jax.tree.map(np.testing.assert_array_equal, state.params[FROZEN], before[FROZEN])
    jax.tree.map(np.testing.assert_array_equal, state.params[FROZEN], base.params)
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.params["lora"], before["lora"])
    assert all(jax.tree.leaves(moved))
    # Merged into the kernels that they adapt, they give the same.
    tuned = np.asarray(log_likelihoods(model.decoder, joined(state.params), batch))
    whole = log_likelihoods(base.decoder, merged(joined(state.params), ALL), batch)
    np.testing.assert_allclose(whole, tuned, atol=1e-4)
    assert np.abs(tuned - plain).max() > 0.1


def test_kernels_of_eight_bits_are_near_and_are_what_is_computed_with():
    whole, small = (read_language_model(TWIN, weights=weights) for weights in ("float32", "int8"))
    flat, exact = flatten_dict(small.params), flatten_dict(whole.params)
    kernels = [path for path in flat if path[-1] == "kernel"]
    assert kernels and all(flat[path].dtype == np.int8 for path in kernels)
    assert all(x.dtype == jnp.bfloat16 for path, x in flat.items() if path[-1] not in ("kernel", SCALE))
    for path in kernels:
        step = flat[*path[:-1], SCALE]
        assert (np.abs(restored(flat[path], step) - exact[path]) <= 0.5001 * step).all()
    rows = padded(np.random.default_rng(0).integers(0, 40, (4, 12)))
    same = unflatten_dict(
        {
            path: restored(x, flat[*path[:-1], SCALE]) if path[-1] == "kernel" else x
            for path, x in flat.items()
            if path[-1] != SCALE
        }
    )
    found = {
        name: np.asarray(log_likelihoods(whole.decoder, params, rows))
        for name, params in (("int8", small.params), ("restored", same), ("float32", whole.params))
    }
    np.testing.assert_allclose(found["int8"], found["restored"], rtol=1e-5, atol=1e-5)
    assert 0 < np.abs(found["int8"] - found["float32"]).mean() < 0.05 * np.abs(found["float32"]).mean()
    adapted = beside(small.params, replace(small.decoder, lora=ALL), jax.random.key(0), rows)
    plain = merged(joined(adapted), ALL)
    np.testing.assert_allclose(log_likelihoods(whole.decoder, plain, rows), found["int8"], rtol=1e-5, atol=1e-5)
    assert quantised(np.zeros((3, 2), np.float32))[0].tolist() == [[0, 0]] * 3
