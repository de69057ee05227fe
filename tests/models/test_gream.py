"""GREAM: samples are items, their probabilities those they were drawn by, and rewards make the target likelier."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch
from recjax.data.items import CODES, bare_items
from recjax.decode.sampling import log_probabilities, sampled_codes
from recjax.models.gream import GREAM
from recjax.models.model import ItemStats
from recjax.models.parts.tuned import REFERENCE
from recjax.nn.groups import FROZEN
from recjax.train.schedule import Calendar, Train
from recjax.typing import InputError
from tests.descent import descent

ITEMS, SIZES, TARGET = 16, (4, 4), 6
TUPLES = np.stack(np.divmod(np.arange(-1, ITEMS) % ITEMS, 4), axis=1).astype(np.int32)
CATALOG = bare_items(ITEMS, {CODES: jnp.asarray(TUPLES)})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (2,)}, SIZES)
CONFIG = GREAM(
    width=8, layers=1, heads=2, channels=4, inner=16, dropout=0.0, codes=4, beam=ITEMS, samples=8, k=2, tries=3
)
MODEL = CONFIG.build(STATS)
ROWS = np.tile([[1, 2, 3]], (8, 1)).astype(np.int32)
LAST = np.broadcast_to(np.arange(3) == 2, ROWS.shape)
BATCH = Batch(ROWS, ROWS * 0 + 1, ROWS * 0, np.where(LAST, TARGET, 0), LAST.astype(np.float32))  # pyright: ignore[reportArgumentType]


@cache
def params() -> Any:
    return jax.jit(MODEL.init)(jax.random.key(0), BATCH, CATALOG)


def test_samples_are_items_drawn_by_their_probabilities():
    @jax.jit
    def run(params: Any) -> Any:
        search = MODEL.answers(params, BATCH, CATALOG)
        every = jnp.broadcast_to(jnp.asarray(TUPLES[1:]), (8, ITEMS, 2))
        return sampled_codes(search, 200, jax.random.key(1)), log_probabilities(search, every)

    codes, found = map(np.asarray, run(params()))
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0, rtol=1e-4)
    shares = np.bincount((codes[..., 0] * 4 + codes[..., 1]).reshape(-1), minlength=ITEMS) / (8 * 200)
    np.testing.assert_allclose(shares, np.exp(found[0]), atol=0.05)


def test_rewards_of_prefixes():
    codes = jnp.array([[[1, 1], [1, 2], [2, 1]]])
    np.testing.assert_allclose(MODEL.rewards(codes, jnp.array([[1, 1]])), [[1.0, 0.5**0.5, 0.0]], rtol=1e-6)
    plain = replace(MODEL, config=replace(CONFIG, prefixes=False))
    assert np.asarray(plain.rewards(codes, jnp.array([[1, 1]]))).tolist() == [[1.0, 0.0, 0.0]]


def test_rewards_make_the_target_likelier_and_leave_the_reference_alone():

    @jax.jit
    def trained(start: Any) -> Any:
        return descent(lambda params, _, key: MODEL.loss(params, BATCH, CATALOG, key), start, jnp.arange(30))

    after, sums = trained(params())
    rewards, divergence = sums["reward"][0], sums["kl"][0]
    assert float(rewards[-5:].mean()) > float(rewards[:5].mean()) + 8 * 0.2
    assert float(divergence[0]) == 0 and float(divergence[-1]) > 0
    jax.tree.map(np.testing.assert_array_equal, after[FROZEN], params()[FROZEN])


def test_the_reference_is_what_the_run_starts_from():
    own = {**params(), "tokens": params()["tokens"] + 1}
    sweep: Any = None
    found = MODEL.refresh(own, CATALOG, sweep)
    np.testing.assert_array_equal(found[FROZEN][REFERENCE]["tokens"], own["tokens"])
    calendar = Calendar.of(Train(steps=10), 10, 4, False, MODEL.refresh_every)
    assert [step for step in range(11) if calendar.refreshes(step)] == [0]
    with pytest.raises(InputError, match=r"GREAM\.k is 9"):
        replace(CONFIG, k=9)
