"""Amazon reviews of three years: the real files of 2018, and small ones in the other years' forms."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from recjax.data.importers import read
from recjax.typing import InputError


def test_gift_cards(native_data: Path, uniform_data: Path) -> None:
    logs = read(native_data / "amazon-2018" / "Gift_Cards_5.json.gz")
    events = logs.interactions
    assert (logs.name, logs.notes["format"]) == ("Gift_Cards", "amazon")
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (458, 148, 2_972)
    assert events.row(0) == ("A31UBHTUUIFJUT", "B004LLIKVU", 1_529_193_600, 5.0)
    assert logs.catalog.height == 1_547
    assert logs.notes["catalog"]["items_without_row"] == 0
    assert [file["name"] for file in logs.notes["files"]] == ["Gift_Cards_5.json.gz", "meta_Gift_Cards.json.gz"]
    # The texts are those of the uniform set, which was made from the same files.
    uniform = read(uniform_data / "amazon-giftcards-2018").catalog
    joined = uniform.join(logs.catalog, on="item_id", how="left", suffix="_ours", maintain_order="left")
    for column in ("title", "categories", "brand", "price"):
        assert joined[column].to_list() == joined[f"{column}_ours"].to_list(), column
    pairs = joined.select("description", "description_ours").fill_null("").rows()
    assert all(ours.startswith(cut) and (ours == cut or len(cut) > 290) for cut, ours in pairs)  # cut at 300 there


def test_without_metadata(native_data: Path) -> None:
    logs = read(native_data / "amazon-2018" / "All_Beauty_5.json.gz")
    events = logs.interactions
    assert (events["user_id"].n_unique(), events["item_id"].n_unique(), events.height) == (991, 85, 5_269)
    assert logs.notes["catalog"] == {
        "file": None,
        "rows": 0,
        "items_without_row": 85,
        "first_without_row": ["B0000530HU", "B00006L9LC", "B00021DJ32", "B0002JHI1I", "B0006O10P4"],
    }


def test_a_folder_with_two_categories_is_ambiguous(native_data: Path) -> None:
    with pytest.raises(InputError, match=r"several datasets \(All_Beauty_5\.json\.gz, Gift_Cards_5\.json\.gz\)"):
        read(native_data / "amazon-2018")


def review(number: int, **changed: Any) -> dict[str, Any]:
    base = {"reviewerID": f"U{number % 7}", "asin": f"B{number % 5}", "overall": 4.0, "reviewText": "line\nbreak"}
    return base | {"unixReviewTime": 1_400_000_000 + number} | changed


def write(path: Path, lines: list[Any]) -> Path:
    content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_2014_with_metadata_in_pythons_notation(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"reviews_Beauty_5{suffix}", [review(number) for number in range(300)])
    items = [
        {"asin": "B0", "title": "Bath &amp; Body <b>Lotion</b>", "price": 9.99, "brand": "It's",
         "categories": [["Beauty", "Bath & Body"], ["Health"]], "description": "One\n two"},
        {"asin": "B1", "categories": [["Beauty"]], "imUrl": "http://example.com/x.jpg"},
        {"title": "no id"},
    ]  # fmt: skip
    write(tmp_path / f"meta_Beauty{suffix}", [repr(item) for item in items])
    logs = read(tmp_path)
    assert logs.notes["catalog_python_lines"] == 3
    assert logs.catalog.columns == ["item_id", "title", "categories", "brand", "price", "description"]
    lotion = ("B0", "Bath & Body Lotion", "Beauty|Bath & Body", "It's", "9.99", "One two")
    assert logs.catalog.rows()[:2] == [lotion, ("B1", None, "Beauty", None, None, None)]
    assert logs.notes["catalog"]["rows_without_id"] == 1
    assert logs.notes["catalog"]["items_without_row"] == 3


def test_python_notation_is_never_evaluated(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews_Beauty_5.json", [review(number) for number in range(300)])
    trap = tmp_path / "trap"
    code = f"{{'asin': __import__('pathlib').Path({str(trap)!r}).touch()}}"
    write(tmp_path / "meta_Beauty.json", [{"asin": f"B{number}"} for number in range(200)] + [code])
    logs = read(path)
    assert not trap.exists()
    assert logs.notes["catalog_rows_refused"]["first"][0]["line"] == 201


def test_python_notation_that_json_does_not_have(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews_Beauty_5.json", [review(number) for number in range(300)])
    bad = ["{'asin': 'B0', 'title': {('a', 1): 'x'}}", f"{{'asin': 'B1', 'price': 0x{'f' * 5000}}}"]
    nested = "{'asin': 'B3', 'title': " + "[" * 90 + "]" * 90 + "}"
    write(tmp_path / "meta_Beauty.json", [*({"asin": f"B{number}"} for number in range(400)), *bad, nested])
    refused = read(path).notes["catalog_rows_refused"]
    assert refused["reasons"] == {"a value that JSON does not have": 2}
    deep = '{"asin": "B0", "categories": ' + "[" * 1000 + "]" * 1000 + "}"
    write(tmp_path / "meta_Beauty.json", [*({"asin": f"B{number}"} for number in range(400)), deep])
    assert read(path).catalog.height >= 400
    write(tmp_path / "meta_Beauty.json", ["{('asin',): 'B2'}"])
    with pytest.raises(InputError, match=r"line 1: expected a JSON object"):
        read(path)


def test_2023_has_milliseconds_and_parent_products(tmp_path: Path) -> None:
    rows = [
        {"user_id": "AE", "asin": "B1", "parent_asin": "P1", "rating": 5.0, "timestamp": 1_588_687_728_923},
        {"user_id": "AF", "asin": "B2", "parent_asin": "P1", "rating": 1.0, "timestamp": 1_588_687_729_000},
    ]
    path = write(tmp_path / "Video_Games.jsonl.gz", rows)
    items = [
        {"parent_asin": "P1", "title": "A game", "main_category": "Video Games", "categories": [], "store": "Maker",
         "price": 19.5, "description": ["Part one.", "", "Part two."], "features": ["x"]},
        {"parent_asin": "P2", "title": "Unsold", "categories": ["A", "B"], "price": None, "description": []},
    ]  # fmt: skip
    write(tmp_path / "meta_Video_Games.jsonl.gz", items)
    logs = read(path)
    events = logs.interactions.select("user_id", "item_id", "timestamp", "rating")
    assert events.rows() == [("AE", "P1", 1_588_687_728, 5.0), ("AF", "P1", 1_588_687_729, 1.0)]
    assert logs.notes["timestamps"]["unit"] == "milliseconds"
    assert logs.catalog.rows() == [
        ("P1", "A game", "Video Games", "Maker", "19.5", "Part one. Part two."),
        ("P2", "Unsold", "A|B", None, None, None),
    ]


def test_2023_ratings_only(tmp_path: Path) -> None:
    text = "user_id,parent_asin,rating,timestamp\nAE,P1,5.0,1588687728923\nAF,P2,4.0,1588687729000\n"
    (tmp_path / "Video_Games.csv.gz").write_bytes(gzip.compress(text.encode()))
    write(tmp_path / "meta_Video_Games.jsonl.gz", [{"parent_asin": "P1", "title": "A game"}])
    logs = read(tmp_path)
    assert logs.interactions.row(0) == ("AE", "P1", 1_588_687_728, 5.0, 923_000_000)
    assert logs.catalog.select("item_id", "title").rows() == [("P1", "A game")]


def test_cells_that_are_page_source_are_no_prices(tmp_path: Path) -> None:
    write(tmp_path / "Gift_Cards_5.json", [review(number) for number in range(9)])
    prices = ["$40.00", "$5.00 - $1,000.00", ".a-box-inner{background-color:#fff}", ""]
    write(tmp_path / "meta_Gift_Cards.json", [{"asin": f"B{n}", "price": price} for n, price in enumerate(prices)])
    assert read(tmp_path).catalog["price"].to_list() == ["$40.00", "$5.00 - $1,000.00", None, None]


def test_damaged_lines(tmp_path: Path) -> None:
    lines: list[Any] = [review(number) for number in range(1_000)]
    lines[2] = '{"reviewerID": "U1", "asin"'
    lines[4] = "[1, 2]"
    lines[6] = review(6, unixReviewTime="soon")
    lines[8] = review(8, reviewerID=None)
    lines[10] = review(10, overall="great")
    lines[12] = ""
    lines[14] = '{"reviewerID": "U1", "asin": "B1", "overall": NaN, "unixReviewTime": 1400000000}'
    logs = read(write(tmp_path / "reviews_Beauty_5.json", lines))
    refused = logs.notes["rows_refused"]
    assert (logs.notes["rows_read"], logs.interactions.height) == (999, 994)
    assert refused["reasons"] == {
        "not a JSON object": 2,
        "unreadable timestamp": 1,
        "no user id": 1,
        "unreadable rating": 1,
    }
    assert [row["line"] for row in refused["first"]] == [3, 5, 7, 11]
    assert logs.notes["unrated"] == 1


def test_line_numbers_of_sound_json_with_bad_values(tmp_path: Path) -> None:
    lines: list[Any] = [review(number) for number in range(500)]
    lines[3] = ""
    lines[6] = review(6, unixReviewTime="soon")
    logs = read(write(tmp_path / "reviews_Beauty_5.json", lines))
    assert logs.notes["rows_refused"]["first"][0]["line"] == 7
    assert logs.notes["rows_refused"]["first"][0]["found"] == "soon"


def test_missing_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews_Beauty_5.json", [{"reviewerID": "U", "asin": "B", "reviewTime": "09 1, 2016"}])
    with pytest.raises(InputError, match=r"no column 'timestamp'; found: reviewerID, asin, reviewTime"):
        read(path)
    write(tmp_path / "reviews_Beauty_5.json", [review(1)])
    write(tmp_path / "meta_Beauty.json", [{"title": "a"}])
    with pytest.raises(InputError, match=r"meta_Beauty\.json has no product id"):
        read(path)
    write(tmp_path / "meta_Beauty.json", [])
    with pytest.raises(InputError, match=r"the metadata .*meta_Beauty\.json has no rows"):
        read(path)


def test_not_utf8_and_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews_Beauty_5.json", [review(number) for number in range(50)])
    path.write_bytes(path.read_bytes().replace(b'"U3"', b'"U\xe9"', 1))
    with pytest.raises(InputError, match="line 4: not UTF-8"):
        read(path)
    packed = write(tmp_path / "Beauty_5.json.gz", [review(number, reviewText=str(number**9)) for number in range(5000)])
    packed.write_bytes(packed.read_bytes()[:-3000])
    with pytest.raises(InputError, match="cannot be read"):
        read(packed)


def test_json_that_is_no_list_of_reviews(native_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset in a known format"):
        read(native_data / "minionerec" / "Industrial_and_Scientific.item.json")
    path = tmp_path / "reviews.json"
    path.write_text("not json at all\n")
    with pytest.raises(InputError, match="line 1: expected a JSON object, found 'not json at all'"):
        read(path, format="amazon")
