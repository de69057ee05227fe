"""A disk that is full and one that is read-only: a clear end, and the last checkpoint is whole."""

import re
import subprocess
import sys

from experiments.benchmarks.kill_resume import latest
from recjax.train.loop import fit
from tests.multi_process.launch import ROOT, environment
from tests.train.toy import saved, toy_config, toy_task

STEPS = 400
CONFIG = {"steps": STEPS, "log_every": 1, "save_every": 50, "evaluate_every": 0}
PROGRAM = f"""
import ctypes, os, resource, sys
from pathlib import Path
folder, disk = sys.argv[1:]
if disk == "full":  # no file may grow beyond 100 kB: the log does, as on a disk without room
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
if disk == "read-only":  # root writes anywhere, unless this power is taken from it (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)
    ctypes.CDLL(None).prctl(24, 1)
    os.execv(sys.executable, [*sys.orig_argv[:-1], "as it is"])
from recjax.train.errors import TrainingError
from recjax.train.loop import fit
from recjax.typing import InputError
from tests.train.toy import toy_config, toy_task
try:
    fit(toy_config(**{CONFIG}), Path(folder), toy_task())
except (InputError, TrainingError) as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


def train(folder, disk):
    command = [sys.executable, "-c", PROGRAM, str(folder), disk]
    return subprocess.run(command, env=environment(1), cwd=ROOT, capture_output=True, text=True, check=False)


def test_full_and_read_only(tmp_path, capsys):
    run = tmp_path / "run"
    ended = train(run, "full")
    assert ended.returncode == 1, ended.stderr
    message = r"TrainingError: cannot write to .*: File too large\. The checkpoints in .* are complete"
    assert re.search(message, ended.stderr)
    assert "Traceback" not in ended.stderr
    kept = latest(run)
    assert kept >= 50
    assert saved(run, kept, total=STEPS)[0].step == kept

    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    ended = train(run, "read-only")
    for folder in folders:
        folder.chmod(0o755)
    assert ended.returncode == 1, ended.stderr
    assert "InputError: cannot write to the run folder" in ended.stderr and "Permission denied" in ended.stderr

    result = fit(toy_config(**CONFIG), run, toy_task())
    assert f"resumes from the checkpoint of step {kept}" in capsys.readouterr().out
    assert result.step == latest(run) == STEPS
