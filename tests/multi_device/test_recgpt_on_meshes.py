"""RecGPT's loss, gradients and ranks are the same on every mesh of eight host devices."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from experiments.benchmarks.scaling import point
from recjax import recipes
from recjax.config import RunConfig, override_all
from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, VECTORS, Items, on_devices, text_items
from recjax.evaluate.ranking import prepared
from recjax.models.model import ItemStats
from recjax.models.recgpt import REPRESENTED, RecGPT
from recjax.parallel.mesh import MeshShape
from recjax.plan.program import abstract_inputs, trace_evaluation
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.fsq import FSQ
from tests.drawn import drawn_for

ITEMS, LENGTH, ROWS, SIZES = 63, 6, 16, (4, 4)
MESHES = [(2, 4, 1), (1, 1, 1)]


def _host() -> tuple[Batch, Items]:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, ITEMS + 1) for size in SIZES], axis=1)
    vectors = rng.normal(size=(ITEMS + 1, 8)).astype(np.float32)
    table = text_items(vectors, np.arange(ITEMS + 1) > 0, codes, rng.uniform(0.5, 2, ITEMS + 1))
    items = rng.integers(1, ITEMS + 1, (ROWS, LENGTH)).astype(np.int32)
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[::2, 4:] = 2
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    targets = rng.integers(1, ITEMS + 1, items.shape).astype(np.int32)
    return Batch(items, segments, positions, targets, np.ones(items.shape, np.float32)), table


HOST, CATALOG = _host()


def _model():
    config = RecGPT(width=8, layers=1, heads=2, memory=3, positions=4, chunk=10, metric_rank=2)
    return config.build(ItemStats(ITEMS, np.ones(ITEMS + 1), CATALOG.row_shapes, SIZES))


def _run(shape, params):
    """Loss, gradients and ranks on a mesh."""
    mesh = MeshShape(*shape).build(jax.devices()[: int(np.prod(shape))])
    with jax.set_mesh(mesh):
        table, model = on_devices(CATALOG), _model()
        batch = jax.device_put(HOST, NamedSharding(mesh, PartitionSpec("data")))
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        ranked = prepared(model, params, table)
        assert ranked.prepared[REPRESENTED].sharding.is_equivalent_to(table[VECTORS].sharding, 2)

        @jax.jit
        def function(params, batch, table, ranked):
            queries = Queries(batch.items, batch.positions, jnp.full(ROWS, LENGTH), batch.items)
            loss = jax.value_and_grad(lambda params: model.loss(params, batch, table, None)[0])
            return loss(params), model.scoring(params, queries, ranked).rank(batch.targets[:, 0], queries.seen)

        return jax.tree.map(np.asarray, function(params, batch, table, ranked))


def test_loss_gradients_and_ranks():
    """The laws of all systems have another mesh, without prepared rows that are laid out by hand."""
    start = drawn_for(_model().init, jax.random.key(0), HOST, CATALOG)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), start)
    for found, expected in zip(*map(jax.tree.leaves, (_run(shape, params) for shape in MESHES)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.fixture(scope="module")
def small() -> RunConfig:
    """The shipped recipe with a small network and text vectors of 64 coordinates."""
    shipped = recipes.read("recgpt_pretrain").config
    tokenizer = FSQ(slots=2, levels=(4,), heads=1)
    config = replace(shipped, tokenizer=tokenizer, text=TextSpace((Channel(Hashed(64)),)))
    return override_all(config, ["model.width=8", "model.heads=2", "model.layers=1", "data.rows=64"])


@pytest.mark.parametrize("negatives", [1024, 0])
def test_little_more_is_sent_than_has_to_be(small, negatives):
    """By the compiled step. Texts cross the model axis once each; gradients are summed as those of the weights."""
    config = override_all(small, [f"model.negatives={negatives}", "mesh.data=2", "mesh.model=4"])
    found = point(config, "cpu:8", ITEMS)
    assert found.least < found.sent < 1.2 * found.least


def test_a_plan_holds_the_prepared_catalog(small):
    config = small
    mesh = MeshShape(4, 2, 1).build()
    inputs = abstract_inputs(config, ITEMS, mesh)
    represented = inputs.ranked.prepared[REPRESENTED]
    assert represented.shape == (128, 64 + 2 * 8)
    assert represented.sharding.spec == PartitionSpec("model")
    assert not inputs.items.prepared and inputs.items[CODES].shape == (128, 2)
    with jax.set_mesh(mesh):
        text = trace_evaluation(config, inputs).lower().as_text()
    assert "128x80xf32" in text
