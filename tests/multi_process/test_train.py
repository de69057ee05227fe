"""Training on several processes: it stops when one of them is asked to, and goes on with another number of them."""

from pathlib import Path

import jax
import numpy as np
import pytest

from recjax.train.loop import fit
from tests.multi_process.launch import launch
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
