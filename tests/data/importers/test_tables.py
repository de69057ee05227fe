"""Tables: the uniform form, other names, parquet; real files and small ones."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from recjax.data.importers import read
from recjax.typing import InputError
from tests.data.importers.damaged import GOOD, table

UNIFORM = {
    "ml-1m": (6_040, 3_416, 999_611),
    "ml-100k": (943, 1_682, 100_000),
    "amazon-beauty-2014": (22_363, 12_101, 198_502),
    "amazon-toys-2014": (19_124, 11_758, 165_247),
    "amazon-giftcards-2018": (458, 148, 2_972),
    "online-retail": (4_108, 3_279, 385_775),
}


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_counts(uniform_data: Path, name: str) -> None:
    logs = read(uniform_data / name)
    events = logs.interactions
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == UNIFORM[name]
    assert logs.name == name
    assert logs.notes["format"] == "table"
    assert logs.notes["rows_refused"]["total"] == 0
    assert logs.notes["catalog"]["items_without_row"] == 0
    assert logs.notes["catalog"]["duplicate_ids"] == 0
    assert events.schema["timestamp"] == pl.Int64
    assert logs.catalog["item_id"].is_unique().all()


def test_uniform_content(uniform_data: Path) -> None:
    logs = read(uniform_data / "ml-1m")
    assert logs.interactions.row(0) == ("1", "3186", 978300019, 4.0)
    assert logs.interactions.schema["rating"] == pl.Float32
    assert logs.catalog.columns == ["item_id", "title", "categories", "description"]
    assert logs.catalog.row(0) == ("1", "Toy Story (1995)", "Animation|Children's|Comedy", None)
    assert read(uniform_data / "amazon-beauty-2014").interactions.columns == ["user_id", "item_id", "timestamp"]


def test_parquet_with_columns_named(native_data: Path) -> None:
    columns = {"item_id": "Description", "timestamp": "InvoiceDate", "title": "Description", "price": "UnitPrice"}
    logs = read(native_data / "online-retail", columns=columns)
    # Customer ids are floats in the file, because some are missing.
    assert logs.interactions.row(0) == ("17850", "WHITE HANGING HEART T-LIGHT HOLDER", 1_291_191_960)
    assert logs.interactions.height == 406_829
    assert logs.interactions["user_id"].n_unique() == 4_372
    assert logs.notes["rows_read"] == 541_909
    assert logs.notes["rows_refused"]["reasons"] == {"no user id": 135_080}
    assert logs.notes["columns"]["user_id"] == "CustomerID"
    assert logs.catalog.columns == ["item_id", "title", "price"]
    assert logs.catalog.row(0) == ("WHITE HANGING HEART T-LIGHT HOLDER", "WHITE HANGING HEART T-LIGHT HOLDER", "2.55")


def test_baskets_with_an_order_number_as_time(native_data: Path) -> None:
    columns = {"user_id": "CUSTOMER_ID", "item_id": "MATERIAL_NUMBER", "timestamp": "ORDER_NUMBER"}
    logs = read(native_data / "tafeng" / "TaFang_history.csv", columns=columns)
    events = logs.interactions
    assert events.height == 178_216
    assert events.select("user_id", "timestamp").unique().height == 33_146
    assert events["item_id"].n_unique() == 4_840
    assert events["user_id"][0] == "00046855"  # padded with spaces in the file


def test_a_folder_with_two_tables_is_ambiguous(tmp_path: Path) -> None:
    for name in ("spring.csv", "autumn.csv"):
        table(tmp_path, GOOD, name=name)
    with pytest.raises(InputError, match=r"autumn\.csv, spring\.csv.*give the path of one file"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.csv.gz", "log.csv"])
def test_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    logs = read(table(tmp_path, GOOD, name=name))
    assert logs.interactions.height == len(GOOD)
    assert logs.interactions.row(8) == ("u1", "i3", 1_400_000_008, 4.0)
    assert logs.name == name.split(".")[0]


def test_usual_names_are_known_and_nothing_else_is_needed(tmp_path: Path) -> None:
    path = table(tmp_path, ["7,x,1400000000", "8,y,1400000001"], header="userId,Product ID,ts", name="log.csv")
    logs = read(path)
    assert logs.interactions.rows() == [("7", "x", 1_400_000_000), ("8", "y", 1_400_000_001)]
    assert logs.notes["columns"] == {"user_id": "userId", "item_id": "Product ID", "timestamp": "ts"}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    path = table(tmp_path, [separator.join(["a", "x", "5"])], header=separator.join(["user", "item", "time"]))
    assert read(path).interactions.rows() == [("a", "x", 5)]


def test_tie_order_is_file_order(tmp_path: Path) -> None:
    rows = [f"u{number % 3},i{number},1400000000,1" for number in range(5_000)]
    items = read(table(tmp_path, rows)).interactions["item_id"].to_list()
    assert items == [f"i{number}" for number in range(5_000)]


def test_quotes_protect_separators_and_line_ends(tmp_path: Path) -> None:
    table(tmp_path, ["u1,a,1400000000,1", "u1,b,bad,1", *GOOD])
    (tmp_path / "items.csv").write_text('item_id,title\na,"Hello,\n world"\nb,"say ""hi"""\n')
    logs = read(tmp_path)
    assert logs.catalog["title"].to_list()[:2] == ["Hello, world", 'say "hi"']
    assert logs.notes["rows_refused"]["first"][0]["line"] == 3


def test_line_numbers_count_lines_inside_quotes(tmp_path: Path) -> None:
    rows = ['u1,a,1400000000,"two\nlines"', "u1,b,bad,x", *(f"{row},x" for row in GOOD)]
    rows = [row if row.count(",") == 3 else ",".join(row.split(",")[:3]) + ",x" for row in rows]
    logs = read(table(tmp_path, rows, header="user_id,item_id,timestamp,note"))
    assert logs.notes["rows_refused"]["first"][0]["line"] == 4


def test_missing_column_names_those_found_and_the_nearest(tmp_path: Path) -> None:
    path = table(tmp_path, ["1,2,3"], header="user_id,article,timestamps")
    with pytest.raises(InputError, match=r"no columns 'item_id', 'timestamp'; found: user_id, article, timestamps"):
        read(path)
    with pytest.raises(
        InputError, match=r"no column 'timestamp'; .* call it timestamp, or say columns=\{'timestamp': 'timestamps'\}"
    ):
        read(path, columns={"item_id": "article"})
    with pytest.raises(InputError, match=r"no column 'artcle'; .*the nearest to 'artcle' is 'article'"):
        read(path, columns={"item_id": "artcle", "timestamp": "timestamps"})


def test_one_column_cannot_be_two_things(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the column 'item_id' is named as user_id and as item_id"):
        read(table(tmp_path, GOOD), columns={"user_id": "item_id"})


def test_headers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="looks like data, expected column names"):
        read(table(tmp_path, ["A1,B2,4,1400000001"], header="A39HTATAQ9V7YF,0205616461,5.0,1369699200"))
    with pytest.raises(InputError, match="'item_id' is there 2 times"):
        read(table(tmp_path, ["1,2,3,4"], header="user_id,item_id,item_id,timestamp"))
    (tmp_path / "interactions.csv").write_text("")
    with pytest.raises(InputError, match="is empty, expected a header line"):
        read(tmp_path)
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n")
    with pytest.raises(InputError, match="holds no rows"):
        read(tmp_path)


def test_byte_order_mark_blank_lines_and_crlf(tmp_path: Path) -> None:
    content = "\ufeff\r\nuser_id,item_id,timestamp\r\na,x,1400000000\r\n\r\nb,y,oops\r\n" + "c,z,1400000001\r\n" * 200
    (tmp_path / "log.csv").write_bytes(content.encode())
    logs = read(tmp_path)
    assert logs.interactions.height == 201
    assert logs.notes["rows_read"] == 202
    assert logs.notes["rows_refused"]["first"][0]["line"] == 5


def test_parquet_faults_name_rows(tmp_path: Path) -> None:
    users: list[float | None] = [1.0, float("nan"), None, *[2.0] * 300]
    times = [datetime(2020, 1, 1), None, None, None, *[datetime(2020, 1, 2)] * 299]
    frame = pl.DataFrame({"user_id": users, "item_id": ["a"] * 303, "timestamp": times})
    frame.write_parquet(tmp_path / "log.parquet")
    logs = read(tmp_path)
    assert logs.interactions.row(0) == ("1", "a", 1_577_836_800)
    assert logs.notes["rows_refused"]["reasons"] == {"no user id": 2, "no timestamp": 1}
    assert logs.notes["rows_refused"]["first"][0]["line"] == 4
    (tmp_path / "log.parquet").write_bytes(b"PAR1 this is not parquet")
    with pytest.raises(InputError, match="not a readable parquet file"):
        read(tmp_path)


def test_nested_columns_are_no_ids(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a"], "item_id": [["x", "y"]], "timestamp": [1]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="item_id holds List"):
        read(tmp_path)
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "timestamp": [True]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="timestamp holds Boolean"):
        read(tmp_path)


def test_a_log_in_several_files_is_one_log_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "parts").mkdir()
    table(tmp_path / "one", [*GOOD, ",i1,1400000000,3"])
    table(tmp_path / "parts", GOOD[:400], name="interactions-00.csv")
    table(tmp_path / "parts", [*GOOD[400:], ",i1,1400000000,3"], name="interactions-01.csv.gz")
    (tmp_path / "parts" / "items.csv").write_text("item_id,title\ni1,One\n")
    one, parts = read(tmp_path / "one"), read(tmp_path / "parts")
    assert parts.interactions.equals(one.interactions)
    assert parts.notes["rows_read"] == one.notes["rows_read"] == 1_001
    assert parts.notes["unrated"] == one.notes["unrated"]
    refused = parts.notes["rows_refused"]["interactions-01.csv.gz"]
    assert list(parts.notes["rows_refused"]) == ["interactions-01.csv.gz"] and refused["first"][0]["line"] == 602
    assert [file["name"] for file in parts.notes["files"]] == [
        *("interactions-00.csv", "interactions-01.csv.gz", "items.csv"),
    ]
    assert parts.catalog["title"].drop_nulls().to_list() == ["One"]


def test_files_of_one_log_must_agree(tmp_path: Path) -> None:
    table(tmp_path, GOOD, name="interactions-0.csv")
    table(tmp_path, ["u,i,1400000000"] * 9, header="user_id,item_id,timestamp", name="interactions-1.csv")
    with pytest.raises(InputError, match=r"interactions-0.csv and interactions-1.csv are parts of one log but differ"):
        read(tmp_path)
    table(tmp_path, ["u,i,1400000000123,1"] * 9, name="interactions-1.csv")
    logs = read(tmp_path)
    assert logs.notes["timestamps"] | {"column": ""} == {
        "column": "", "unit": "seconds", "units": {"seconds": 1_000, "milliseconds": 9},
    }  # fmt: skip
    assert logs.interactions["timestamp"].to_list()[-1] == 1_400_000_000
    table(tmp_path, ["u,i,17,1"] * 9, name="interactions-1.csv")
    with pytest.raises(InputError, match=r"-0.csv has its times in seconds, interactions-1.csv in places in an order"):
        read(tmp_path)
    table(tmp_path, GOOD)
    with pytest.raises(InputError, match="several datasets"):
        read(tmp_path)
