"""Lists by columns are those by rows: with ties, biases, chunks and catalogs further down; or there are none."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Queries
from recjax.data.items import bare_items
from recjax.decode.scoring import DotProduct, Pairs
from recjax.models.model import Model
from recjax.ops.items.topk import ITEM_CHUNK
from recjax.serve.columns import item_columns, listed

QUERIES = Queries(*(jnp.ones(shape, jnp.int32) for shape in ((3, 4), (3, 4), (3,), (3, 2))))


@dataclass(frozen=True)
class Scored(Model):
    """A model that is given what it scores by."""

    scores: object

    def init(self, key, batch, items): ...

    def loss(self, params, batch, items, key): ...

    def scoring(self, params, queries, items):
        return self.scores(params, queries)


@pytest.mark.parametrize("rows", [50, 2 * ITEM_CHUNK + 77])
def test_lists_are_the_same(rows: int):
    rng = np.random.default_rng(rows)
    vectors = rng.normal(size=(rows, 8)).astype(np.float32)
    vectors[rows // 2 :] = vectors[: rows - rows // 2]  # every item has an equal one far away
    bias = np.round(rng.normal(size=rows)).astype(np.float32)
    bias[rows // 2 :] = bias[: rows - rows // 2]
    users = jnp.asarray(rng.normal(size=(3, 8)), jnp.float32)
    params = {"vectors": jnp.asarray(vectors), "bias": jnp.asarray(bias)}
    allowed, hidden = jnp.asarray(rng.random(rows - 2) < 0.8), jnp.asarray([[1, 5], [0, 0], [7, 7]])
    for made in (
        DotProduct(users, params["vectors"], rows - 3, params["bias"]),
        DotProduct(users, params["vectors"], jnp.int32(rows - 9), None, jnp.int32(4)),
    ):
        model = Scored(lambda params, queries, made=made: replace(made, vectors=params["vectors"]))  # pyright: ignore
        columns = item_columns(model, params, QUERIES, bare_items(rows - 3))
        assert columns is not None and columns.shape[1] % 64 == 0 and columns.shape[1] >= rows
        one = jax.jit(lambda columns, made=made: listed(made, columns, hidden, 20, allowed))(columns)
        other = jax.jit(lambda made=made: made.topk(hidden, 20, allowed))()
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[1], other[1], rtol=1e-5, atol=1e-5)


def test_vectors_that_depend_on_the_query_and_other_scores_have_no_columns():
    table = jnp.ones((9, 2))
    params = {"table": table}

    def dependent(params, queries):
        return DotProduct(jnp.ones((3, 2)), params["table"] * queries.lengths[0], 8)

    def pairs(params, queries):
        return Pairs(lambda a, b: jnp.zeros((len(a), len(b))), jnp.ones((3, 2)), params["table"], 8)

    for scores in (dependent, pairs):
        model = Scored(scores)  # pyright: ignore[reportArgumentType]
        assert item_columns(model, params, QUERIES, bare_items(8)) is None
        made = scores(params, QUERIES)
        found = jax.eval_shape(lambda made=made: listed(made, None, QUERIES.seen, 3, jnp.ones(9, bool)))
        assert found[0].shape == (3, 3)
