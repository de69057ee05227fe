"""Loss and gradients are the same on every mesh of eight host devices."""

import chex
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.data.views import Batch
from recjax.models.bert4rec import BERT4Rec
from recjax.models.gsasrec import GSASRec
from recjax.models.model import ItemStats
from recjax.models.objectives import BCE, FullSoftmax, SampledSoftmax
from recjax.models.sasrec import SASRec

ITEMS, LENGTH, ROWS = 1000, 16, 16
MESHES = [(1, 1, 1), (8, 1, 1), (4, 2, 1), (2, 4, 1)]
SMALL = dict(width=16, layers=1, max_length=LENGTH)
CONFIGS = {
    "chunked": SASRec(**SMALL, loss=FullSoftmax(chunk_elements=2**12)),
    "sampled": SASRec(**SMALL, loss=SampledSoftmax(16, sampling="popularity", share="batch", log_q=True)),
    "gsasrec": GSASRec(**SMALL, loss=BCE()),
    "bert4rec": BERT4Rec(**SMALL, inner=32),
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


def _run(config, shape, key):
    model = config.build(ItemStats(ITEMS, np.arange(ITEMS + 1)))
    count = int(np.prod(shape))
    axes = ("data", "model", "seq")
    mesh = jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:count])
    rules = model.sharding_rules()
    assert rules[0] == (r"(^|/)(items|output)$", ("model", None))
    with jax.set_mesh(mesh):
        batch = jax.device_put(_batch(), NamedSharding(mesh, PartitionSpec("data")))
        params = dict(model.init(jax.random.key(0), _batch()))
        for name, value in params.items():
            spec = PartitionSpec("model", None) if name in ("items", "output") else PartitionSpec()
            params[name] = jax.device_put(value, NamedSharding(mesh, spec))
        (loss, sums), grads = jax.jit(jax.value_and_grad(model.loss, has_aux=True))(params, batch, key)
    return jax.tree.map(np.asarray, (loss, sums, grads))


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients(name):
    base = _run(CONFIGS[name], MESHES[0], None)
    for shape in MESHES[1:]:
        other = _run(CONFIGS[name], shape, None)
        chex.assert_trees_all_close(base, other, rtol=2e-4, atol=2e-6)


def test_dropout_masks_do_not_depend_on_the_mesh():
    base = _run(CONFIGS["chunked"], MESHES[0], jax.random.key(1))
    other = _run(CONFIGS["chunked"], (4, 2, 1), jax.random.key(1))
    np.testing.assert_allclose(base[0], other[0], rtol=1e-5)


def test_item_table_is_never_gathered():
    """The compiled step of a row-sharded table holds no array of all its rows."""
    items = 8191
    model = SASRec(**SMALL).build(ItemStats(items, np.ones(items + 1)))
    mesh = jax.make_mesh((2, 4, 1), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        params = jax.eval_shape(lambda: model.init(jax.random.key(0), _batch()))

        def shaped(path, leaf):
            spec = PartitionSpec("model", None) if path[0].key == "items" else PartitionSpec()
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

        params = jax.tree_util.tree_map_with_path(shaped, params)
        grads = jax.jit(jax.grad(lambda p, b: model.loss(p, b, None)[0])).lower(params, _batch()).compile()
    assert "f32[2048,16]" in grads.as_text()
    assert "f32[8192,16]" not in grads.as_text()
