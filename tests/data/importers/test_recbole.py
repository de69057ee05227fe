"""RecBole atomic files: events and histories, real and damaged."""

import json
from pathlib import Path

import pytest

from recjax.data.importers import read
from recjax.typing import InputError


def test_ml_100k(native_data: Path) -> None:
    logs = read(native_data / "recbole-ml-100k")
    events = logs.interactions
    assert logs.notes["format"] == "recbole"
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (943, 1_682, 100_000)
    assert events.row(0) == ("196", "242", 881_250_949, 3.0)
    assert events.equals(read(native_data / "ml-100k").interactions)
    assert logs.catalog.row(0) == ("1", "Toy Story", "Animation|Children's|Comedy", "1995")
    assert logs.catalog.columns == ["item_id", "title", "categories", "release_year"]


def test_histories_are_put_together_again(native_data: Path) -> None:
    folder = native_data / "lcrec-instruments"
    logs = read(folder)
    events = logs.interactions
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (17_112, 6_250, 136_226)
    assert logs.notes["rows_read"] == 84_890 + 17_112 + 17_112
    assert logs.notes["histories_that_do_not_continue"] == 0
    # 25 users have more than the 50 items to which the histories are cut; all are restored.
    sequences = events.group_by("user_id", maintain_order=True).agg("item_id")
    published = json.loads((folder / "Instruments.inter.json").read_text())
    found = dict(sequences.iter_rows())
    assert found == {user: [str(item) for item in items] for user, items in published.items()}
    assert events["timestamp"].max() == 130 and events["timestamp"][0] == 0


def test_one_part_alone(native_data: Path) -> None:
    logs = read(native_data / "lcrec-instruments" / "Instruments.valid.inter")
    assert logs.notes["rows_read"] == 17_112
    assert logs.name == "Instruments"


def inter(folder: Path, lines: list[str], header: str, name: str = "x.inter") -> Path:
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return folder


EVENTS = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
HISTORIES = "user_id:token\titem_id_list:token_seq\titem_id:token"


def test_damaged_rows(tmp_path: Path) -> None:
    lines = [f"u{n}\ti{n % 5}\t{n % 5}\t{1.4e9 + n}" for n in range(500)]
    lines[3], lines[5] = "u1\ti1\t3\tnever", "u1\ti1\t3\t1400000000\tx"
    logs = read(inter(tmp_path, lines, EVENTS))
    assert logs.notes["rows_refused"]["reasons"] == {"more than 4 fields": 1, "unreadable timestamp": 1}
    assert [row["line"] for row in logs.notes["rows_refused"]["first"]] == [5, 7]
    assert logs.interactions["timestamp"][0] == 1_400_000_000


def test_headers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the header has 'user_id', expected name:type"):
        read(inter(tmp_path, ["a\tb\t3"], "user_id\titem_id\ttimestamp"))
    with pytest.raises(InputError, match=r"the header has 'timestamp:int', expected name:type"):
        read(inter(tmp_path, ["a\tb\t3"], "user_id:token\titem_id:token\ttimestamp:int"))
    with pytest.raises(InputError, match=r"no column 'timestamp'; found: user_id, item_id, time"):
        read(inter(tmp_path, ["a\tb\t3"], "user_id:token\titem_id:token\ttime:float"))
    assert read(tmp_path, columns={"timestamp": "time"}).interactions.rows() == [("a", "b", 3)]


def test_several_parts_with_times_follow_one_another(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    for name, time in (("valid", 2), ("test", 3), ("train", 1)):
        inter(tmp_path, [f"a\ti{time}\t{time}"], header, f"x.{name}.inter")
    logs = read(tmp_path)
    assert logs.interactions["item_id"].to_list() == ["i1", "i2", "i3"]
    assert set(logs.notes) >= {"x.train.inter", "x.valid.inter", "x.test.inter"}


def test_histories_cut_repeated_and_with_gaps(tmp_path: Path) -> None:
    # a: cut to two items; b: repeats; c: only the last row is there; d: the rows between are missing.
    lines = ["a\t1\t2", "a\t1 2\t3", "a\t2 3\t4", "a\t3 4\t5", "b\t7 7\t7", "b\t7\t7", "c\t1 2\t3", "d\t4\t5"]
    logs = read(inter(tmp_path, lines, HISTORIES))
    found = dict(logs.interactions.group_by("user_id", maintain_order=True).agg("item_id").iter_rows())
    assert found["a"] == ["1", "2", "3", "4", "5"]
    assert found["b"] == ["7", "7", "7"]
    assert found["c"] == ["1", "2", "3"] and found["d"] == ["4", "5"]
    lines = ["a\t1\t2", "a\t1 2 3 4\t5"]
    assert read(inter(tmp_path, lines, HISTORIES)).interactions["item_id"].to_list() == ["1", "2", "3", "4", "5"]


def test_histories_that_contradict_one_another(tmp_path: Path) -> None:
    lines = ["a\t1\t2", "a\t9 8\t3"]
    with pytest.raises(InputError, match="1 of 2 histories do not continue the same user's other histories"):
        read(inter(tmp_path, lines, HISTORIES))


def test_histories_with_missing_ids(tmp_path: Path) -> None:
    lines = [f"u{n}\t1 2\t3" for n in range(300)]
    lines[4], lines[9] = "u4\t1 2\t", "\t1\t2"
    logs = read(inter(tmp_path, lines, HISTORIES))
    refused = logs.notes["rows_refused"]["x.inter"]
    assert refused["reasons"] == {"no item id": 1, "no user id": 1}
    assert [row["line"] for row in refused["first"]] == [6, 11]


def test_empty_items(tmp_path: Path) -> None:
    inter(tmp_path, ["a\tb\t1\t3"], EVENTS)
    (tmp_path / "x.item").write_text("item_id:token\ttitle:token_seq\n")
    with pytest.raises(InputError, match=r"the catalog .*x\.item has no rows"):
        read(tmp_path)
