"""Id sequences: the real files, and damaged ones."""

from pathlib import Path

import pytest

from recjax.data.importers import read
from recjax.typing import InputError


@pytest.mark.parametrize(
    ("name", "counts"), [("Beauty", (22_363, 12_101, 198_502)), ("LastFM", (1_090, 3_646, 52_551))]
)
def test_s3rec(native_data: Path, name: str, counts: tuple[int, int, int]) -> None:
    logs = read(native_data / "s3rec" / f"{name}.txt")
    events = logs.interactions
    assert (logs.name, logs.notes["format"]) == (name, "sequences")
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == counts
    assert logs.notes["rows_read"] == counts[0]
    assert "no times" in logs.notes["timestamps"]["unit"]
    first = (native_data / "s3rec" / f"{name}.txt").read_text().split("\n", 1)[0].split()
    history = events.filter(events["user_id"] == first[0])
    assert history["item_id"].to_list() == first[1:]
    assert history["timestamp"].to_list() == list(range(len(first) - 1))


def test_attributes(native_data: Path) -> None:
    logs = read(native_data / "s3rec" / "Beauty.txt")
    assert logs.catalog.columns == ["item_id", "title", "attributes"]
    assert logs.catalog.height == 12_101
    assert logs.catalog.row(0) == ("4", None, "1|2|3")
    assert logs.catalog["attributes"].str.split("|").explode().n_unique() == 637
    assert read(native_data / "s3rec" / "LastFM.txt").catalog.columns == ["item_id", "title"]


def test_a_folder_with_two_is_ambiguous(native_data: Path) -> None:
    with pytest.raises(InputError, match=r"several datasets \(Beauty\.txt, LastFM\.txt\)"):
        read(native_data / "s3rec")


def test_one_pair_a_line(tmp_path: Path) -> None:
    (tmp_path / "ml-1m.txt").write_text("1 10\n1 11\n2 10\n1 12\n")
    events = read(tmp_path).interactions
    assert events.rows() == [("1", "10", 0), ("1", "11", 1), ("2", "10", 0), ("1", "12", 2)]


def test_users_without_items(tmp_path: Path) -> None:
    lines = [f"{user} 5 6 7" for user in range(300)]
    lines[7], lines[20] = "7", "   "
    path = tmp_path / "x.txt"
    path.write_text("\n".join(lines) + "\n\n")
    logs = read(path)
    first = logs.notes["rows_refused"]["first"]
    assert [(row["line"], row["reason"], row["found"]) for row in first] == [(8, "a user without items", "7")]
    assert (logs.notes["rows_read"], logs.interactions.height) == (299, 298 * 3)
    path.write_text("1 2 3\n4\n5\n")
    with pytest.raises(InputError, match=r"2 of 3 rows cannot be used \(a user without items: 2\).*line 2"):
        read(path)


def test_words_need_the_format_named(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("ann apple pear\nbob fig\n")
    with pytest.raises(InputError, match="no dataset in a known format"):
        read(path)
    assert read(path, format="sequences").interactions["item_id"].to_list() == ["apple", "pear", "fig"]


def test_not_utf8_and_empty(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"1 2 3\n2 caf\xe9\n")
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        read(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read(path, format="sequences")


def test_attributes_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 2 3\n")
    (tmp_path / "x_item2attributes.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="not a JSON object of lists"):
        read(tmp_path / "x.txt")
    (tmp_path / "x_item2attributes.json").write_text('{"2": [5, 6]}')
    logs = read(tmp_path / "x.txt")
    assert logs.catalog.rows() == [("2", None, "5|6")]
    assert logs.notes["catalog"]["items_without_row"] == 1
