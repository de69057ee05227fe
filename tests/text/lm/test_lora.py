"""Adapters change nothing at first, are all that is trained, and merge into the kernels that they adapt."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.models.model import Model
from recjax.nn.groups import FROZEN
from recjax.nn.lora import LoRA, beside, joined, merged
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


def test_adapters_alone_are_trained():
    base = read_language_model(TWIN, layers=1)
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
