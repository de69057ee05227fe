"""Refreshes: before the step they are due for, of frozen parameters alone, the same on any mesh and after any stop."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.splits import Histories
from recjax.nn.groups import FROZEN
from recjax.parallel.mesh import MeshShape
from recjax.track.metrics import read_metrics
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.interrupt import Interrupt
from recjax.train.loop import fit
from recjax.train.refresh import EpochSweep
from recjax.train.schedule import Calendar, Train
from recjax.typing import InputError
from tests.train.frozen import Refreshed
from tests.train.toy import NO_COLUMNS, OneDevice, toy_config, toy_task


def run(folder, model=Refreshed(), **config):  # noqa: B008
    """Twelve steps, of which 0, 5 and 10 begin epochs."""
    return fit(toy_config(**{"evaluate_every": 0, "save_every": 50, **config}), folder, toy_task(model=model))


def held(folder, step=12):
    with Checkpoints(folder / "checkpoints", writes=False) as checkpoints, jax.set_mesh(mesh := OneDevice().build()):
        shapes = jax.eval_shape(Refreshed().init, jax.random.key(0), None, NO_COLUMNS)
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
        return jax.device_get(checkpoints.restore_params(step, target, averaged=False))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    run(folder)
    return folder


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_stopped_around_a_refresh_is_the_unbroken_one(unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        for stop in (4, 5, 6, 10):  # before, at and after the refresh of step 5, and at that of step 10
            patch.setattr(Interrupt, "requested", lambda self, step, stop=stop: step == stop)
            result = run(tmp_path)
            assert result.preempted and result.step == stop
    run(tmp_path)
    same(held(tmp_path), held(unbroken))
    assert held(unbroken)[FROZEN]["switch"] == 1
    assert "goodput/refresh" in read_metrics(unbroken)


def test_any_mesh_gives_the_same(unbroken, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class FourDevices:
        shard_state: str = "none"

        def build(self):
            return MeshShape(model=2).build(jax.devices()[:4])

    run(tmp_path, mesh=FourDevices())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), held(tmp_path), held(unbroken))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": jnp.zeros((32, 8))}, "refresh of Wrong changes items, which is trained: it may change frozen"),
        ({"more": jnp.zeros(3)}, "refresh of Wrong adds or leaves out more"),
        ({FROZEN: {"switch": 1.0}}, "gives frozen/switch as float64 (), but it is float32 ()"),
        ({FROZEN: {"centroids": jnp.zeros((3, 8))}}, "gives frozen/centroids as float32 (3, 8), but it is float32"),
    ],
)
def test_what_a_refresh_may_not_do(tmp_path, changes, message):
    @dataclasses.dataclass(frozen=True)
    class Wrong(Refreshed):
        def refresh(self, params, items, sweep):
            changed = {**changes, FROZEN: params[FROZEN] | changes.get(FROZEN, {})}
            return {**params, **changed}

    with pytest.raises(InputError, match=re.escape(message)):
        run(tmp_path, Wrong())


def test_a_teacher_may_be_a_copy_of_what_is_trained_and_the_rest_may_come_back_as_new_arrays(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Teacher(Refreshed):
        def init(self, key, batch, items):
            params = super().init(key, batch, items)
            return {**params, FROZEN: {**params[FROZEN], "teacher": params["items"]}}

        def refresh(self, params, items, sweep):
            params = {**params, FROZEN: {**params[FROZEN], "teacher": params["items"]}}
            return params | {"dense": jax.tree.map(jnp.copy, params["dense"])}

    run(tmp_path, Teacher(every=4), save_every=4)
    with Checkpoints(tmp_path / "checkpoints", writes=False) as checkpoints:
        assert checkpoints.shapes(12, averaged=False)["frozen/teacher"] == (32, 8)


def test_the_calendar():
    def calendar(refresh):
        return Calendar.of(Train(steps=12), 12, 5, False, refresh)

    assert [step for step in range(13) if calendar("epoch").refreshes(step)] == [0, 5, 10]
    assert [step for step in range(13) if calendar(4).refreshes(step)] == [0, 4, 8]
    assert not any(calendar(None).refreshes(step) for step in range(13))
    for wrong, said in (("step", "'step'"), (2.0, "2.0"), (-1, "-1"), (calendar, "a method, not a property")):
        with pytest.raises(InputError, match=f"refresh_every of the model is {said}"):
            calendar(wrong)


@pytest.mark.parametrize("packed", [True, False])
def test_a_sweep_has_each_sample_once_in_order(packed, tmp_path):
    """Values at the last token of each history that is long enough, however they are packed, on four devices."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 37)
    items = rng.integers(1, 32, lengths.sum()).astype(np.int32)
    histories = Histories.concatenated(lengths, items, np.zeros(len(items), np.int64), np.arange(37))
    with jax.set_mesh(MeshShape().build(jax.devices()[:4])):
        loader = Loader(histories, Shifted(max_length=6), 8, 12, seed=3, n_items=31, packed=packed)
        sweep = EpochSweep(toy_task(loader=loader), {"shift": jnp.float32(0.5)}, 7, {})

        def fn(params, batch, items):
            return {"item": batch.items, "wide": batch.items[..., None] + jnp.arange(3) + params["shift"]}

        found = sweep(fn)
        assert sweep(fn)["item"].tolist() == found["item"].tolist() and len(sweep.functions) == 1
    long = np.flatnonzero(lengths > 1)
    np.testing.assert_array_equal(sweep.samples, long)
    last = items[np.cumsum(lengths)[long] - 2]
    np.testing.assert_array_equal(found["item"], last)
    np.testing.assert_array_equal(found["wide"], last[:, None] + np.arange(3) + 0.5)
    assert sweep.epoch == 7 // loader.steps(1)


def test_a_sweep_asks_for_a_value_for_each_token():
    sweep = EpochSweep(toy_task(), {"shift": jnp.float32(0.5)}, 0, {})
    with pytest.raises(InputError, match=r"gives an array \(16,\), expected \(16, 6, '...'\)"):
        sweep(lambda params, batch, items: batch.items.sum(axis=1))
