"""One run in five launches: a process is killed, one is told to stop, and the number of processes changes twice."""

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
STEPS, LIMIT = 120, 6.0


def test_a_run_survives(tmp_path):
    run = tmp_path / "run"
    environment = {"RECJAX_DEAD_AFTER": str(LIMIT), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}

    def start(processes, pause=0.15, **more):
        arguments = [str(run), str(STEPS), str(pause)]
        return Launched(PROGRAM, processes, arguments, 4 // processes, **environment, **more)

    def stopped(outputs):
        ends = set(re.findall(r"^process \d: (\d+) True$", "\n".join(outputs), re.MULTILINE))
        assert len(ends) == 1, "the processes stopped at different steps"
        (step,) = map(int, ends)
        assert latest(run) == step
        return step

    with start(2) as launched:
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
        assert silent in outputs[0] and "The same command goes on after the last checkpoint" in outputs[0]

    before = latest(run)
    with start(2) as launched:
        launched.wait_for(lambda: latest(run) >= before + 4)
        launched.processes[1].terminate()  # one of them
        outputs = launched.finish()
        assert f"goes on after the checkpoint of step {before}" in outputs[0]
        second = stopped(outputs)

    with start(4) as launched:
        launched.wait_for(lambda: latest(run) >= second + 4)
        launched.processes[3].send_signal(signal.SIGINT)
        outputs = launched.finish()
        assert f"goes on after the checkpoint of step {second}" in outputs[0]
        third = stopped(outputs)
        assert before < second < third < STEPS

    with start(2, pause=0.0) as launched:
        outputs = launched.finish()
        assert f"goes on after the checkpoint of step {third}" in outputs[0]

    config = toy_config(steps=STEPS, ema=0.9, log_every=1, save_every=2, evaluate_every=0)
    fit(config, tmp_path / "unbroken", toy_task())
    expected, actual = (saved(folder, ema=True, total=STEPS)[0] for folder in (tmp_path / "unbroken", run))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), expected, actual)
    losses = [read_metrics(folder)["loss"] for folder in (tmp_path / "unbroken", run)]
    assert len(losses[1]) == STEPS
    np.testing.assert_allclose(*losses, rtol=1e-4)  # of every step: each saw the batch that it should
