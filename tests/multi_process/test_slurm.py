"""The Slurm script trains a recipe on two processes, is told to stop, and goes on when submitted again, to one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from experiments.benchmarks.kill_resume import latest
from tests.multi_process.launch import ROOT, environment
from tests.tiny import SETTINGS, tiny_datasets

SCRIPT = ROOT / "experiments" / "launch" / "slurm.sbatch"
RUN = "runs/tiny"
ARGUMENTS = ["sasrec_synthetic", *SETTINGS, "--set", "data.dataset=shop", "--set", "train.steps=1000000"]
ARGUMENTS += ["--set", "train.evaluate_every=0", "--set", "train.save_every=4", "--run", RUN]


def free_job() -> int:
    """The number of a job whose port is free: the port of the coordinator follows from it."""
    for job in range(os.getpid() % 4096, os.getpid() % 4096 + 4096):
        with socket.socket() as server:
            try:
                server.bind(("", 61440 + job % 4096))
            except OSError:
                continue
            return job
    raise AssertionError("no port is free")


def submit(folder: Path, tasks: int) -> str:
    """Runs the script until it has saved anew, as Slurm does, sends TERM to its step; what was printed."""
    before, output = latest(folder / RUN), folder / "output.txt"
    slurm = {
        "SLURM_JOB_ID": str(free_job()),
        "STAND_IN_TASKS": str(tasks),
        "PATH": f"{Path(__file__).parent}:{os.environ['PATH']}",
        "RECJAX_DATA": str(folder / "data"),
        "RECJAX_CACHE": str(folder / "cache"),
    }
    with output.open("w") as file:
        job = subprocess.Popen(
            ["bash", SCRIPT, *ARGUMENTS], cwd=folder, env=environment(2) | slurm, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 500
        while latest(folder / RUN) < before + 4:
            assert job.poll() is None and time.monotonic() < deadline, output.read_text()[-4000:]
            time.sleep(0.1)
        job.send_signal(signal.SIGTERM)
        assert job.wait(300) == 0, output.read_text()[-4000:]
    finally:
        if job.poll() is None:
            job.terminate()
            job.wait(60)
    return output.read_text()


def test_the_script_trains_and_goes_on(tmp_path):
    tiny_datasets(tmp_path / "data", ["shop"])
    (tmp_path / ".venv/bin").mkdir(parents=True)
    program = tmp_path / ".venv/bin/recjax"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m recjax "$@"\n')
    program.chmod(0o755)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")

    first = submit(tmp_path, 2)
    assert "launched by Slurm: 2 processes on 1 host, 2 of 4 devices here, coordinator localhost:" in first
    stopped = re.findall(r"stopped by a signal after step (\d+) of 1000000, saved", first)
    assert stopped == [str(latest(tmp_path / RUN))]  # once, for the other process is silent
    second = submit(tmp_path, 1)
    assert f"resumes from the checkpoint of step {stopped[0]}" in second
    assert re.search(r"^goodput \d+\.\d% of \d+ s: .*init", second, re.MULTILINE)
    assert sorted(path.name for path in (tmp_path / RUN).iterdir() if "lock" in path.name) == []
