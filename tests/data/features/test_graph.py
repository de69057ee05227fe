"""Vectors of a graph: aggregation against dense products, what training makes of it, and items that it never saw."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.features.graph import Graph, GraphVectors, embedded, init
from recjax.data.transitions import user_items
from recjax.ops.graph import neighbour_means
from tests.data.features.test_features import IDS, SHOP, source, with_vectors

RANDOM = np.random.default_rng(0)
SMALL = GraphVectors(hidden=6, width=3, steps=30, batch=32, dropout=0.0, learning_rate=0.03)
USERS, ITEMS = 5, 7
HAD = RANDOM.random((USERS, ITEMS)) < 0.4
HAD[:, 6], HAD[4] = False, False  # an item and a user without links
FEATURES = RANDOM.normal(size=(ITEMS, 4)).astype(np.float32)


def dense() -> np.ndarray:
    """Shares of neighbours, [nodes, nodes]."""
    links = np.zeros((USERS + ITEMS,) * 2)
    links[:USERS, USERS:], links[USERS:, :USERS] = HAD, HAD.T
    return links / np.maximum(links.sum(axis=1, keepdims=True), 1)


def test_aggregation_is_that_of_dense_products():
    targets, sources = np.nonzero(dense())
    users, items = np.nonzero(HAD)
    graph = Graph(*map(jnp.asarray, (sources, targets, users, items, np.unique(items), FEATURES)))
    params = jax.tree.map(lambda x: x + 0.1, init(jax.random.key(0), USERS, 4, 6, 3))
    x = RANDOM.normal(size=(USERS + ITEMS, 2)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(neighbour_means)(x, sources, targets), dense() @ x, atol=1e-6)

    def leaky(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.01 * x)

    p = jax.tree.map(np.asarray, params)
    h = np.concatenate([p["users"], leaky(FEATURES @ p["start"]["kernel"] + p["start"]["bias"])])
    h = leaky(h @ p["first"]["own"] + (dense() @ h) @ p["first"]["near"] + p["first"]["bias"])
    h = h @ p["second"]["own"] + (dense() @ h) @ p["second"]["near"] + p["second"]["bias"]
    np.testing.assert_allclose(jax.jit(embedded)(params, graph), h, rtol=1e-5, atol=1e-5)


@cache
def fitted():
    shop = with_vectors()
    return shop, SMALL.fit([shop], 0)


def test_items_that_the_graph_has_keep_their_vectors_and_others_have_those_of_their_features():
    shop, state = fitted()
    found = SMALL.make(shop, state)
    assert found.shape == (len(IDS), 3) and not found[0].any() and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found[1:], axis=1).mean(), 1.0, rtol=1e-5)
    other = source("other", (["n", "b", "a"], ["b", "n", "a"], ["a", "n", "b"]), {"n": "new", "a": "red", "b": "x"})
    rows = {raw: row for row, raw in enumerate(other.dataset.item_ids)}
    vectors = RANDOM.normal(size=(4, 4)).astype(np.float32)
    other = replace(other, items=other.items.adding({"vectors": vectors}))
    there = SMALL.make(other, state)
    for raw in "ab":
        np.testing.assert_array_equal(there[rows[raw]], found[IDS.index(raw)])
    assert there[rows["n"]].any()
    vectors[rows["n"]] *= -1.0
    assert np.abs(SMALL.make(other, state)[rows["n"]] - there[rows["n"]]).max() > 1e-3


def test_training_puts_what_users_had_above_what_they_had_not():
    shop, _ = fitted()
    graph, users = SMALL._graph(shop)
    had = user_items(SHOP.train, len(IDS) - 1).toarray()[:, 1:] > 0
    np.testing.assert_array_equal(np.stack([graph.users, graph.items]), np.stack(np.nonzero(had)))

    def above(steps: int) -> float:
        nodes = np.asarray(embedded(replace(SMALL, steps=steps)._trained(graph, users, jax.random.key(0)), graph))
        scores = nodes[:users] @ nodes[users:].T
        return float(np.mean([scores[u][had[u]].mean() - scores[u][~had[u]].mean() for u in range(users)]))

    assert above(60) > above(0) + 0.5


def test_several_catalogs_are_refused():
    shop, _ = fitted()
    with pytest.raises(ValueError, match="events of one catalog"):
        SMALL.fit([shop, shop], 0)
