"""Files of a folder: written whole or not at all, and read with a message where they are damaged."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from recjax import config as configs
from recjax.compare.ablation import Cell
from recjax.compare.run_results import read_outcome
from recjax.data.store import prepared
from recjax.evaluate.report import Report
from recjax.files import exclusive, finish_replacing, replacing, replacing_together
from recjax.train.folder.lock import LOCK, Lock
from recjax.train.folder.run_folder import check_config
from recjax.typing import InputError
from tests.train.toy import toy_config

CONFIG = toy_config()


def test_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), replacing(path) as new:
        new.write_text("ne")
        raise OSError("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_writers_at_once_do_not_meet(tmp_path):
    path = tmp_path / "a.json"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_files_take_their_places_together(tmp_path):
    one, other, journal = tmp_path / "one", tmp_path / "other", tmp_path / ".journal"
    for content in ("first", "second"):
        with replacing_together(journal, one, other) as new:
            for file in new:
                file.write_text(content)
        assert one.read_text() == other.read_text() == content
        assert sorted(tmp_path.iterdir()) == [one, other]
    with pytest.raises(OSError, match="disk full"), replacing_together(journal, one, other) as new:
        new[0].write_text("third")
        raise OSError("disk full")
    with pytest.raises(FileNotFoundError), replacing_together(journal, one, other) as new:
        new[0].write_text("third")  # and the other is not written
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), replacing_together(journal, one, tmp_path / "folder") as new:
        for file in new:
            file.write_text("third")
    assert one.read_text() == other.read_text() == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "one", "other"]


KILLED = """
import os, sys
from pathlib import Path
from recjax.files import finish_replacing, replacing_together
folder = Path(sys.argv[1])

def dies_at(moment):
    # Ends this process, as a kill does, before its n-th operation on the file system.
    done = [0]
    def counted(call):
        def wrapped(*args, **named):
            done[0] += 1
            if done[0] > moment:
                os._exit(1)
            return call(*args, **named)
        return wrapped
    os.fsync = counted(os.fsync)
    for name in ("write_text", "replace", "unlink", "open"):
        setattr(Path, name, counted(getattr(Path, name)))

for moment in range(200):
    place = folder / str(moment)
    place.mkdir()
    files = [place / "one", place / "other"]
    for file in files:
        file.write_text("old")
    child = os.fork()
    if child == 0:
        dies_at(moment)
        with replacing_together(place / ".journal", *files) as new:
            for file in new:
                file.write_text("new")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    before = [file.read_text() for file in files]
    for _ in range(2):
        finish_replacing(place / ".journal")
        after = [file.read_text() for file in files]
        assert after in (["old"] * 2, ["new"] * 2), (moment, before, after)
        assert "new" not in before or after == ["new"] * 2, (moment, before, after)
        left = [path for path in place.iterdir() if path not in files]
        assert not left, (moment, left)
    if status == 0:
        assert after == ["new"] * 2
        print("moments", moment)
        sys.exit()
"""


def test_a_kill_at_any_moment_changes_all_or_none(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 10


def test_a_damaged_journal_is_an_error(tmp_path):
    journal = tmp_path / ".journal"
    assert finish_replacing(journal) == []
    for content in ("{", "5", '{"renames": [], "digest": "0"}'):
        journal.write_text(content)
        with pytest.raises(InputError, match=r"\.journal is damaged"):
            finish_replacing(journal)


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "a"
    for _ in range(2):
        with exclusive(path):
            with pytest.raises(InputError, match="in use by another process"), exclusive(path):
                pass
            with exclusive(tmp_path / "b"):
                pass
    assert list(tmp_path.iterdir()) == []


DAMAGE = {
    "empty": b"",
    "cut short": b'{"type": "recjax.config:RunConfig", "na',
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "a number": b"5",
    "a list": b"[]",
    "another object": b'{"type": 5, "metrics": [], "train": 1}',
    "nested without end": b"[" * 100_000,
    "objects without end": b'{"a":' * 100_000,
    "deep, but whole": b'{"a":' * 500 + b"1" + b"}" * 500,
}
READERS: dict[str, Callable[[Path], object]] = {
    "config.json": lambda folder: configs.load(folder / "config.json"),
    "config.json of a run to resume": lambda folder: check_config(folder, CONFIG),
    "config.json of a run to report": read_outcome,
    "evaluation.json": lambda folder: Report.load(folder / "evaluation.json"),
    "dataset.json": prepared.load,
    "cell.json": lambda folder: Cell("row", 0, folder, folder, (), CONFIG).state(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_small_file_is_one_message_that_names_it(reader, damage, tmp_path):
    name = reader.split()[0]
    (tmp_path / name).write_bytes(DAMAGE[damage])
    pl.DataFrame({"item_id": ["a"]}).write_parquet(tmp_path / "catalog.parquet")
    with pytest.raises(InputError) as refused:
        READERS[reader](tmp_path)
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 3000


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_lock_is_that_of_a_job_which_gives_no_sign(damage, tmp_path):
    (tmp_path / LOCK).write_bytes(DAMAGE[damage])
    with Lock(tmp_path, limit=0.01):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    "tag",
    ["__main__:X", "recjax.__main__:X", "os:system", "recjax.cli.os:X", "antigravity:X", "recjax..cli:X"],
)
def test_a_type_that_is_none_of_recjax_is_refused_before_anything_is_imported(tag, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recjax"])
    before = set(sys.modules)
    (tmp_path / "config.json").write_text(json.dumps({"type": tag}))
    with pytest.raises(InputError, match=re.escape(repr(tag))):
        configs.load(tmp_path / "config.json")
    assert not {"antigravity", "recjax.__main__"} & (set(sys.modules) - before)
