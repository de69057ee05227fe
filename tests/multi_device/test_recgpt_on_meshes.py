"""RecGPT's loss, gradients and ranks are the same on every mesh of eight host devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.data.item_table import item_table, on_devices
from recjax.data.views import Batch, Queries
from recjax.evaluate.ranking import prepared
from recjax.models.model import ItemStats
from recjax.models.recgpt import RecGPT

ITEMS, LENGTH, ROWS, SIZES = 63, 6, 16, (4, 4)
MESHES = [(8, 1, 1), (4, 2, 1), (2, 4, 1)]


def _run(shape):
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, ITEMS + 1) for size in SIZES], axis=1)
    vectors = rng.normal(size=(ITEMS + 1, 8)).astype(np.float32)
    host = item_table(vectors, np.arange(ITEMS + 1) > 0, codes, rng.uniform(0.5, 2, ITEMS + 1))
    items = rng.integers(1, ITEMS + 1, (ROWS, LENGTH)).astype(np.int32)
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[::2, 4:] = 2
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    targets = rng.integers(1, ITEMS + 1, items.shape).astype(np.int32)
    batch = Batch(items, segments, positions, targets, np.ones(items.shape, np.float32))
    axes = ("data", "model", "seq")
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * 3, devices=devices)
    with jax.set_mesh(mesh):
        table = on_devices(host)
        batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        batch = Batch(**{**batch.__dict__, "catalog": table})
        config = RecGPT(width=8, layers=1, heads=2, memory=3, positions=LENGTH, chunk=10, metric_rank=2)
        model = config.build(ItemStats(ITEMS, np.ones(ITEMS + 1), table, SIZES))
        params = jax.device_put(model.init(jax.random.key(0), batch), NamedSharding(mesh, PartitionSpec()))
        params = jax.tree.map(lambda leaf: leaf + 0.1, params)
        catalog = prepared(model, params)
        assert catalog is not None and catalog.represented is not None
        assert catalog.represented.sharding.is_equivalent_to(table.vectors.sharding, 2)
        queries = Queries(batch.items, batch.positions, jnp.full(ROWS, LENGTH), batch.items, catalog=catalog)

        @jax.jit
        def function(params, batch, queries):
            loss = jax.value_and_grad(lambda params: model.loss(params, batch, None)[0])
            return loss(params), model.target_rank(params, queries, batch.targets[:, 0])

        return jax.tree.map(np.asarray, function(params, batch, queries))


@pytest.fixture(scope="module")
def base():
    return _run((1, 1, 1))


@pytest.mark.parametrize("shape", MESHES)
def test_loss_and_gradients(shape, base):
    for found, expected in zip(jax.tree.leaves(_run(shape)), jax.tree.leaves(base), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
