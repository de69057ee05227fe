"""Logs of the field that were read wrongly without a word, each as small as it can be."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recjax.commands.prepare import _account
from recjax.data.importers import read
from recjax.data.prepare.audit import audit
from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation
from recjax.data.splits import GlobalTime, LeaveOneOut
from recjax.typing import InputError
from tests.data.importers.damaged import table

HEADER = "user_id,item_id,timestamp"
START = 1_600_000_000


def usual(time: str = "{}") -> list[str]:
    """Sixty users with eight events each over thirty items, an event a minute."""
    return [
        f"u{user},i{(user + 7 * event) % 30:02},{time.format(START + 60 * (8 * user + event))}"
        for user in range(60)
        for event in range(8)
    ]


def prepared(path: Path, **options):
    return build(read(path), Preparation(**options))


def errors_named(path: Path) -> str:
    """All that `prepare` prints of a dataset."""
    dataset = prepared(path)
    return "\n".join([*_account(dataset), *audit(dataset, LeaveOneOut().split(dataset)).lines()])


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


@pytest.mark.parametrize(
    "written",
    [
        str,
        iso,
        lambda time: f"{time // 1000}.{time % 1000:03}",
        lambda time: str(time * 1000),
        lambda time: datetime.fromtimestamp(time / 1000, UTC).strftime("%Y%m%d%H%M%S") + f"{time % 1000:03}",
    ],
)
def test_events_are_ordered_by_their_whole_time(tmp_path: Path, written) -> None:
    rows = [(f"u{user}", f"i{event}", START * 1000 + 100 * event) for user in range(40) for event in range(8)]
    rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    table(tmp_path, [f"{user},{item},{written(time)}" for user, item, time in rows], header=HEADER)
    dataset = prepared(tmp_path)
    for user in range(40):
        assert [dataset.item_ids[item] for item in dataset.history(user)] == [f"i{event}" for event in range(8)]
    assert set(dataset.timestamps.tolist()) == {START}
    found = audit(dataset, LeaveOneOut().split(dataset))
    assert found.tied_events == found.tied_targets == 0


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_parquet_times_keep_their_order(tmp_path: Path, unit) -> None:
    times = pl.Series([START * 1000 + part for part in (200, 100, 0)]).cast(pl.Datetime("ms")).cast(pl.Datetime(unit))
    pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["i2", "i1", "i0"], "timestamp": times}).write_parquet(
        tmp_path / "log.parquet"
    )
    assert prepared(tmp_path).item_ids[1:] == ["i2", "i1", "i0"]  # numbered as the file has them
    assert prepared(tmp_path).items.tolist() == [3, 2, 1]
    assert prepared(tmp_path, duplicates="consecutive", min_length=2).items.tolist() == [3, 2, 1]


def test_real_ties_of_a_log_in_milliseconds_are_ties(tmp_path: Path) -> None:
    rows = [f"u{user},i{event},{START * 1000 + 100 * (event // 2)}" for user in range(9) for event in range(8)]
    dataset = prepared(table(tmp_path, rows, header=HEADER))
    found = audit(dataset, LeaveOneOut().split(dataset))
    assert found.tied_events == pytest.approx(4 / 8) and found.tied_targets == 1.0


def test_parts_of_a_second_in_several_files(tmp_path: Path) -> None:
    table(tmp_path, [f"u,b,{START}", f"v,b,{START}"], header=HEADER, name="interactions-0.csv")
    table(tmp_path, [f"u,a,{START * 1000 + 5}", f"u,c,{START * 1000 + 2}"], header=HEADER, name="interactions-1.csv")
    dataset = prepared(tmp_path)
    assert [dataset.item_ids[item] for item in dataset.history(0)] == ["b", "c", "a"]


def test_units_mixed_in_one_column_are_converted_and_counted(tmp_path: Path) -> None:
    rows = usual()
    mixed = [f"{row}000" if place % 8 < 5 else row for place, row in enumerate(rows)]
    whole = prepared(table(tmp_path, rows, header=HEADER))
    found = prepared(table(tmp_path, mixed, header=HEADER))
    assert found.fingerprint == whole.fingerprint
    assert "times  300 in milliseconds, 180 in seconds" in errors_named(tmp_path)


@pytest.mark.parametrize("missing", ["NA", "N/A", r"\N", "none", "n/a", "NULL", "NaN", "nil"])
def test_users_without_a_name_are_no_user(tmp_path: Path, missing: str) -> None:
    rows = [row if place % 24 < 16 else f"{missing},{row.partition(',')[2]}" for place, row in enumerate(usual())]
    table(tmp_path, rows, header=HEADER)
    assert prepared(tmp_path).n_users == 40
    assert "rows refused  160 (no user id: 160)" in errors_named(tmp_path)


def test_a_user_who_is_a_crowd_is_named(tmp_path: Path) -> None:
    rows = [row if place % 24 < 16 else f"guest,{row.partition(',')[2]}" for place, row in enumerate(usual())]
    assert "warning: user 'guest' has 160 events" in errors_named(table(tmp_path, rows, header=HEADER))
    assert "guest" not in errors_named(table(tmp_path, usual(), header=HEADER))


@pytest.mark.parametrize(("log", "catalog", "known"), [("{}.0", "{}", 30), ("{}", "{}.0", 30), ("{:05}", "{}", 10)])
def test_ids_of_log_and_catalog_that_are_written_otherwise(tmp_path: Path, log: str, catalog: str, known: int) -> None:
    rows = [f"u{n % 9},{log.format(27 + n % 30)},{START + n}" for n in range(300)]
    table(tmp_path, rows, header=HEADER)
    items = [f"{catalog.format(27 + n)},Film {n}" for n in range(20)]
    items += [f"{(log if known < 30 else catalog).format(47 + n)},Film {20 + n}" for n in range(10)]
    table(tmp_path, items, header="item_id,title", name="items.csv")
    dataset = prepared(tmp_path)
    assert dataset.catalog["title"].count() == known
    assert dataset.description["catalog"]["items_without_row"] == 30 - known
    text = errors_named(tmp_path)
    if known == 30:
        assert "ids written as floats (27.0 for 27) in item_id: 300" in text or log == "{}"
        assert dataset.item_ids[1] == "27" and "have a row" not in text
    else:
        assert "10 of 30 items have a row in items.csv; the log has ids like '00027'" in text
        assert "the catalog ids like '27'" in text


def test_ids_that_a_spreadsheet_has_shortened_are_named(tmp_path: Path) -> None:
    rows = [f"u{n % 9},{'1.23457E+11' if n % 3 else n},{START + n}" for n in range(300)]
    assert "warning: 200 ids in item_id are floats" in errors_named(table(tmp_path, rows, header=HEADER))
    columns = {"user_id": ["u", "v", "w"] * 9, "item_id": [1e17, 2.0, 3.0] * 9, "timestamp": range(START, START + 27)}
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    assert "warning: 9 ids in item_id are floats" in errors_named(tmp_path / "log.parquet")


def test_id_sequences_are_not_split_in_time(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("".join(f"{user} 1 2 3 4 5\n" for user in range(9)))
    with pytest.raises(InputError, match="has no times, so it cannot be split in time"):
        GlobalTime().split(prepared(tmp_path))


def test_decimals_are_whole_numbers_too(tmp_path: Path) -> None:
    ids = pl.Series([Decimal("27.00"), Decimal("28.00")], dtype=pl.Decimal(10, 2))
    times = pl.Series([START, START], dtype=pl.Int64)
    pl.DataFrame({"user_id": ["u", "v"], "item_id": ids, "timestamp": times}).write_parquet(tmp_path / "log.parquet")
    assert prepared(tmp_path).item_ids[1:] == ["27", "28"]


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (["20200913122640", "20200913122641"], "calendar seconds (YYYYMMDDHHMMSS)"),
        (["202009131226", "202009131227"], "calendar minutes (YYYYMMDDHHMM)"),
        (["2020091312", "2020091313"], "calendar hours (YYYYMMDDHH)"),
        (["20200913", "20200914"], "calendar days (YYYYMMDD)"),
    ],
)
def test_calendar_stamps_of_digits(tmp_path: Path, times: list[str], unit: str) -> None:
    logs = read(table(tmp_path, [f"u,{time},{time}" for time in times], header=HEADER))
    assert logs.notes["timestamps"]["unit"] == unit
    days = [datetime.fromtimestamp(time, UTC).strftime("%Y%m%d%H%M%S") for time in logs.interactions["timestamp"]]
    assert all(day.startswith(time) for day, time in zip(days, times, strict=True))


@pytest.mark.parametrize("time", ["0", "4200000000", "99999999999", "0001-01-01", "2610-02-03", "1969-12-31T23:59:59"])
def test_implausible_times_are_refused(tmp_path: Path, time: str) -> None:
    logs = read(table(tmp_path, [*usual(), f"u0,i00,{time}"], header=HEADER))
    assert logs.notes["rows_refused"]["reasons"] == {"timestamp outside the years 1971 to 2099": 1}
    with pytest.raises(InputError, match="timestamp outside the years 1971 to 2099: 1"):
        read(tmp_path, max_refused=0)


def test_exact_names_win_and_two_candidates_are_an_error(tmp_path: Path) -> None:
    rows = [f"same,{row}" for row in usual()]
    assert prepared(table(tmp_path, rows, header=f"User_ID,{HEADER}")).n_users == 60
    for other in ("userid", "visitorid"):
        path = table(tmp_path, rows, header=f"{other},customer_id,item_id,timestamp")
        with pytest.raises(
            InputError, match=r"may each be the column user_id; call it user_id, or say columns=\{'user_id': '"
        ):
            read(path)
        assert read(path, columns={"user_id": "customer_id"}).interactions["user_id"].n_unique() == 60


def test_refused_rows_of_a_catalog_are_printed(tmp_path: Path) -> None:
    table(tmp_path, usual(), header=HEADER)
    items = [f"i{number:02},Film {number}" for number in range(299)]
    items[3] = 'i03,"Best" film 3'
    table(tmp_path, items, header="item_id,title", name="items.csv")
    text = errors_named(tmp_path)
    assert (
        "catalog rows refused  1 (misplaced quote" in text
        and "\n  line 5: misplaced quote" in text
        and """'i03,"Best" film 3'""" in text
    )


@pytest.mark.parametrize("name", ["order.csv", "sequences.txt"])
def test_nothing_is_said_of_times_that_are_none(tmp_path: Path, name: str) -> None:
    if name == "order.csv":
        path = table(tmp_path, [f"u{n % 40},i{n % 30},{n // 3}" for n in range(480)], header=HEADER, name=name)
    else:
        path = tmp_path / name
        path.write_text("".join(f"{user} {' '.join(str((user + n) % 30) for n in range(8))}\n" for user in range(40)))
    text = errors_named(path)
    assert "future" not in text and "later" not in text and "same time" not in text and "their time" not in text
    assert "times  place" in text


def test_rows_of_parquet_are_rows(tmp_path: Path) -> None:
    times = [None, *range(START, START + 300)]
    frame = pl.DataFrame({"user_id": ["a"] * 301, "item_id": ["x"] * 301, "timestamp": times})
    frame.write_parquet(tmp_path / "log.parquet")
    assert "\n  row 1: no timestamp" in errors_named(tmp_path)


def test_columns_of_a_catalog_that_are_no_text(tmp_path: Path) -> None:
    table(tmp_path, usual(), header=HEADER)
    items = [f"i{number:02}" for number in range(30)]
    columns = {
        "title": pl.Series([b"caf\xc3\xa9"] * 30),
        "categories": pl.Series([["a", None, "b c"]] * 30),
        "tags": pl.Series([["x", "y"]] * 30, dtype=pl.Array(pl.String, 2)),
        "paths": pl.Series([[["A", "B"], ["C"]]] * 30),
        "sizes": pl.Series([[36, 38]] * 30),
        "picture": pl.Series([b"\xff\xd8"] * 30),
        "vector": pl.Series([[0.5, 1.5]] * 30),
        "place": pl.Series([{"x": 1}] * 30),
        "colour": pl.Series(["red"] * 30, dtype=pl.Categorical),
    }
    pl.DataFrame({"item_id": items} | columns).write_parquet(tmp_path / "items.parquet")
    assert prepared(tmp_path).catalog.row(0, named=True) == {
        "item_id": "i00", "title": "café", "categories": "a|b c", "tags": "x y", "paths": "A B C", "sizes": "36 38",
        "colour": "red",
    }  # fmt: skip
    assert "columns of items.parquet that hold no text, left out: picture (Binary), vector (List(Float64)), place " in (
        errors_named(tmp_path)
    )
    pl.DataFrame({"item_id": [["a"]], "title": ["x"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(InputError, match=r"items.parquet: the column item_id holds List\(String\), expected ids"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rating", [1.0]),
        ("rating", {"x": 1}),
        ("rating", b"1"),
        ("timestamp", [1]),
        ("user_id", b"u"),
        ("item_id", {"x": 1}),
    ],
)
def test_no_message_has_an_expression_of_the_engine(tmp_path: Path, column: str, value) -> None:
    columns = {"user_id": ["u"], "item_id": ["i"], "timestamp": [START], "rating": [1.0]} | {column: [value]}
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match=f"the column {column} holds .*expected") as caught:
        read(tmp_path)
    assert "col(" not in str(caught.value) and "cast" not in str(caught.value)


def test_a_panic_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_):
        raise pl.exceptions.PanicException("called `Option::unwrap()` on a `None` value")

    pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [START]}).write_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr(pl.LazyFrame, "collect", panic)
    with pytest.raises(InputError, match=r"log\.parquet cannot be read: it is damaged$"):
        read(tmp_path)


def test_long_headers_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for header in (",".join(f"c{number}" for number in range(1_000_000)), "x" * 10_000_000):
        path.write_text(f"{header}\n1,2,3\n")
        with pytest.raises(InputError, match=r"characters in .* fields, expected column names") as caught:
            read(path)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_wide_characters_are_called_so(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("\n".join([HEADER, *usual()]).encode(encoding))
    with pytest.raises(InputError, match="iconv -f utf-16"):
        read(path, "table")


def test_refused_rows_of_recbole_parts_are_printed(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float"
    for part, times in (("train", range(START, START + 200)), ("valid", range(START + 200, START + 400))):
        rows = [f"u{n % 9}\ti{n % 7}\t{time}" for n, time in enumerate(times)]
        rows[5] = "u1\ti1\tsoon" if part == "valid" else rows[5]
        (tmp_path / f"x.{part}.inter").write_text("\n".join([header, *rows]) + "\n")
    text = errors_named(tmp_path)
    assert "rows refused  1 (unreadable timestamp: 1) x.valid.inter\n  line 7: unreadable timestamp" in text
    assert "times  399 in seconds" in text
