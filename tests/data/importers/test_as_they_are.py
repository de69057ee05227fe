"""Tables as shops have them: parts, packings, separators, names, times, conditions, weights, returns."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow
import pytest

from recjax import cli
from recjax.data.importers import RawLogs, read
from recjax.data.importers.logs import Reading
from recjax.data.prepare.build import build
from recjax.typing import InputError
from tests.data.importers.damaged import GOOD, HEADER, table

FIRST = ("u0", "i0", 1_400_000_000, 1.0)


def lines(*rows: str) -> str:
    return "".join(f"{row}\n" for row in rows)


def packed(path: Path, text: str) -> Path:
    with pyarrow.output_stream(path, compression="zstd" if path.suffix == ".zst" else None) as stream:
        stream.write(text.encode())
    return path


def json_of(rows: list[str]) -> str:
    return pl.DataFrame([row.split(",") for row in rows], schema=HEADER.split(","), orient="row").write_ndjson()


@pytest.mark.parametrize("name", ["log.csv.zst", "log.jsonl", "log.ndjson", "log.jsonl.zst", "log.json"])
def test_packings(tmp_path: Path, name: str) -> None:
    text = lines(HEADER, *GOOD) if "csv" in name else json_of(GOOD)
    events = read(packed(tmp_path / name, text)).interactions
    assert (events.height, events.row(0)) == (len(GOOD), FIRST)


@pytest.mark.parametrize("name", ["log.csv.zst", "log.jsonl.zst"])
def test_damaged_lines_of_packed_files_are_quoted(tmp_path: Path, name: str) -> None:
    rows = [*GOOD, "u1,i1,never,1"]
    text = lines(HEADER, *rows) if "csv" in name else json_of(rows)
    first = read(packed(tmp_path / name, text)).notes["rows_refused"]["first"][0]
    assert (first["line"], first["found"]) == (len(rows) + ("csv" in name), "never")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / name)


def test_bars_and_json_catalogs_with_lists(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(lines("user|item|time", "u1|a|1400000000", "u2|b|1400000001"))
    row = '{"item_id": "a", "title": "A, the first", "tags": ["red", "big"], "categories": ["x", "y"]}'
    (tmp_path / "items.jsonl").write_text(lines(row, '{"item_id": "c", "title": "C"}'))
    logs = read(tmp_path)
    assert logs.interactions.row(1) == ("u2", "b", 1_400_000_001)
    assert logs.catalog.row(0, named=True) == {
        "item_id": "a",
        "title": "A, the first",
        "categories": "x|y",
        "tags": "red big",
    }


def test_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(lines(*GOOD))
    with pytest.raises(InputError, match=r"looks like data, .* Reading\(header="):
        read(tmp_path / "log.csv")
    logs = read(tmp_path / "log.csv", reading=Reading(header=tuple(HEADER.split(","))))
    assert (logs.interactions.height, logs.interactions.row(0)) == (len(GOOD), FIRST)
    assert logs.notes["reading"] == {"header": tuple(HEADER.split(","))}


PARTS: dict[str, list[str]] = {
    "spark": ["part-00000-ab12.csv", "part-00001-ab12.csv", "part-00010-ab12.csv"],
    "hadoop": ["part-00000", "part-00001", "part-00010"],
    "numbers": ["log_1.csv", "log_2.csv", "log_10.csv"],
    "days": ["day=2014-05-01/part-0.csv", "day=2014-05-02/part-0.csv", "day=2014-05-03/part-0.csv"],
    "folder": ["interactions/part-0.csv", "interactions/part-1.csv", "interactions/part-2.csv"],
    "own": ["interactions-1.csv", "interactions-2.csv", "interactions-10.csv"],
}


def write_parts(folder: Path, names: list[str], pieces: list[list[str]], header: str = HEADER) -> None:
    for name, rows in zip(names, pieces, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(lines(header, *rows))


@pytest.mark.parametrize("kind", PARTS)
def test_a_folder_of_equal_parts_is_one_log(tmp_path: Path, kind: str) -> None:
    write_parts(tmp_path, PARTS[kind], [GOOD[:300], GOOD[300:600], GOOD[600:]])
    for name in ("_SUCCESS", ".part-00000.crc"):
        (tmp_path / name).write_text("")
    (tmp_path / "items").mkdir()
    write_parts(tmp_path / "items", ["part-0.csv", "part-1.csv"], [["i0,A"], ["i1,B", "i9,C"]], "item_id,title")
    logs = read(tmp_path)
    whole = read(table(tmp_path / "items", GOOD, name="whole.csv"))
    assert logs.interactions.equals(whole.interactions)
    assert logs.catalog["title"].to_list() == ["A", "B", "C"]
    assert len(logs.notes["files"]) == 5 and logs.notes["rows_read"] == len(GOOD)


def test_folders_say_a_column(tmp_path: Path) -> None:
    rows = [["u1,a", "u2,b"], ["u1,b"]]
    for name in ("day=2014-05-01/x.csv", "day=2014-05-02/y.csv"):
        write_parts(tmp_path, [name], [rows.pop(0)], "user_id,item_id")
    events = read(tmp_path, columns={"timestamp": "day"}).interactions
    assert events["timestamp"].to_list() == [1_398_902_400, 1_398_902_400, 1_398_988_800]
    kept = read(tmp_path, columns={"timestamp": "day"}, reading=Reading(where=("day>=2014-05-02",)))
    assert kept.interactions.height == 1 and kept.notes["rows_left_out"] == {"day>=2014-05-02": 2}
    for part in tmp_path.rglob("*.csv"):
        pl.read_csv(part).write_parquet(part.with_suffix(".parquet"))
        part.unlink()
    assert read(tmp_path, columns={"timestamp": "day"}).interactions.equals(events)


def test_tables_that_are_no_parts_are_several_datasets(tmp_path: Path) -> None:
    write_parts(tmp_path, ["train.csv", "test.csv"], [GOOD, GOOD])
    with pytest.raises(InputError, match=r"several datasets .*call the parts of one log interactions-1\.csv"):
        read(tmp_path)


def test_parts_with_other_columns_are_named(tmp_path: Path) -> None:
    write_parts(tmp_path, ["a1.csv"], [GOOD])
    write_parts(tmp_path, ["a2.csv"], [GOOD], HEADER.replace("user_id", "userId"))
    with pytest.raises(InputError, match=r"a1\.csv and a2\.csv are parts of one log but differ in their columns"):
        read(tmp_path)


def test_columns_of_the_catalog(tmp_path: Path) -> None:
    table(tmp_path, ["u1,7,1400000000"], header="user_id,item_id,timestamp", name="orders.csv")
    items = table(tmp_path, ["7,Seven,red", "8,Eight,blue"], header="sku,Bezeichnung,Farbe", name="products.csv")
    columns = {"item_id": "sku", "title": "Bezeichnung", "color": "Farbe"}
    logs = read(tmp_path / "orders.csv", columns=columns, reading=Reading(items=items))
    assert logs.catalog.columns == ["item_id", "title", "color"] and logs.catalog.row(1) == ("8", "Eight", "blue")
    assert logs.interactions["item_id"].to_list() == ["7"]
    columns = {"items.item_id": "sku", "title": "Bezeichnung"}
    assert "Farbe" in read(tmp_path / "orders.csv", columns=columns, reading=Reading(items=items)).catalog.columns
    with pytest.raises(InputError, match=r"products\.csv has no columns 'Name', 'Colour'; found: sku"):
        read(
            tmp_path / "orders.csv",
            columns={"item_id": "sku", "title": "Name", "color": "Colour"},
            reading=Reading(items=items),
        )


def test_a_catalog_beside_other_formats(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(lines("1 2 3 4", "2 4 3"))
    items = table(tmp_path / "..", ["2,Two"], header="item_id,title", name="names.csv")
    logs = read(tmp_path / "log.txt", reading=Reading(items=items))
    assert logs.catalog["title"].to_list() == ["Two"] and logs.notes["catalog"]["items_without_row"] == 2


def test_a_catalog_is_not_taken_for_a_log(tmp_path: Path) -> None:
    path = table(tmp_path, ["1,One"], header="item_id,title", name="products.csv")
    with pytest.raises(InputError, match="looks like a catalog"):
        read(path)
    assert read(path, "catalog").catalog.height == 1


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    path = table(tmp_path, ["1,2"], header="who,what")
    with pytest.raises(InputError, match=r"no columns 'user_id', 'item_id', 'timestamp', 'event', 'Farbe'; found"):
        read(path, columns={"color": "Farbe"}, reading=Reading(where=("event=buy",)))


TIMES: dict[str, tuple[list[str], str | None]] = {
    "zone": (["2019-10-01 00:00:03 UTC", "2019-10-01 00:00:04 UTC"], None),
    "format": (["01/10/2019 00:00:03", "01/10/2019 00:00:04"], "%d/%m/%Y %H:%M:%S"),
    "am": (["Oct 1, 2019 12:00:03 AM", "Oct 1, 2019 12:00:04 AM"], "%b %d, %Y %I:%M:%S %p"),
    "offset": (["2019-10-01T02:00:03+0200", "2019-10-01T02:00:04+0200"], "%Y-%m-%dT%H:%M:%S%z"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times(tmp_path: Path, kind: str) -> None:
    texts, form = TIMES[kind]
    rows = [f'u,i{number},"{text}"' for number, text in enumerate(texts)]
    path = table(tmp_path, rows, header="user_id,item_id,timestamp")
    found = read(path, reading=Reading(time_format=form))
    assert found.interactions["timestamp"].to_list() == [1569888003, 1569888004]
    assert found.notes["timestamps"]["unit"] in ("calendar times", "seconds")


def test_times_of_another_format_are_refused_as_written(tmp_path: Path) -> None:
    rows = [f"u,i,{1 + number % 28:02d}.05.2014" for number in range(200)]
    path = table(tmp_path, [*rows, "u,i,31.02.2014", "u,i,"], header="user_id,item_id,timestamp")
    refused = read(path, reading=Reading(time_format="%d.%m.%Y")).notes["rows_refused"]
    assert refused["reasons"] == {"unreadable timestamp": 1, "no timestamp": 1}
    assert refused["first"][0] == {
        "line": 202,
        "reason": "unreadable timestamp (column timestamp)",
        "found": "31.02.2014",
    }
    with pytest.raises(InputError, match="time_format 'never' is no format"):
        read(path, reading=Reading(time_format="never"))


SHOP_HEADER = "user_id,item_id,timestamp,event,Quantity,place"


def shop(tmp_path: Path, *rows: str) -> Callable[..., RawLogs]:
    path = table(tmp_path, list(rows), header=SHOP_HEADER)
    return lambda columns=None, **reading: read(path, columns=columns, reading=Reading(**reading))


EVENTS = ("u1,a,1400000000,view,1,3", "u1,b,1400000000,buy,2,1", "u1,c,1400000000,cart,,2", "u2,a,1400000001,,1,1")


@pytest.mark.parametrize(
    ("where", "items"),
    [
        (("event=buy",), "b"),
        (("event=view, buy",), "ab"),
        (("event!=view",), "bca"),
        (("Quantity>1",), "b"),
        (("Quantity<=1", "user_id=u1"), "a"),
        (("event>=cart",), "ac"),
    ],
)
def test_conditions(tmp_path: Path, where: tuple[str, ...], items: str) -> None:
    logs = shop(tmp_path, *EVENTS)(where=where)
    assert "".join(logs.interactions["item_id"]) == items
    assert sum(logs.notes["rows_left_out"].values()) == len(EVENTS) - len(items)
    assert logs.notes["rows_refused"]["total"] == 0


def test_conditions_that_cannot_be(tmp_path: Path) -> None:
    read_shop = shop(tmp_path, *EVENTS)
    with pytest.raises(InputError, match=r"holds no rows that count; 4 left out \(event=gone\)"):
        read_shop(where=("event=gone",))
    with pytest.raises(InputError, match="the condition 'event' is none"):
        read_shop(where=("event",))
    with pytest.raises(InputError, match="the weights 'event:buy' are none"):
        read_shop(weights="event:buy")


def test_weights_of_kinds_are_ratings(tmp_path: Path) -> None:
    logs = shop(tmp_path, *EVENTS)(weights="event:view=1,buy=3")
    assert logs.interactions.select("item_id", "rating").rows() == [("a", 1.0), ("b", 3.0)]
    assert logs.notes["rows_left_out"] == {"no weight for this kind of event": 2}


def test_order_within_one_time(tmp_path: Path) -> None:
    dataset = build(shop(tmp_path, *EVENTS)({"order": "place"}))
    assert [dataset.item_ids[item] for item in dataset.history(0)] == ["b", "c", "a"]
    assert dataset.description["events_of_equal_time"] == 0
    with pytest.raises(InputError, match="line 3: the column place holds 'x', expected a number"):
        shop(tmp_path, EVENTS[0], "u1,b,1400000000,buy,2,x")({"order": "place"})


RETURNED = (
    *("u1,a,1400000000,,2,", "u1,a,1400000010,,1,", "u1,b,1400000020,,1,", "u1,a,1400000030,,-2,"),
    *("u2,a,1400000040,,1,", "u2,b,1400000050,,-1,", "u1,b,1400000060,,-1,"),
)


def test_returns_by_a_named_policy(tmp_path: Path) -> None:
    read_shop = shop(tmp_path, *RETURNED)
    logs = read_shop()
    assert logs.interactions.height == 7 and logs.notes["negative_quantities"] == 3
    assert "quantity" not in logs.interactions.columns
    logs = read_shop(returns="drop")
    assert logs.interactions.height == 4 and logs.notes["rows_left_out"] == {"Quantity below 0": 3}
    logs = read_shop(returns="cancel")
    # Two of a come back: the later purchase of one goes, and of the two before that one stays.
    assert logs.interactions.rows() == [("u1", "a", 1_400_000_000), ("u2", "a", 1_400_000_040)]
    assert logs.notes["returns_cancelled"] == {"returns": 3, "purchases that were returned": 2}
    with pytest.raises(InputError, match="expected one of keep, drop, cancel"):
        Reading(returns="never")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="has no column of quantities"):
        read(table(tmp_path, GOOD, name="log.csv"), reading=Reading(returns="drop"))


def test_a_text_called_score_is_switched_off(tmp_path: Path) -> None:
    path = table(tmp_path, ["u,a,1400000000,good"] * 9, header="user_id,item_id,timestamp,score")
    with pytest.raises(InputError, match=r"If score is no rating: say columns=\{'rating': ''\}"):
        read(path)
    assert read(path, columns={"rating": ""}).interactions.columns == ["user_id", "item_id", "timestamp"]
    with pytest.raises(InputError, match="the column user_id cannot be done without"):
        read(path, columns={"user_id": ""})


def test_the_command_line_says_and_advises_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path, [*EVENTS, *RETURNED], header=SHOP_HEADER.replace("user_id", "visitor"), name="log.csv")
    prepare = ["prepare", "shop", "--raw", str(path), "--out", str(tmp_path / "shop")]
    assert cli.main(prepare) == 2
    assert "looks like" not in (error := capsys.readouterr().err) and "no column 'user_id'" in error
    assert "if it has another name there, say --column user_id=NAME" in error
    assert cli.main([*prepare, "--column", "user_id=visitr"]) == 2
    assert "say --column user_id=visitor" in capsys.readouterr().err
    prepare += ["--column", "user_id=visitor", "--column", "order=place", "--where", "event!=view"]
    assert cli.main([*prepare, "--returns", "cancel"]) == 0
    shown = capsys.readouterr().out
    assert "rows left out  1 (event!=view)" in shown and "rows left out  2 (purchases that were returned)" in shown
    assert cli.main([*prepare, "--replace"]) == 0
    assert "warning: 3 events have a quantity below 0" in capsys.readouterr().out


def test_advice_is_of_the_command_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = table(tmp_path, ["u,i,1"], header="who,item,score", name="lists.csv")
    assert cli.main(["evaluate", "--predictions", str(lists), "--data", "synthetic"]) == 2
    assert "has no column 'user_id'; found: who" in (error := capsys.readouterr().err) and "--column" not in error
    folder = tmp_path / "shop"
    folder.mkdir()
    table(folder, ["u,i,1400000000"], header="user_ids,item_id,timestamp")
    assert (
        cli.main(["train", "sasrec_synthetic", "--set", f"data.dataset={folder}", "--run", str(tmp_path / "run")]) == 2
    )
    assert "call it user_id, or prepare it with --column user_id=user_ids" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16le", "latin-1"])
def test_advice_on_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(lines(HEADER, "ü,i,1400000000,1", *GOOD).encode(encoding))
    with pytest.raises(InputError, match=rf"iconv -f {encoding.replace('latin-1', 'latin1')} -t utf-8"):
        read(path)
