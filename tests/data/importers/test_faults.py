"""Bad rows, times and catalogs, whatever the format."""

from pathlib import Path

import polars as pl
import pytest

from recjax.data.importers import read
from recjax.typing import InputError
from tests.data.importers.damaged import GOOD, table, with_rows


def test_unusable_rows_are_counted_and_the_first_five_quoted(tmp_path: Path) -> None:
    bad = {
        "line3": "u1,i1,yesterday,3",
        "line10": "u1,,1400000000,3",
        "line20": "u1,i1,,3",
        "line30": "u1,i1,1400000000,good",
        "line40": "u1,i1,14000000000,3",
        "line50": "u1,i1,nan,3",
        "line60": "u1,i1,1400000000,inf",
    }
    logs = read(table(tmp_path, with_rows(**bad)))
    refused = logs.notes["rows_refused"]
    assert logs.interactions.height == len(GOOD) - 7
    assert logs.notes["rows_read"] == len(GOOD)
    assert refused["total"] == 7
    assert refused["reasons"] == {
        "unreadable timestamp": 1,
        "no item id": 1,
        "no timestamp": 2,
        "unreadable rating": 2,
        "timestamp outside the years 1971 to 2099": 1,
    }
    assert [row["line"] for row in refused["first"]] == [3, 10, 20, 30, 40]
    assert refused["first"][0]["found"] == "yesterday"
    assert refused["first"][3]["found"] == "good"


def test_too_many_damaged_rows_are_an_error(tmp_path: Path) -> None:
    rows = with_rows(**{f"line{line}": "u1,i1,07/23/2014,3" for line in range(2, 22)})
    path = table(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "20 of 1,000 rows cannot be used (unreadable timestamp: 20); at most 1.0% are tolerated" in message
    assert "line 2: unreadable timestamp (column timestamp), found" in message
    assert "or 2014-07-23T10:00:00+02:00; others by their format, Reading(time_format='%d/%m/%Y %H:%M')" in message
    assert "'07/23/2014'" in message and "ISO-8601" in message
    assert message.count("line ") == 5
    assert read(path, max_refused=0.02).interactions.height == 980
    with pytest.raises(InputError, match="max_refused is 2"):
        read(path, max_refused=2)


def test_ragged_rows(tmp_path: Path) -> None:
    logs = read(table(tmp_path, with_rows(line5="u1,i1,1400000000,3,9,9", line9="u1,i1", line11="u3,i3,1400000000")))
    assert logs.notes["rows_refused"]["reasons"] == {"more than 4 fields": 1, "no timestamp": 1}
    assert {row["line"] for row in logs.notes["rows_refused"]["first"]} == {5, 9}
    assert logs.notes["unrated"] == 1  # the short row that only lacks its rating


def test_users_that_are_missing_are_anonymous_events(tmp_path: Path) -> None:
    missing = ["", "nan", "NaN", "null", "None", " "]
    rows = [f"{user},i1,1400000000,1" for user in missing for _ in range(100)]
    logs = read(table(tmp_path, [*rows, *GOOD]))
    assert logs.interactions.height == len(GOOD)
    assert logs.notes["rows_refused"]["reasons"] == {"no user id": 600}
    with pytest.raises(InputError, match=r"600 of 600 rows cannot be used \(no user id: 600\); nothing is left"):
        read(table(tmp_path, rows))


def test_missing_ratings_are_kept_as_unrated(tmp_path: Path) -> None:
    logs = read(table(tmp_path, with_rows(line2="u1,i1,1400000000,", line3="u1,i1,1400000000,nan")))
    assert logs.interactions["rating"].to_list()[:3] == [None, None, 3.0]
    assert logs.notes["unrated"] == 2
    assert logs.notes["rows_refused"]["total"] == 0


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"user_id,item_id,timestamp\na,caf\xc3\xa9,1\nb,caf\xe9,2\n")
    with pytest.raises(InputError, match=r"log\.csv, line 3: not UTF-8 \(byte 0xe9 .*iconv"):
        read(path)
    path.write_bytes(b"user_id,item\xe9,timestamp\na,x,1\n")
    with pytest.raises(InputError, match=r"line 1: not UTF-8"):
        read(path)
    # A character over the border of the blocks in which the file is checked is no fault, and one after it is.
    filler = "a,é,1\n" * 200_000
    path.write_bytes(b"user_id,item_id,timestamp\n" + filler.encode() + b"a,\xff,1\n")
    with pytest.raises(InputError, match=r"line 200002: not UTF-8"):
        read(path)


def test_quotes_never_closed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4: a quote is opened and never closed"):
        read(table(tmp_path, with_rows(line4='u1,"i1,1400000000,3')))


def test_misplaced_quotes_cost_one_row(tmp_path: Path) -> None:
    logs = read(table(tmp_path, with_rows(line4='u1,"i1"x,1400000000,3', line6='u1,6" pan,1400000000,3')))
    assert logs.notes["rows_refused"]["total"] == 1
    assert logs.notes["rows_refused"]["first"][0]["line"] == 4
    assert '6" pan' in logs.interactions["item_id"].to_list()


def test_gzip_cut_short(tmp_path: Path) -> None:
    path = table(tmp_path, GOOD, name="log.csv.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cannot be read"):
        read(path)


TIMES = {
    "seconds": (["1400000000", "1400000001"], [1_400_000_000, 1_400_000_001]),
    "milliseconds": (["1400000000999", "1400000001000"], [1_400_000_000, 1_400_000_001]),
    "microseconds": (["1400000000000001"] * 2, [1_400_000_000] * 2),
    "nanoseconds": (["1400000000000000001"] * 2, [1_400_000_000] * 2),
    "seconds, fractions": (["1400000000.75", "1.4e9"], [1_400_000_000] * 2),
    "seconds, as text": (["2014-05-13", "2014-05-13 16:53:20.5"], [1_399_939_200, 1_400_000_000]),
    "seconds, zones": (["2014-05-13T16:53:20Z", "2014-05-13T18:53:20+02:00"], [1_400_000_000] * 2),
    "seconds, mixed with text": (["1400000000", "2014-05-13T16:53:20"], [1_400_000_000] * 2),
    "places in an order (numbers too small for times), from below 0": (["-86400", "0"], [-86_400, 0]),
    "places in an order (numbers too small for times)": (["1", "2"], [1, 2]),
    "calendar days (YYYYMMDD)": (["20140513", "20140514"], [1_399_939_200, 1_400_025_600]),
}


@pytest.mark.parametrize("case", TIMES)
def test_timestamps(tmp_path: Path, case: str) -> None:
    texts, seconds = TIMES[case]
    logs = read(table(tmp_path, [f"u,i{text},{text}" for text in texts], header="user,item,time"))
    assert logs.interactions["timestamp"].to_list() == seconds
    assert logs.notes["timestamps"]["unit"] == case.split(",")[0]
    assert logs.notes["timestamps"].get("from_text", 0) == sum("-" in text[1:] for text in texts)


def test_days_that_are_no_calendar_days_are_seconds(tmp_path: Path) -> None:
    logs = read(table(tmp_path, ["u,i,20140513", "u,j,20141399"], header="user,item,time"))
    assert logs.interactions["timestamp"].to_list() == [20_140_513, 20_141_399]


@pytest.mark.parametrize("dtype", [pl.Datetime("us"), pl.Datetime("ms", "Europe/Paris"), pl.Date, pl.Float64])
def test_timestamps_of_tables_with_types(tmp_path: Path, dtype: pl.DataType) -> None:
    times = pl.Series([1_399_939_200 * 10**6], dtype=pl.Int64).cast(pl.Datetime("us"))
    if isinstance(dtype, pl.Datetime):
        times = times.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone or "UTC").cast(dtype)
    else:
        times = times.cast(pl.Date) if dtype == pl.Date else times.dt.epoch("s").cast(pl.Float64)
    pl.DataFrame({"user": ["a"], "item": [3], "time": times}).write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path).interactions.rows() == [("a", "3", 1_399_939_200)]


def catalog(folder: Path, rows: list[str], header: str = "item_id,title") -> None:
    (folder / "items.csv").write_text("\n".join([header, *rows]) + "\n")


def test_duplicate_ids_in_the_catalog_keep_the_first(tmp_path: Path) -> None:
    table(tmp_path, GOOD)
    catalog(tmp_path, ["i0,first", "i1,one", "i0,second", " i0 ,third", "i2,two", "i3,", "i4,nan"])
    logs = read(tmp_path)
    assert logs.catalog.rows() == [("i0", "first"), ("i1", "one"), ("i2", "two"), ("i3", None), ("i4", None)]
    assert logs.notes["catalog"]["duplicate_ids"] == 2
    assert logs.notes["catalog"]["first_duplicates"] == ["i0"]


def test_items_without_a_catalog_row_are_counted(tmp_path: Path) -> None:
    table(tmp_path, GOOD)
    catalog(tmp_path, ["i9,never seen", "i1,one", ",no id"])
    logs = read(tmp_path)
    assert logs.catalog.rows() == [("i9", "never seen"), ("i1", "one")]
    note = logs.notes["catalog"]
    assert (note["rows"], note["rows_without_id"], note["items_without_row"]) == (3, 1, 4)
    assert note["first_without_row"] == ["i0", "i2", "i3", "i4"]


def test_empty_catalog(tmp_path: Path) -> None:
    table(tmp_path, GOOD)
    catalog(tmp_path, [])
    with pytest.raises(InputError, match=r"the catalog .*items\.csv has no rows: fill it, or remove it"):
        read(tmp_path)
    catalog(tmp_path, [",a", ",b"])
    with pytest.raises(InputError, match="no row with an item id"):
        read(tmp_path)
    (tmp_path / "items.csv").write_text("")
    with pytest.raises(InputError, match=r"items\.csv is empty"):
        read(tmp_path)
    (tmp_path / "items.csv").write_text("code,title\na,b\n")
    with pytest.raises(InputError, match="no column 'item_id'; found: code, title"):
        read(tmp_path)


def test_a_catalog_with_ragged_rows(tmp_path: Path) -> None:
    table(tmp_path, GOOD)
    catalog(tmp_path, [*(f"x{number},a title" for number in range(200)), "i0,Toy Story, The", "i1"])
    logs = read(tmp_path)
    assert logs.notes["catalog_rows_refused"]["first"][0]["line"] == 202
    assert logs.catalog.filter(pl.col("item_id") == "i1")["title"].to_list() == [None]
    catalog(tmp_path, ["i0,Toy Story, The", "i1,a"])
    with pytest.raises(InputError, match=r"1 of 2 rows cannot be used \(more than 2 fields: 1\)"):
        read(tmp_path)


def test_without_a_catalog(tmp_path: Path) -> None:
    logs = read(table(tmp_path, GOOD))
    assert not logs.catalog.height and logs.notes["catalog"]["items_without_row"] == 5
    assert logs.notes["catalog"]["file"] is None


def test_reading_twice_is_the_same(tmp_path: Path) -> None:
    path = table(tmp_path, with_rows(line4="u1,i1,x,3"))
    first, second = read(path), read(path)
    assert first.interactions.equals(second.interactions) and first.notes == second.notes
