"""Batches that a CPU takes in parts: gradients, random numbers and lists are those of the whole, on any mesh."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from recjax.models.gsasrec import GSASRec
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BCE, BPR, FullSoftmax, SampledSoftmax
from recjax.models.sasrec import SASRec
from recjax.ops import parts
from recjax.ops.mesh_axes import axis_size
from recjax.train import step as steps
from recjax.train.state import initial_state
from recjax.train.step import make_train_step
from tests.train.toy import NO_COLUMNS, ROWS, ToyLoader, ToyModel

MESHES = [(1, 1, 1), (2, 1, 1), (4, 1, 1)]
STATS = ItemStats(40, np.ones(41, np.int64))


def on(shape: tuple[int, ...]):
    return jax.set_mesh(jax.make_mesh(shape, ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3))


def placed(batch):
    """Rows sharded over the data axis, as loaders give them."""
    sharding = NamedSharding(jax.sharding.get_mesh(), PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.device_put(np.asarray(x), sharding), batch)


@dataclass(frozen=True)
class ApartModel(ToyModel):
    """Rows do not see each other; a state has 100 bytes."""

    def row_bytes(self, batch: Any) -> int | None:
        return 100


def stepped(model, batch, accumulate=None):
    optimiser = optax.sgd(1.0)
    state = initial_state(model, optimiser, batch, NO_COLUMNS, jax.random.key(0), False)
    step = make_train_step(model, optimiser, accumulate=accumulate)
    text = step.lower(state, batch, NO_COLUMNS).as_text()
    state, sums = step(state, batch, NO_COLUMNS)
    return jax.device_get((state.params, sums)), text


def test_number_of_parts(monkeypatch):
    with on((1, 1, 1)):
        assert [parts.parts_of(64, 100, size) for size in (100, 800, 900, 6_400, 10_000)] == [64, 8, 8, 1, 1]
        assert parts.parts_of(7, 100, 200) == 7 and parts.parts_of(70, 100, 800) == 10
    with on((2, 1, 1)):
        assert parts.parts_of(70, 100, 800) == 10 and parts.parts_of(7, 100, 200) == 1
    assert parts.parts_of(64, 100, 100) == 1  # without a mesh, as where a program is exported for other devices
    monkeypatch.setattr(parts, "platform", lambda: "tpu")
    with on((1, 1, 1)):
        assert parts.parts_of(64, 100, 100) == 1


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_gradient_is_that_of_the_whole_batch_with_the_same_randomness_on_any_mesh(noise, monkeypatch):
    monkeypatch.setattr(steps, "STEP_BYTES", 200)
    batch = ToyLoader().batch(3)
    weights = np.array(batch.weights)
    weights[: ROWS // 4] = 0  # parts of very different weight, some of them without any
    batch = replace(batch, weights=jnp.asarray(weights))
    found = []
    for shape in MESHES:
        with on(shape):
            result, text = stepped(ApartModel(noise=noise), placed(batch))
            assert "while" in text
            found.append(result)
    if not noise:
        found.append(stepped(ApartModel(noise=0.0), batch, accumulate=1)[0])
    for other in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found[0], other)


def test_rows_that_see_each_other_and_large_models_are_not_parted(monkeypatch):
    monkeypatch.setattr(steps, "STEP_BYTES", 200)
    batch = ToyLoader().batch(3)
    with on((1, 1, 1)):
        assert "while" in stepped(ApartModel(noise=0.0), batch)[1]
        assert "while" not in stepped(ToyModel(noise=0.0), batch)[1]
        monkeypatch.setattr(steps, "MOST_PARAMETERS", 100)
        assert "while" not in stepped(ApartModel(noise=0.0), batch)[1]


@pytest.mark.parametrize(
    ("loss", "apart"),
    [
        (FullSoftmax(), True),
        (BCE(), True),
        (BPR(), True),
        (SampledSoftmax(), True),
        (SampledSoftmax(share="batch"), False),
        (SampledSoftmax(sampling="in-batch"), False),
    ],
)
def test_objectives_that_look_at_other_rows(loss, apart):
    batch = ToyLoader().batch(0)
    model = SASRec(width=8, layers=1, heads=1, max_length=batch.items.shape[1], loss=loss).build(STATS)
    assert model.row_bytes(batch) == (4 * 8 * batch.items.shape[1] if apart else None)
    assert GSASRec(width=8, layers=1, heads=1, max_length=20).build(STATS).row_bytes(batch)


@pytest.mark.parametrize("loss", [FullSoftmax(), SampledSoftmax(negatives=5)])
def test_sasrec_trains_alike_on_any_number_of_devices(loss, monkeypatch):
    """With dropout and drawn negatives; islands of the loss are plain inside a device's own parts."""
    monkeypatch.setattr(steps, "STEP_BYTES", 1_000)
    batch = ToyLoader().batch(1)
    model = SASRec(width=8, layers=1, heads=1, dropout=0.5, max_length=batch.items.shape[1], loss=loss).build(STATS)
    found = []
    for shape in MESHES[:2]:
        with on(shape):
            found.append(stepped(model, placed(batch))[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), *found)


@pytest.mark.parametrize("shape", MESHES)
def test_functions_of_rows_by_parts(shape, monkeypatch):
    monkeypatch.setattr(parts, "FORWARD_BYTES", 100)
    x, y = np.arange(16.0, dtype=np.float32).reshape(8, 2), np.arange(8, dtype=np.int32)

    def function(given):
        x, y, nothing = given
        assert nothing is None and len(x) == 2 * axis_size("data")
        return {"sum": x.sum(axis=1) + y, "x": x}

    with on(shape):
        found = jax.jit(lambda *given: parts.by_parts(function, (*given, None), 50))(x, y)
    np.testing.assert_array_equal(found["sum"], x.sum(axis=1) + y)
    np.testing.assert_array_equal(found["x"], x)
