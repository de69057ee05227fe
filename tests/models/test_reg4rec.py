"""REG4Rec: codes without an order in an order of the model's own choice, items alone at the ends of paths, and MPQ."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, bare_items
from recjax.decode.any_order import path_scores
from recjax.decode.stepwise import UNRANKED
from recjax.models.model import ItemStats
from recjax.models.reg4rec import REG4Rec, SetT5
from recjax.tokenizers.mpq import MPQ, overlap
from recjax.tokenizers.tokenizer import tokenize
from recjax.typing import InputError

ITEMS, SIZES = 12, (4, 3, 3)
RANDOM = np.random.default_rng(0)
TUPLES = np.stack(np.unravel_index(RANDOM.permutation(36)[: ITEMS + 1], SIZES), axis=1).astype(np.int32)
CATALOG = bare_items(ITEMS, {CODES: jnp.asarray(TUPLES)})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (3,)}, SIZES)
CONFIG = REG4Rec(width=8, layers=1, heads=2, channels=4, inner=16, dropout=0.0, codes=4, beam=None)
MODEL = CONFIG.build(STATS)
ROWS = RANDOM.integers(1, ITEMS + 1, (16, 4)).astype(np.int32)
LAST = np.broadcast_to(np.arange(4) == 3, ROWS.shape)
BATCH = Batch(ROWS, ROWS * 0 + 1, ROWS * 0, np.where(LAST, 3, 0), LAST.astype(np.float32))  # pyright: ignore[reportArgumentType]
QUERIES = Queries(ROWS, ROWS * 0, np.full(16, 4), ROWS[:, :0])  # pyright: ignore[reportArgumentType]


@cache
def params() -> Any:
    """Of the shapes of new ones, but large."""
    random = np.random.default_rng(5)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), BATCH, CATALOG)
    return jax.tree.map(lambda x: random.standard_normal(x.shape).astype(np.float32), shapes)


@cache
def asked() -> Any:
    """Compiled: codes, which of them -> logits after one history."""

    @jax.jit
    def run(params: Any, codes: Any, used: Any) -> Any:
        def logits(t5: SetT5) -> Any:
            states = t5.histories(jnp.asarray(TUPLES)[ROWS[:1]], jnp.ones((1, 4), bool))
            return t5.asked(states, jnp.ones((1, 4), bool), codes[None, None], used[None, None])[0, 0]

        return MODEL.module.apply({"params": params}, method=logits)

    return lambda codes, used: run(params(), codes, used)


def by_hand(order: str) -> tuple[np.ndarray, list[int]]:
    """Scores of all items for the first history, along the only path that ends at each; the best path's slots."""
    scores, ways = np.zeros(ITEMS), []
    for item in range(1, ITEMS + 1):
        used, total, way = np.zeros(3, bool), 0.0, []
        for place in range(3):
            chances = np.asarray(jax.nn.log_softmax(asked()(jnp.asarray(TUPLES[item]), jnp.asarray(used))))
            sure = np.where(used, -np.inf, chances.max(axis=1))
            slot = int(sure.argmax()) if order == "confidence" else place
            total, used = total + chances[slot, TUPLES[item, slot]], used | (np.arange(3) == slot)
            way.append(slot)
        scores[item - 1] = total
        ways.append(way)
    return scores, ways[int(scores.argmax())]


def scoring_of(params: Any, **settings: Any) -> Any:
    return replace(MODEL, config=replace(CONFIG, **settings)).scoring(params, QUERIES, CATALOG)


@cache
def searched(order: str, beam: int | None = None) -> Any:
    @jax.jit
    def run(params: Any) -> Any:
        scoring = scoring_of(params, order=order, beam=beam)
        search = (scoring.begin, scoring.step, scoring.queries, jnp.asarray(TUPLES[1:]), jnp.ones(ITEMS, bool))
        way = path_scores(*search, beam=scoring.beam or ITEMS, order=scoring.order)[2]
        lists = scoring.topk(QUERIES.seen, ITEMS)
        return scoring.found(), way, lists, scoring.rank(jnp.full(16, 3), QUERIES.seen)[0]

    return jax.tree.map(np.asarray, run(params()))


@pytest.mark.parametrize("order", ["confidence", "fixed"])
def test_every_path_ends_at_an_item_and_takes_the_slots_that_it_is_surest_of(order):
    scores, way = by_hand(order)
    found, ways, (items, values), ranks = searched(order)
    np.testing.assert_allclose(found[0], scores, atol=1e-4)
    assert ways[0].tolist() == way
    assert (len({tuple(each) for each in ways.tolist()}) > 1) == (order == "confidence")
    assert sorted(items[0]) == list(range(1, ITEMS + 1)) and (np.diff(values) <= 0).all()
    assert (items[np.arange(16), ranks - 1] == 3).all()


def test_a_narrow_search_finds_some_and_paths_that_do_not_agree_are_dropped():
    found, _, (items, _), ranks = searched("confidence", 3)
    count = (found > -np.inf).sum(axis=1)
    assert ((count >= 3) & (count < ITEMS)).all() and ((items > 0).sum(axis=1) == count).all()
    assert ((ranks == UNRANKED) == (found[:, 2] == -np.inf)).all()
    least = jax.jit(lambda params: [scoring_of(params, beam=3, agree=agree).found() for agree in (0.0, -1e3)])
    kept, every = map(np.asarray, least(params()))
    assert ((kept > -np.inf).sum(axis=1) == 1).all()
    best = np.where(found >= np.sort(found, axis=1)[:, -3:-2], found, -np.inf)
    np.testing.assert_array_equal(every, best)


def test_the_loss_asks_for_all_codes_that_are_left():
    """With all slots of equal chances it is the mean of log(size)."""
    flat = {**params(), "codes": params()["codes"] * 0}
    loss, sums = jax.jit(lambda params: MODEL.loss(params, BATCH, CATALOG, jax.random.key(1)))(flat)
    assert np.log(3) - 1e-5 <= loss <= np.log(4) + 1e-5 and float(sums["loss"][1]) == 16


def test_experts():
    assert float(overlap(jnp.eye(3)[None])[0]) == 0
    np.testing.assert_allclose(overlap(jnp.ones((1, 2, 3))), 1.0, rtol=1e-5)
    vectors = np.concatenate([np.zeros((1, 6)), RANDOM.normal(size=(40, 6))]).astype(np.float32)
    config = MPQ(slots=2, clusters=8, hidden=8, width=4, steps=30, batch=40)
    found = tokenize(config, vectors, np.arange(41) > 0, jax.random.key(0))
    assert len({tuple(row) for row in found.codes.codes[1:].tolist()}) == 40 and not found.codes.ordered
    again = tokenize(config, vectors, np.arange(41) > 0, state=found.state)
    np.testing.assert_array_equal(again.codes.codes, found.codes.codes)
    first = next(config.candidates(found.state, vectors[5:6])[0])
    assert first == tuple(config.encode(found.state, vectors, np.arange(41) > 0)[5].tolist())


def test_a_catalog_without_codes_is_refused():
    with pytest.raises(InputError, match="REG4Rec reads codes"):
        CONFIG.build(ItemStats(ITEMS, np.ones(ITEMS + 1)))
