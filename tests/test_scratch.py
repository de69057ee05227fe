"""Scratch folders: what a killed process leaves is removed, or put back, by the next one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recjax import scratch
from recjax.scratch import scratch_beside

KILLED = """
import os, sys
from pathlib import Path
from recjax.scratch import scratch_beside
target, where = Path(sys.argv[1]), sys.argv[2]
if where == "between the renames":
    rename = Path.rename
    def second(self, to):
        if self.name.startswith(".") and ".new-" in self.name:
            os.kill(os.getpid(), 9)
        return rename(self, to)
    Path.rename = second
with scratch_beside(target) as folder:
    (folder / "content").write_text("new")
    if where == "inside":
        os.kill(os.getpid(), 9)
"""


def killed(target: Path, where: str) -> None:
    subprocess.run(
        [sys.executable, "-c", KILLED, str(target), where], check=False, env=os.environ | {"PYTHONPATH": "."}
    )


def test_it_takes_the_place_of_the_old_one_or_leaves_it(tmp_path):
    target = tmp_path / "deep" / "shop"
    for text in ("one", "two"):
        with scratch_beside(target) as folder:
            (folder / "content").write_text(text)
    with pytest.raises(KeyError), scratch_beside(target) as folder:
        (folder / "content").write_text("three")
        raise KeyError
    assert (target / "content").read_text() == "two"
    assert list(target.parent.iterdir()) == [target] and target.stat().st_mode & 0o777 == 0o755


def test_what_a_killed_process_leaves_goes_and_what_it_moved_aside_comes_back(tmp_path):
    target = tmp_path / "shop"
    with scratch_beside(target) as folder:
        (folder / "content").write_text("old")
    killed(target, "between the renames")
    assert not target.exists()
    killed(target, "inside")
    assert (target / "content").read_text() == "old"
    with scratch_beside(tmp_path / "shop.2"), scratch_beside(target) as folder:
        assert len(list(tmp_path.iterdir())) == 3  # the two that are being made, and the old one
        (folder / "content").write_text("new")
    assert (target / "content").read_text() == "new"


def test_one_of_another_machine_goes_when_it_is_forgotten(tmp_path, monkeypatch):
    target = tmp_path / "shop"
    monkeypatch.setattr(scratch, "machine", lambda: "another")
    left = scratch._made(target, "new")
    monkeypatch.undo()
    with scratch_beside(target):
        assert left.exists()
    long_ago = time.time() - 2 * scratch.FORGOTTEN
    os.utime(left, (long_ago, long_ago))
    with scratch_beside(target):
        assert not left.exists()
