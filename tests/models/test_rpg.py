"""RPG against a plain loop, and codes have no order."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, bare_items
from recjax.models.model import ItemStats
from recjax.models.rpg import RPG
from recjax.typing import InputError
from tests.drawn import drawn_for

ITEMS, SIZES = 9, (4, 3, 4)
CODED = np.pad(np.random.default_rng(0).integers(0, 3, (ITEMS, 3)), [(1, 0), (0, 0)]).astype(np.int32)
CATALOG = bare_items(ITEMS, {CODES: jnp.asarray(CODED)})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (3,)}, SIZES)
CONFIG = RPG(width=8, layers=1, heads=2, dropout=0.0, max_length=4, codes=4, temperature=0.5)
MODEL = CONFIG.build(STATS)
ROWS = np.array([[1, 2, 3, 0], [4, 5, 6, 7]], np.int32)
HELD = (ROWS > 0).astype(np.int32)
PLACES = np.tile(np.arange(4, dtype=np.int32), (2, 1))
QUERIES = Queries(ROWS, PLACES, HELD.sum(1), ROWS[:, :0])  # pyright: ignore[reportArgumentType]
BATCH = Batch(ROWS, HELD, PLACES, ROWS % ITEMS + 1, HELD.astype(np.float32))  # pyright: ignore[reportArgumentType]


@cache
def params():
    """With heads that do something."""
    start = drawn_for(MODEL.init, jax.random.key(0), BATCH, CATALOG)
    return {**start, "heads": np.random.default_rng(1).normal(size=start["heads"].shape).astype(np.float32)}


@jax.jit
def found(params, items):
    scoring = MODEL.scoring(params, QUERIES, items)
    return MODEL.loss(params, BATCH, items, None)[0], scoring.scores(jnp.tile(jnp.arange(1, ITEMS + 1), (2, 1)))


def test_loss_and_scores_are_those_of_a_plain_loop():
    own = params()
    states = np.asarray(jax.jit(MODEL.module.apply)({"params": own}, CODED[ROWS], PLACES, HELD))
    losses, scores = [], np.zeros((2, ITEMS))
    for row, place in zip(*np.nonzero(HELD), strict=True):
        nats = np.zeros(ITEMS)
        for slot, size in enumerate(SIZES):
            mapped = states[row, place] @ np.asarray(own["heads"][slot])
            state = states[row, place] + mapped / (1 + np.exp(-mapped))
            table = np.asarray(own["codes"][slot][:size])
            logits = table @ state / np.linalg.norm(table, axis=1) / np.linalg.norm(state) / 0.5
            nats += (np.log(np.exp(logits).sum()) - logits)[CODED[1:, slot]]
            if place == HELD[row].sum() - 1:
                scores[row] += logits[CODED[1:, slot]]
        losses.append(nats[BATCH.targets[row, place] - 1] / 3)
    loss, scored = found(own, CATALOG)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)
    np.testing.assert_allclose(scored, scores, rtol=1e-4, atol=1e-4)


def test_slots_have_no_order():
    order = np.array([2, 1, 0])  # slots of the same size change places
    moved = {**params(), "codes": params()["codes"][order], "heads": params()["heads"][order]}
    other = bare_items(ITEMS, {CODES: jnp.asarray(CODED[:, order])})
    for one, two in zip(found(params(), CATALOG), found(moved, other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_built_says_why():
    with pytest.raises(InputError, match="needs `text` and a `tokenizer`"):
        CONFIG.build(ItemStats(ITEMS, np.ones(ITEMS + 1)))
    with pytest.raises(InputError, match=r"5 codes, but model\.codes is 4"):
        CONFIG.build(ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (1,)}, (5,)))
