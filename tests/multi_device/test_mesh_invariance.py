"""Loss and gradients are the same on every mesh of eight host devices."""

from functools import lru_cache
from typing import Any

import chex
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from recjax.data.batches.views import Batch
from recjax.data.items import bare_items
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.models.parts.dot_product import DotProductModel
from recjax.models.parts.objectives import FullSoftmax, SampledSoftmax
from recjax.models.sasrec import SASRec
from recjax.ops.items.embedding import table_rows
from recjax.ops.items.softmax import full_softmax
from recjax.parallel.mesh import MeshShape
from recjax.train.state import sharding_rules
from recjax.typing import Params
from tests.drawn import drawn_for

ITEMS, LENGTH, ROWS = 1000, 16, 16
ALONE = (1, 1, 1)
KEY = jax.random.key(1)
BARE = bare_items(ITEMS)
SMALL = dict(width=16, layers=1, max_length=LENGTH)
CONFIGS = {
    "chunked": SASRec(**SMALL, dropout=0.0, loss=FullSoftmax(chunk_elements=2**12)),
    "sampled": SASRec(**SMALL, loss=SampledSoftmax(16, sampling="popularity", share="batch", log_q=True)),
    "biases": NextItem(**SMALL, bias=True, loss=SampledSoftmax(16, share="row")),
}


def _batch() -> Batch:
    rng = np.random.default_rng(0)
    items = rng.integers(1, ITEMS + 1, (ROWS, LENGTH)).astype(np.int32)
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[::2, 10:] = 2
    weights = (rng.random((ROWS, LENGTH)) < 0.7).astype(np.float32)
    weights[:5] = 0  # devices with no work at all must not disturb the others
    targets = np.where(weights > 0, rng.integers(1, ITEMS + 1, items.shape), 0).astype(np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    return Batch(items, segments, positions, targets, weights)


def _model(name: str) -> DotProductModel:
    return CONFIGS[name].build(ItemStats(ITEMS, np.arange(ITEMS + 1)))


@lru_cache
def _parameters(name: str) -> Params:
    start = drawn_for(_model(name).init, jax.random.key(0), _batch(), BARE)
    if "bias" in start:
        start["bias"] = np.random.default_rng(0).normal(size=start["bias"].shape).astype(np.float32)
    return jax.tree.map(np.asarray, start)


@lru_cache
def _run(name: str, shape: tuple[int, int, int]) -> tuple[Any, str]:
    """Loss, sums and gradients on a mesh, with the dropout and draws of negatives that there are; and the program."""
    model, mesh = _model(name), MeshShape(*shape).build(jax.devices()[: int(np.prod(shape))])
    with jax.set_mesh(mesh):
        batch = jax.device_put(_batch(), NamedSharding(mesh, PartitionSpec("data")))
        params = jax.device_put(_parameters(name), sharding_rules(model).shard(_parameters(name), mesh))
        assert params["items"].sharding.spec == PartitionSpec("model", None)
        assert "bias" not in params or params["bias"].sharding.spec == PartitionSpec("model")
        inputs = (params, batch, BARE, KEY)
        program = jax.jit(jax.value_and_grad(model.loss, has_aux=True)).lower(*inputs).compile()
        return jax.tree.map(np.asarray, program(*inputs)), program.as_text()


# Attention over `seq` works in blocks, which draw other masks of dropout than whole rows do; the first has none.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("chunked", shape) for shape in ((8, 1, 1), (2, 4, 1), (2, 2, 2))),
        ("sampled", (4, 2, 1)),
        ("biases", (4, 2, 1)),
    ],
)
def test_loss_and_gradients(name, shape):
    chex.assert_trees_all_close(_run(name, ALONE)[0], _run(name, shape)[0], rtol=2e-4, atol=2e-6)


def test_item_table_is_never_gathered():
    """The compiled step of a row-sharded table holds no array of all its rows."""
    assert _parameters("chunked")["items"].shape == (1024, 16)
    text = _run("chunked", (2, 4, 1))[1]
    assert "f32[256,16]" in text
    assert "f32[1024,16]" not in text


def test_the_softmax_of_a_position_is_computed_by_one_device_of_the_sequence_axis():
    items, width, mesh = 1000, 16, MeshShape(2, 1, 4).build()
    random = np.random.default_rng(0)
    inputs = (
        random.normal(size=(ROWS, LENGTH, width)).astype(np.float32),
        random.normal(size=(table_rows(items + 1), width)).astype(np.float32),
        random.integers(1, items + 1, (ROWS, LENGTH)).astype(np.int32),
        (random.random((ROWS, LENGTH)) < 0.7).astype(np.float32),
    )

    def loss(hidden, table, targets, weights):
        return full_softmax(hidden, table, None, targets, weights, items=items, chunk_elements=2**12)

    function = jax.value_and_grad(loss, (0, 1))
    alone = jax.jit(function)(*inputs)
    with jax.set_mesh(mesh):
        tokens, all_ = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data", "seq"), ()))
        inputs = jax.device_put(inputs, (tokens, all_, tokens, tokens))
        step = jax.jit(function).lower(*inputs).compile()
        chex.assert_trees_all_close(alone, step(*inputs), rtol=2e-4, atol=5e-6)
    assert "all-gather" not in step.as_text()
    assert step.output_shardings[1][0].spec == tokens.spec
