"""Training on several processes: it stops when one of them is asked to, and goes on with another number of them."""

from pathlib import Path

import jax
import numpy as np
import pytest

from recjax.track.metrics import read_metrics
from recjax.train.loop import fit
from recjax.train.run import load_run
from tests.multi_process.launch import launch
from tests.train.real import real_config, write_datasets
from tests.train.toy import interrupt_at, saved, toy_config, toy_task

PROGRAM = Path(__file__).with_name("train_program.py")


@pytest.mark.parametrize(("number", "model"), [("SIGTERM", 1), ("SIGINT", 2)])
def test_from_two_processes_to_one(tmp_path, number, model):
    launch(PROGRAM, 2, [str(tmp_path), "5", number, str(model)])
    ends = {(tmp_path / f"result{process}").read_text() for process in range(2)}
    assert len(ends) == 1, "the processes stopped at different steps"
    step, preempted = ends.pop().split()
    assert preempted == "True" and 5 < int(step) < 60

    config = toy_config(steps=60, ema=0.9)
    assert saved(tmp_path, ema=True, total=60)[0].step == int(step)
    result = fit(config, tmp_path, toy_task())
    unbroken = fit(config, tmp_path / "unbroken", toy_task())
    assert (result.step, result.best_step) == (unbroken.step, unbroken.best_step)
    expected, actual = (saved(folder, ema=True, total=60)[0] for folder in (tmp_path / "unbroken", tmp_path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), expected, actual)


def test_from_one_process_to_two(tmp_path):
    first = fit(toy_config(steps=60, ema=0.9), tmp_path, toy_task(on_step=interrupt_at(7)))
    assert first.preempted
    launch(PROGRAM, 2, [str(tmp_path), "-1", "SIGTERM", "2"])
    assert (tmp_path / "result0").read_text() == "60 False"
    fit(toy_config(steps=60, ema=0.9), tmp_path / "unbroken", toy_task())
    expected, actual = (saved(folder, ema=True, total=60)[0] for folder in (tmp_path / "unbroken", tmp_path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), expected, actual)


def test_a_real_model_and_its_validation(tmp_path, monkeypatch):
    (data := tmp_path / "data").mkdir()
    for name, value in write_datasets(data).items():
        monkeypatch.setenv(name, value)
    config = real_config()
    alone = fit(config, tmp_path / "alone")
    launch(PROGRAM.with_name("real_train_program.py"), 2, [str(tmp_path / "two")], devices=4)
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
