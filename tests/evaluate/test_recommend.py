"""Lists for typed histories and for files of users."""

import jax
import numpy as np
import polars as pl
import pytest
from jax.sharding import AxisType

from recjax.evaluate import lists as list_files
from recjax.evaluate.ranking import NonFiniteScoresError
from recjax.evaluate.recommend import recommend
from recjax.typing import InputError
from tests.damage import no_file_above
from tests.evaluate import toy

DATA = toy.dataset()
MODEL = toy.TwoTables(DATA.n_items)
PARAMS = MODEL.init(None, None, None)
TITLES = dict(DATA.catalog.select("item_id", "title").iter_rows())


def lists(histories, **options):
    return recommend(MODEL, PARAMS, DATA, toy.VIEW, histories, **options)


def expected(history: list[str], k: int) -> list[str]:
    numbers = DATA.item_index(history)
    scores = toy.scores(PARAMS, numbers)
    open_ = sorted(set(range(1, DATA.n_items + 1)) - set(numbers.tolist()), key=lambda item: (-scores[item], item))
    return [DATA.item_ids[item] for item in open_[:k]]


def test_typed_histories():
    histories = [["i0", "i1", "i4"], ["i9"], ["i0", "i0"]]
    found = lists(histories, k=4)
    assert found.table.columns == ["user_id", "rank", "item_id", "title", "score", "fallback"]
    for number, history in enumerate(histories, start=1):
        rows = found.table.filter(pl.col("user_id") == str(number))
        assert rows["item_id"].to_list() == expected(history, 4)
        assert rows["rank"].to_list() == [1, 2, 3, 4]
        assert rows["title"].to_list() == [TITLES[item] for item in rows["item_id"]]
        assert rows["score"].is_sorted(descending=True)
    assert found.table["fallback"].is_null().all() and not found.unknown and not found.fallbacks


def test_unknown_items_are_named_and_left_out():
    found = lists([["nowhere", "i1", "i4", "nowhere"], ["gone", "i9"]])
    assert found.unknown == {"nowhere": 2, "gone": 1}
    assert found.table.filter(pl.col("user_id") == "1")["item_id"].to_list() == expected(["i1", "i4"], 10)


@pytest.mark.parametrize("history", [[], ["nowhere"]])
def test_a_history_of_which_nothing_is_left_gets_the_most_popular_items(history):
    found = lists([history, ["i1"]], k=3)
    assert found.fallbacks == ["1"]
    rows = found.table.filter(pl.col("user_id") == "1")
    counts = np.bincount(DATA.items, minlength=DATA.n_items + 1)
    assert set(rows["fallback"]) == {"popularity"} and rows["score"].is_null().all()
    assert DATA.item_ids[int(counts.argmax())] == rows["item_id"][0]
    assert found.table.filter(pl.col("user_id") == "2")["fallback"].is_null().all()
    without = lists([history, ["i1"]], k=3, fallback="none")
    assert set(without.table["user_id"]) == {"2"} and without.fallbacks == ["1"] and not without.notes


def test_lists_longer_than_what_is_left_are_short():
    found = lists([["i1", "i4"]], k=1_000)
    assert found.table["item_id"].to_list() == expected(["i1", "i4"], 1_000)
    assert found.table.height == DATA.n_items - 2
    assert lists([["i1", "i4"]], k=1_000, mask_seen="none").table.height == DATA.n_items


def test_a_file_of_users(tmp_path):
    rows = [("b", "i4", 30), ("a", "i1", 10), ("b", "nowhere", 10), ("b", "i1", 20), ("c", "nowhere", 1)]
    path = tmp_path / "users.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)
    found = lists(path, k=5)
    by_user = {user: group["item_id"].to_list() for (user,), group in found.table.group_by("user_id")}
    assert by_user["b"] == expected(["i1", "i4"], 5) and by_user["a"] == expected(["i1"], 5)
    assert found.fallbacks == ["c"] and found.unknown == {"nowhere": 2}
    out = tmp_path / "deep" / "lists.parquet"
    list_files.write(found.table, out)
    assert pl.read_parquet(out).equals(found.table)
    assert [file.name for file in out.parent.iterdir()] == ["lists.parquet"]


def test_every_user_of_a_file_is_listed_or_named(tmp_path):
    rows = [("all", item, str(time)) for time, item in enumerate(DATA.item_ids[1:])]
    rows += [("some", DATA.item_ids[1 + item % 9], str(item)) for item in range(270)]
    rows += [("", "i1", "5"), ("timeless", "i1", "soon"), ("itemless", "", "7")]
    path = tmp_path / "users.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)
    found = lists(path, k=5)
    assert set(found.table["user_id"]) == {"some", "timeless", "itemless"}
    assert sorted(found.fallbacks) == ["itemless", "timeless"]
    assert "no list for 1 users, who have seen every item: 'all'" in found.notes
    (refused,) = (note for note in found.notes if "rows of" in note)
    assert refused.startswith(f"3 rows of {path} left out (") and "unreadable timestamp: 1" in refused
    assert not lists([["i1"]]).notes


def test_a_row_of_a_user_alone_is_a_user_without_events(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("user_id,item_id,timestamp\nnew,,\nold,i1,5\nnewer,,\nold,i4,6\n")
    found = lists(path, k=3)
    assert found.fallbacks == ["new", "newer"] and set(found.table["user_id"]) == {"new", "old", "newer"}
    assert found.table.filter(pl.col("user_id") == "old")["item_id"].to_list() == expected(["i1", "i4"], 3)
    path.write_text("user_id,item_id,timestamp\nnew,,\nold,i1,5\nbad,i4,\nworse,,9\n")
    with pytest.raises(InputError, match="rows cannot be used"):
        lists(path)


@pytest.mark.parametrize(("name", "read"), [("a.csv", pl.read_csv), ("a.parquet", pl.read_parquet)])
def test_lists_are_written_as_the_name_says(tmp_path, name, read):
    found = lists([["i1", "i4"], ["nowhere"]], k=3)
    list_files.write(found.table, tmp_path / name)
    written = read(tmp_path / name, schema_overrides=found.table.schema) if name == "a.csv" else read(tmp_path / name)
    assert written.equals(found.table)
    with pytest.raises(InputError, match=r"a\.txt: lists are written as \.csv or \.parquet"):
        list_files.write(found.table, tmp_path / "a.txt")
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / name, tmp_path):
        with pytest.raises(InputError, match=r"cannot write|lists are written as"):
            list_files.write(found.table, place)
    with no_file_above(10), pytest.raises(InputError, match=r"cannot write .*: File too large"):
        list_files.write(found.table, tmp_path / name)
    list_files.check(tmp_path / "absent" / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "file"]  # checking makes no folder


def test_eight_devices_give_the_same_lists():
    histories = [DATA.history(user) for user in range(DATA.n_users)]
    raw = [[DATA.item_ids[item] for item in history] for history in histories]
    mesh = jax.make_mesh((4, 2, 1), ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        found = lists(raw, users_per_batch=13)
    assert found.table.equals(lists(raw).table)


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="k is 0"):
        lists([["i1"]], k=0)
    with pytest.raises(InputError, match="knows 3 items"):
        recommend(toy.TwoTables(3), PARAMS, DATA, toy.VIEW, [["i1"]])
    damaged = PARAMS | {"outputs": PARAMS["outputs"] * np.nan}
    with pytest.raises(NonFiniteScoresError, match="'1'"):
        recommend(MODEL, damaged, DATA, toy.VIEW, [["i1"]])
