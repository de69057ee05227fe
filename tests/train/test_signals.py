"""A real process is sent real signals."""

import contextlib
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.benchmarks.kill_resume import latest, live, metrics
from recjax.train.folder.lock import LOCK
from recjax.train.loop import fit
from tests.train.toy import saved, toy_config, toy_task

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
from recjax.train import loop
from tests.train.toy import toy_config, toy_task

loop.plot_curves = lambda folder: None  # it takes as long as all else
folder, steps, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
loop.fit(toy_config(steps=steps, log_every=1, save_every=2), folder, toy_task(pause=pause))
"""

TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes standard input the controlling terminal, whose end sends SIGHUP."""


def command(folder, steps, pause=0.0):
    return [sys.executable, "-c", PROGRAM, str(folder), str(steps), str(pause)]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")  # as in this process, so that results are the same bits
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def wait_for(happened, process):
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_terminal_that_is_closed_saves_and_releases(tmp_path):
    """SIGHUP comes together with a terminal that takes no more words, which must not stop the save."""
    folder = tmp_path / "run"
    terminal, end = pty.openpty()
    take_terminal = [sys.executable, "-c", TERMINAL, *command(folder, 16, 0.25)]
    process = subprocess.Popen(take_terminal, stdin=end, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    threading.Thread(target=drain, args=(terminal,), daemon=True).start()
    try:
        wait_for(lambda: latest(folder), process)
        os.close(terminal)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert 0 < int(saved(folder, total=16)[0].step) < 16
    assert not (folder / LOCK).exists()


def drain(terminal):
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_killed_at_random_moments_and_told_to_stop_it_ends_as_the_unbroken_run(tmp_path, capsys):
    """The short form of experiments/benchmarks/kill_resume.py; a save is always under way when the kill comes.

    SIGTERM then saves and ends with status 0, and the same command goes on, here in this process.
    """
    folder, unbroken, steps = tmp_path / "killed", tmp_path / "unbroken", 40
    draw = random.Random(1)
    for _ in range(2):
        life = live(command(folder, steps, pause=0.02), folder, draw.uniform(0, 12), draw.uniform(0, 0.1))
        assert life.resumed == life.latest
        assert not life.done

    kept = latest(folder)
    process = subprocess.Popen(
        command(folder, steps, pause=0.25), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(lambda: latest(folder) > kept, process)
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output[-3000:]
        assert f"resumes from the checkpoint of step {kept}" in output and "stopped by a signal after step" in output
    finally:
        process.kill()
    stopped = int(saved(folder, total=steps)[0].step)
    assert kept < stopped < steps

    for path in (folder, unbroken):
        fit(toy_config(steps=steps, log_every=1, save_every=2), path, toy_task())
    assert f"resumes from the checkpoint of step {stopped}" in capsys.readouterr().out
    expected, actual = (saved(path, total=steps) for path in (unbroken, folder))
    jax.tree.map(np.testing.assert_array_equal, expected[0], actual[0])
    assert expected[1] == actual[1]
    assert metrics(folder) == metrics(unbroken)
