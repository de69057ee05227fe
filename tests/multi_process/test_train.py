"""Training on two processes of two devices gives what one device gives."""

from pathlib import Path

import jax
import numpy as np
import pytest

from recjax.track.metrics import read_metrics
from recjax.train.loop import fit
from recjax.train.run import load_run
from tests.multi_process.launch import launch
from tests.tiny import on_one_device
from tests.train.real import real_config, write_datasets


def test_a_real_model_and_its_validation(tmp_path, monkeypatch):
    (data := tmp_path / "data").mkdir()
    for name, value in write_datasets(data).items():
        monkeypatch.setenv(name, value)
    on_one_device(monkeypatch)
    alone = fit(real_config(), tmp_path / "alone")
    launch(Path(__file__).with_name("real_train_program.py"), 2, [str(tmp_path / "two")], devices=2)
    results = {(tmp_path / "two" / f"result{process}").read_text() for process in range(2)}
    assert len(results) == 1
    step, best_step, best_value = results.pop().split()
    assert (int(step), int(best_step)) == (alone.step, alone.best_step)
    assert float(best_value) == pytest.approx(alone.best_value, abs=1e-3)
    curves = [read_metrics(tmp_path / name) for name in ("alone", "two")]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(curves[0][name], curves[1][name], rtol=1e-4)
    # Not the biases of attention keys: their gradient is 0 but for rounding, and Adam scales that up.
    tables = [jax.device_get(load_run(tmp_path / name).params["items"]) for name in ("alone", "two")]
    np.testing.assert_allclose(*tables, rtol=1e-3, atol=1e-3)
