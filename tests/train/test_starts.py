"""The record of a run's starts."""

import sys

from recjax.train.folder.starts import STARTS, add_start, read_starts


def test_starts_are_added_and_damaged_lines_left_out(tmp_path, monkeypatch):
    assert read_starts(tmp_path) == []
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/recjax", "train", "a recipe.py", "--set", "seed=1"])
    add_start(tmp_path, 0, "1 x cpu")
    with (tmp_path / STARTS).open("ab") as file:
        file.write(b'{"time": 3}\n[]\n\xff\n' + b"[" * 100_000 + b"\n")
    monkeypatch.setattr(sys, "argv", ["a_notebook.py"])
    add_start(tmp_path, 50, "4 x TPU v5e")
    first, second = read_starts(tmp_path)
    assert first.command == "recjax train 'a recipe.py' --set seed=1" and first.step == 0
    assert len(first.time) == len("2026-11-29 14:33") and first.recjax
    assert (second.command, second.step, second.machine) == ("", 50, "4 x TPU v5e")
