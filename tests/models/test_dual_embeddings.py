"""Dual embeddings on planted baskets: complements by in x out, substitutes by in x in, and items that nobody bought."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Queries, Shifted
from recjax.data.items import Relation, bare_items
from recjax.models.dual_embeddings import DualEmbeddings
from recjax.models.model import ItemStats
from tests.drawn import drawn_for

GROUP, PAIRS = 3, 3
ITEMS = 2 * PAIRS * GROUP + 1  # groups of substitutes, two and two complements of each other; one item is never bought
ALIKE = np.zeros((ITEMS + 1, 1), np.int32)
ALIKE[1] = ITEMS  # the first item is like it
RELATION = Relation(*jax.tree.map(jnp.asarray, (ALIKE, (ALIKE > 0).astype(np.float32))))
KNOWN = bare_items(ITEMS).adding({"alike": RELATION})


def group(item: Any) -> Any:
    return (item - 1) // GROUP


@cache
def trained(**changes: Any) -> tuple[Any, Any]:
    """Model and parameters after baskets of one item each of two groups that complement each other."""
    random = np.random.default_rng(0)
    pairs, places = random.integers(0, PAIRS, 240), random.integers(1, GROUP + 1, (240, 2))
    items = (2 * pairs[:, None] + np.arange(2)) * GROUP + places
    items = np.where(random.random((240, 1)) < 0.5, items, items[:, ::-1]).astype(np.int32)
    histories = Histories.concatenated(np.full(240, 2), items.ravel(), np.arange(items.size), np.arange(240))
    rows = Loader(histories, Shifted(2), 120, None, 0, ITEMS).host_batch(0)
    stats = ItemStats(ITEMS, np.bincount(items.ravel(), minlength=ITEMS + 1))
    model = DualEmbeddings(width=16, negatives=4, drawn=32, **changes).build(stats)
    optimiser = optax.adam(0.03)

    @jax.jit
    def run(params: Any) -> Any:
        def step(carried: Any, key: Any) -> Any:
            params, state = carried
            updates, state = optimiser.update(jax.grad(lambda p: model.loss(p, rows, KNOWN, key)[0])(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(jax.random.key(1), 150))[0][0]

    return model, run(drawn_for(model.init, jax.random.key(0), rows, KNOWN))


@cache
def scores(score: str, **changes: Any) -> np.ndarray:
    """Scores of items 1.. for baskets of each item alone."""
    model, params = trained(**changes)
    model = replace(model, config=replace(model.config, score=score))
    every = np.arange(1, ITEMS + 1, dtype=np.int32)
    ones = np.ones(ITEMS, np.int32)
    queries = Queries(every[:, None], ones[:, None] * 0, ones, np.zeros((ITEMS, 0), np.int32))
    scored = jax.jit(lambda *given: model.scoring(*given).scores(jnp.tile(every, (ITEMS, 1))))
    return np.asarray(scored(params, queries, KNOWN))


def test_inputs_by_outputs_find_complements_and_inputs_by_inputs_substitutes():
    for score, wanted in (("in-out", lambda g: g ^ 1), ("in-in", lambda g: g)):
        found = np.array(scores(score)[:-1, :-1])
        np.fill_diagonal(found, -9.0)
        own = group(np.arange(1, ITEMS))
        assert (own[found.argmax(axis=1)] == wanted(own)).mean() > 0.9, score
    assert abs(scores("in-out") - scores("in-out").T).max() > 0.01  # bought after is not bought before


def test_synthetic_pairs_list_an_item_that_nobody_bought():
    plain, made = scores("in-out"), scores("in-out", synthetic=1.0)
    assert (plain[:, -1] < -2).all()  # not listed
    complements = group(np.arange(1, ITEMS)) == 1
    assert made[:-1, -1][complements].min() > made[:-1, -1][~complements].max()
    assert (group(np.arange(1, ITEMS))[made[-1, :-1].argsort()[-GROUP:]] == 1).all()
