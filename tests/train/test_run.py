"""Runs read back: the best checkpoint, on any mesh, of the dataset that they were trained on."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from recjax.evaluate.evaluator import EvaluationData
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train, fit
from recjax.train.run import load_run, read_record
from recjax.typing import InputError
from tests.train.real import real_config, write_datasets


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in write_datasets(tmp_path_factory.mktemp("data")).items():
            patch.setenv(name, value)
        yield real_config()


@pytest.fixture(scope="module")
def run_dir(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "small"
    fit(config, path)
    return path


def test_the_best_checkpoint_is_what_is_loaded(run_dir, config):
    run = load_run(run_dir)
    _, record = read_record(run_dir)
    assert run.step == record["progress"]["best_step"]
    assert run.config == config
    with jax.set_mesh(run.mesh):
        data = EvaluationData(run.dataset, run.split, config.data.view)
        metrics = config.evaluate.validate(run.model, run.params, data, 40)
    assert metrics[config.train.metric] == pytest.approx(record["progress"]["best_value"], abs=1e-6)


def test_any_checkpoint_on_any_mesh(run_dir):
    runs = [load_run(run_dir, step=6, mesh=shape.build()) for shape in (MeshShape(), MeshShape(model=4))]
    for run in runs:
        assert run.step == 6 and run.params["items"].sharding.mesh == run.mesh
    jax.tree.map(np.testing.assert_array_equal, *(jax.device_get(run.params) for run in runs))


def test_a_mesh_that_does_not_fit_is_replaced(run_dir, tmp_path):
    shutil.copytree(run_dir, copy := tmp_path / "copy")
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace('"data": -1', '"data": 64'))
    assert load_run(copy).mesh.shape["data"] == 8


def test_refusals(run_dir, tmp_path, config):
    with pytest.raises(InputError, match="not a run folder"):
        load_run(tmp_path / "absent")
    with pytest.raises(InputError, match="not a run folder"):
        load_run(tmp_path)
    with pytest.raises(InputError, match=r"no checkpoint of step 5; it has: 3, 6, 9"):
        load_run(run_dir, step=5)
    with pytest.raises(InputError, match=r"dataset 'small' with fingerprint .* but 'other' is another one"):
        load_run(run_dir, "other")
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, dataset="other"))
    with pytest.raises(InputError, match=r"data\.dataset is 'small' there and 'other' now"):
        fit(other, run_dir)
    with pytest.raises(InputError, match=r"train\.metric is 'ndcg@7'"):
        fit(dataclasses.replace(config, train=Train(steps=1, metric="ndcg@7")), tmp_path / "metric")
    assert not (tmp_path / "metric").exists()  # a setting that cannot be claims no folder
