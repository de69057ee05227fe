"""One run in two launches of two processes and one of one: the first is killed, and the second told to stop."""

import re
import signal
import time
from pathlib import Path

import jax
import numpy as np

from experiments.benchmarks.kill_resume import latest
from recjax.parallel.processes import host_name
from recjax.track.metrics import read_metrics
from recjax.train.loop import fit
from tests.multi_process.launch import Launched
from tests.train.toy import saved, toy_config, toy_task

PROGRAM = Path(__file__).with_name("train_program.py")
STEPS, LIMIT = 50, 6.0


def test_a_run_survives(tmp_path, capsys):
    run = tmp_path / "run"
    # No cache of compiled programs: only the first process writes one, and the others would come late where all meet.
    environment = {"RECJAX_DEAD_AFTER": str(LIMIT), "JAX_ENABLE_COMPILATION_CACHE": "false"}

    def start():
        return Launched(PROGRAM, 2, [str(run), str(STEPS), "0.2"], 2, **environment)

    with start() as launched:
        launched.wait_for(lambda: latest(run) >= 4)
        found = launched.output(0)
        assert (
            "launched by JAX_COORDINATOR_ADDRESS: 2 processes on 1 host, 2 of 4 devices here, coordinator 127." in found
        )
        launched.processes[1].kill()
        killed = time.monotonic()
        outputs = launched.finish(1, -signal.SIGKILL)
        assert time.monotonic() - killed < LIMIT + 30  # a loaded machine; the watch itself needs 4 s above the limit
        silent = f"no sign of life from process 1 on {host_name()} for 6 s: killed, hanging or cut off"
        assert silent in outputs[0], outputs[0]
        assert "The same command resumes after the last checkpoint" in outputs[0]

    before = latest(run)
    with start() as launched:
        launched.wait_for(lambda: latest(run) >= before + 2)
        launched.processes[1].send_signal(signal.SIGINT)  # which it hands on to itself as SIGTERM
        launched.processes[0].send_signal(signal.SIGHUP)  # likewise; another one of the same launch changes nothing
        outputs = launched.finish()
        assert f"resumes from the checkpoint of step {before}" in outputs[0]
        ends = set(re.findall(r"^process \d: (\d+) True$", "\n".join(outputs), re.MULTILINE))
        assert ends == {str(latest(run))}, "the processes stopped at different steps"
        stopped = latest(run)
        assert before < stopped < STEPS

    config = toy_config(steps=STEPS, ema=0.9, log_every=1, save_every=4, evaluate_every=0)
    fit(config, run, toy_task())
    assert f"resumes from the checkpoint of step {stopped}" in capsys.readouterr().out
    fit(config, tmp_path / "unbroken", toy_task())
    expected, actual = (saved(folder, ema=True, total=STEPS)[0] for folder in (tmp_path / "unbroken", run))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), expected, actual)
    losses = [read_metrics(folder)["loss"] for folder in (tmp_path / "unbroken", run)]
    assert len(losses[1]) == STEPS
    np.testing.assert_allclose(*losses, rtol=1e-4)  # of every step: each saw the batch that it should
