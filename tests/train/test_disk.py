"""A disk that is full and one that is read-only: a clear end, and the last checkpoint is whole."""

import ctypes
import re
import resource
import subprocess
import sys

import jax
import numpy as np

from experiments.benchmarks.kill_resume import latest
from recjax.train.loop import fit
from tests.multi_process.launch import ROOT, environment
from tests.train.toy import ITEMS, saved, toy_config, toy_task

CONFIG = {"steps": 400, "log_every": 1, "save_every": 50, "evaluate_every": 0}
PROGRAM = f"""
import sys
from pathlib import Path
from recjax.train.errors import TrainingError
from recjax.train.loop import fit
from recjax.typing import InputError
from tests.train.toy import toy_config, toy_task
try:
    fit(toy_config(**{CONFIG}), Path(sys.argv[1]), toy_task())
except (InputError, TrainingError) as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


def train(folder, before):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env=environment(1),
        cwd=ROOT,
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=False,
    )


def test_full_and_read_only(tmp_path):
    assert ITEMS < 100  # a checkpoint of the toy is smaller than a log of 400 steps
    run = tmp_path / "run"

    # No file may grow beyond 100 kB: the log does, as on a disk without room.
    ended = train(run, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert ended.returncode == 1, ended.stderr
    assert re.search(
        r"TrainingError: cannot write to .*: File too large\. The checkpoints in .* are complete", ended.stderr
    )
    assert "Traceback" not in ended.stderr
    kept = latest(run)
    assert kept >= 50
    saved(run, kept, total=400)

    # Root may write anywhere, unless this power is taken from it for good (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE).
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    ended = train(run, lambda: ctypes.CDLL(None).prctl(24, 1))
    assert ended.returncode == 1, ended.stderr
    assert "InputError: cannot write to the run folder" in ended.stderr and "Permission denied" in ended.stderr
    for folder in folders:
        folder.chmod(0o755)

    ended = train(run, None)
    assert ended.returncode == 0, ended.stderr
    assert f"goes on after the checkpoint of step {kept}" in ended.stdout
    fit(toy_config(**CONFIG), tmp_path / "unbroken", toy_task())
    expected, actual = (saved(folder, total=400)[0] for folder in (tmp_path / "unbroken", run))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), expected, actual)
