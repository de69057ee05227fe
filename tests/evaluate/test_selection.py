"""Files of ids, and lists among some of the items."""

import numpy as np
import polars as pl
import pytest

from recjax.evaluate.recommend import recommend
from recjax.evaluate.selection import item_mask, read_ids, users_alone
from recjax.evaluate.user_events import of_dataset, of_file, typed
from recjax.typing import InputError
from tests.evaluate import toy

DATA = toy.dataset()
MODEL = toy.TwoTables(DATA.n_items)
PARAMS = MODEL.init(None, None, None)


def lists(events, **options):
    return recommend(MODEL, PARAMS, DATA, toy.VIEW, events, **options)


def best(history: list[str], allowed: set[str]) -> list[str]:
    numbers = DATA.item_index(history)
    scores = toy.scores(PARAMS, numbers)
    open_ = sorted(DATA.item_index(sorted(allowed - set(history))).tolist(), key=lambda item: (-scores[item], item))
    return [DATA.item_ids[item] for item in open_]


def test_only_candidates_are_listed_and_only_among_them_what_is_popular():
    stock = ["i1", "i4", "i9", "i16", "gone", "i1"]
    mask, notes = item_mask(DATA, stock, ["i9", "i9"])
    assert notes == ("1 of 5 candidates are not in the catalog: 'gone'",)
    found = lists([["i4", "i5"], []], k=10, candidates=mask)
    assert found.table.filter(pl.col("user_id") == "1")["item_id"].to_list() == best(["i4", "i5"], {"i1", "i4", "i16"})
    popular = found.table.filter(pl.col("user_id") == "2")["item_id"].to_list()
    counts = np.bincount(DATA.items, minlength=DATA.n_items + 1)
    assert popular == sorted(["i1", "i4", "i16"], key=lambda item: -counts[DATA.item_index([item])[0]])
    had = lists([["i1", "i4", "i16"]], candidates=mask)
    assert had.notes == ("no list for 1 users, who have seen every item that may be listed: '1'",)
    everything = item_mask(DATA, None, None)
    assert everything == (None, ()) and item_mask(DATA, exclude=["i1"])[0].sum() == DATA.n_items - 1
    for nothing in ({"candidates": ["gone"]}, {"candidates": ["i1"], "exclude": ["i1"]}, {"candidates": []}):
        with pytest.raises(InputError, match="no item may be listed"):
            item_mask(DATA, **nothing)
    with pytest.raises(InputError, match="candidates are 'i1', expected a list"):
        item_mask(DATA, "i1")


def test_popularity_may_come_from_elsewhere():
    counts = np.zeros(DATA.n_items + 1, np.int64)
    counts[7] = 5
    assert lists([[]], k=1, popularity=counts).table["item_id"].to_list() == [DATA.item_ids[7]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "7.0\n\n 007 \n7\n"),
        ("a.csv", "product_id,stock\n7,1\n007,2\n7,3\n"),
        ("a.tsv", "sku\n7\n007\n"),
        ("a.csv", "sku,iid\n1,x\n"),
    ],
)
def test_files_of_ids(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    assert read_ids(path) == (["x"] if "x" in content else ["7", "007"])


def test_files_of_numbers_and_files_that_are_none(tmp_path):
    pl.DataFrame({"item_id": [7, None, 9]}).write_parquet(tmp_path / "a.parquet")
    assert read_ids(tmp_path / "a.parquet") == ["7", "9"]
    for name, content, message in (
        ("b.csv", "sku,stock\n1,2\n", r"no column 'item_id'; found: sku, stock"),
        ("b.csv", "446\n810\n", "looks like data, expected column names"),
        ("b.txt", "\n", "has no ids"),
        ("b.xml", "[1]", r"b\.xml: a file of ids is \.txt with an id a line, or a table"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=message):
            read_ids(tmp_path / name)
    (tmp_path / "c.csv").write_text("sku,stock\n1,2\n")
    assert read_ids(tmp_path / "c.csv", columns={"item_id": "sku"}) == ["1"]
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(InputError, match=r"d\.txt is not UTF-8"):
        read_ids(tmp_path / "d.txt")
    with pytest.raises(InputError, match=r"there is no file .*absent\.txt"):
        read_ids(tmp_path / "absent.txt")


def test_users_by_their_ids_have_the_histories_of_the_dataset(tmp_path):
    for name, content in (("u.txt", "u3\nnew\nu1\n"), ("u.csv", "customer\nu3\nnew\nu1\n")):
        (tmp_path / name).write_text(content)
        assert users_alone(tmp_path / name) == ["u3", "new", "u1"]
    (tmp_path / "events.csv").write_text("user_id,Sku,timestamp\nu1,i1,3\n")
    assert users_alone(tmp_path / "events.csv") is None and users_alone(tmp_path / "absent.csv") is None
    events = of_dataset(DATA, ["u3", "new", "u1", "u3"])
    assert events.names == ["u3", "new", "u1"] and events.notes == ("1 user is not in dataset 'toy': 'new'",)
    assert [events.items[row] for row in np.flatnonzero(events.users == 2)] == [
        DATA.item_ids[item] for item in DATA.history(1)
    ]
    found = lists(events, k=3)
    assert found.fallbacks == ["new"] and found.table["user_id"].unique(maintain_order=True).to_list() == events.names
    everyone = lists(of_dataset(DATA), k=3)
    assert everyone.table["user_id"].unique(maintain_order=True).to_list() == DATA.user_ids
    assert everyone.table.filter(pl.col("user_id") == "u3").equals(found.table.filter(pl.col("user_id") == "u3"))


def test_a_shop_s_own_columns(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("CustomerID,Sku,When\nb,i4,2020-01-02\na,i1,2020-01-01\nb,i1,2020-01-01\n")
    events = of_file(path, {"user_id": "CustomerID", "item_id": "Sku", "timestamp": "When"})
    assert events.names == ["b", "a"] and events.items == ["i1", "i4", "i1"]


def test_histories_as_they_are_typed():
    assert typed({"ann": ["i1", 4], 7: ()}).names == ["ann", "7"]
    assert typed(["i1", "i2"]).items == ["i1", "i2"] and typed(["i1", "i2"]).names == ["1"]
    assert typed(np.array([[1, 2], [3, 4]])).items == ["1", "2", "3", "4"]
    assert typed([]).names == []
    for wrong, message in (
        ("i1,i2", "histories are 'i1,i2', expected lists of item ids"),
        ({"ann": "i1"}, "history 1 is 'i1', expected a list of item ids"),
        ([["i1"], "i2"], "history 2 is 'i2'"),
        ([["i1"], None], "history 2 is None"),
        (5, "histories are 5"),
    ):
        with pytest.raises(InputError, match=message):
            typed(wrong)
