"""LightGCN against dense matrices, and without its graph."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch
from recjax.data.items import Relation, bare_items
from recjax.models.lightgcn import LightGCN
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import FullSoftmax
from recjax.ops.items.embedding import table_rows

ITEMS = 6
RANDOM = np.random.default_rng(0)
IDS = np.pad(np.stack([RANDOM.permutation(ITEMS)[:3] + 1 for _ in range(ITEMS)]), [(1, 0), (0, 0)]).astype(np.int32)
VALUES = np.where(IDS > 0, RANDOM.uniform(0.1, 1, IDS.shape), 0).astype(np.float32)
IDS[3, 1:] = VALUES[3, 1:] = 0  # one link alone
FILL = [(0, table_rows(ITEMS + 1) - ITEMS - 1), (0, 0)]
GRAPH = Relation(jnp.asarray(np.pad(IDS, FILL)), jnp.asarray(np.pad(VALUES, FILL)))
CATALOG = bare_items(ITEMS).adding({"together": GRAPH})
MODEL = LightGCN(width=4, layers=2, loss=FullSoftmax()).build(ItemStats(ITEMS, np.ones(ITEMS + 1)))
ROWS = np.array([[1, 2, 3, 5, 6, 0]], np.int32)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0]], np.int32)
BATCH = Batch(ROWS, SEGMENTS, ROWS, np.array([[2, 3, 4, 6, 1, 0]]), np.float32(SEGMENTS > 0))  # pyright: ignore


PLAIN = replace(MODEL, config=replace(MODEL.config, layers=0))


@jax.jit
def made(key, batch, catalog):
    """Parameters, tables with the graph and without, and the loss."""
    params = MODEL.init(key, batch, catalog)
    tables = [each.table(params, catalog) for each in (MODEL, PLAIN)]
    return params, tables, MODEL.loss(params, batch, catalog, None)[0]


def test_vectors_and_loss_are_those_of_dense_matrices():
    params, (table, _), loss = made(jax.random.key(0), BATCH, CATALOG)
    weights = np.zeros((ITEMS + 1, ITEMS + 1))
    np.add.at(weights, (np.arange(ITEMS + 1)[:, None], IDS), VALUES)
    degrees = np.maximum(weights.sum(axis=1), 1e-9)
    graph, own = weights / np.sqrt(degrees[:, None] * degrees), np.asarray(params["items"])[: ITEMS + 1]
    expected = (own + graph @ own + graph @ graph @ own) / 3
    table = np.asarray(table)[: ITEMS + 1]
    np.testing.assert_allclose(table[1:], expected[1:], atol=1e-6)

    users = [table[[1]], table[[1, 2]], table[[1, 2, 3]], table[[5]], table[[5, 6]]]
    logits = np.stack([had.mean(axis=0) for had in users]) @ table[1:].T
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), np.array([2, 3, 4, 6, 1]) - 1]
    np.testing.assert_allclose(loss, nats.mean(), rtol=1e-5)


def test_no_steps_leave_the_vectors_as_they_are():
    params, (table, plain), _ = jax.device_get(made(jax.random.key(0), BATCH, CATALOG))
    np.testing.assert_array_equal(plain, params["items"])
    assert np.abs(table - params["items"]).max() > 1e-3
