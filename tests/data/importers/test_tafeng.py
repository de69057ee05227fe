"""Ta-Feng: two files of baskets, the later ones numbered on."""

from pathlib import Path

import pytest

from recjax.data.importers import read
from recjax.typing import InputError

HEADER = "CUSTOMER_ID,ORDER_NUMBER,MATERIAL_NUMBER"


def written(folder: Path, history: list[str], future: list[str], header: str = HEADER) -> Path:
    for name, rows in (("TaFang_history.csv", history), ("TaFang_future.csv", future)):
        (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_later_baskets_come_after_the_earlier_ones(tmp_path: Path) -> None:
    folder = written(tmp_path, ["a  ,1,7", "a  ,2,8", "a  ,2,7", "b  ,1,9"], ["a  ,1,7", "a  ,2,5", "b  ,1,7", "c,1,6"])
    logs = read(folder)
    events = [("a", "7", 1), ("a", "8", 2), ("a", "7", 2), ("b", "9", 1)]
    assert logs.interactions.rows() == [*events, ("a", "7", 3), ("a", "5", 4), ("b", "7", 2), ("c", "6", 1)]
    assert logs.name == tmp_path.name and logs.notes["format"] == "tafeng" and logs.notes["rows_read"] == 8
    assert read(folder / "TaFang_future.csv", columns=dict(
        user_id="CUSTOMER_ID", item_id="MATERIAL_NUMBER", timestamp="ORDER_NUMBER"
    )).interactions.height == 4  # fmt: skip


def test_numbers_that_are_no_numbers_of_baskets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"TaFang_future\.csv: ORDER_NUMBER begins at 3"):
        read(written(tmp_path, ["a,1,7"], ["a,3,7", "a,4,8"]))


def test_pairs_of_other_files_are_not_taken_for_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="several datasets"):
        read(written(tmp_path, ["a,1,7"], ["a,1,7"], header="user_id,timestamp,item_id"))
    with pytest.raises(InputError, match=r"no tafeng files.*_history\.csv"):
        read(tmp_path, "tafeng")


def test_the_published_files(native_data: Path) -> None:
    logs = read(native_data / "tafeng")
    events = logs.interactions
    assert events.height == 357_057
    assert events["user_id"].n_unique() == 7_384 and events["item_id"].n_unique() == 5_000
    assert events.select("user_id", "timestamp").unique().height == 66_714
