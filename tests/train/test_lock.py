"""Two jobs in one run folder: the second is refused while the first lives, and goes on when it is dead."""

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from recjax.train.folder import lock as locks
from recjax.train.folder.lock import LOCK, Lock
from recjax.train.loop import fit
from recjax.typing import InputError
from tests.train.toy import toy_config, toy_task


def test_the_second_job_is_refused_and_told_of_the_first(tmp_path):
    run = tmp_path / "run"
    with Lock(run):
        started = json.loads((run / LOCK).read_text())["started"]
        message = rf"is in use by the job of host \S+, pid {os.getpid()}, started {re.escape(started)}"
        with pytest.raises(InputError, match=message):
            fit(toy_config(), run, toy_task())
        assert list(run.iterdir()) == [run / LOCK]  # nothing was written
    assert not run.exists()  # nor is anything left of a job that put nothing there


def test_a_killed_job_on_this_machine_is_taken_over_at_once(tmp_path, capfd):
    use = "from pathlib import Path; from recjax.train.folder.lock import Lock"
    hold = f"{use}; Lock(Path({str(tmp_path)!r})).__enter__()"
    subprocess.run([sys.executable, "-c", f"{hold}; import os; os.kill(os.getpid(), 9)"], check=False)
    left = json.loads((tmp_path / LOCK).read_text())
    began = time.monotonic()
    with Lock(tmp_path):
        assert time.monotonic() - began < 5
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert f"pid {left['pid']}" in capfd.readouterr().out
    (tmp_path / LOCK).write_text(json.dumps({**left, "pid": os.getpid()}))  # the pid went to another process
    with Lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def elsewhere(monkeypatch):
    """Locks made from here on are those of another machine, whose processes cannot be seen."""
    monkeypatch.setattr(locks, "_machine", lambda: "")


def test_a_job_on_another_machine_lives_while_it_gives_signs(tmp_path, elsewhere, capfd):
    with Lock(tmp_path, beat=0.2), pytest.raises(InputError, match="is in use by"), Lock(tmp_path, limit=30):
        pass
    assert "held by a job on another machine" in capfd.readouterr().out


def test_a_job_on_another_machine_that_gives_no_sign_is_taken_over_by_one(tmp_path, elsewhere, capfd):
    Lock(tmp_path, beat=3600).__enter__()  # killed: it never lets go
    held, refused = [], []

    def take():
        try:
            with Lock(tmp_path, beat=0.2, limit=1.5):
                held.append(1)
                time.sleep(4)
        except InputError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_sign_of_life_from_the_future_is_no_longer_one_for_ever(tmp_path, elsewhere):
    Lock(tmp_path, beat=3600).__enter__()  # killed; then the clock was set back
    future = time.time() + 1e6
    os.utime(tmp_path / LOCK, (future, future))
    began = time.monotonic()
    with Lock(tmp_path, limit=0.3):
        assert time.monotonic() - began < 5
