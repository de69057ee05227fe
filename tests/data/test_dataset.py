"""Building a dataset: order, numbering, filters, counts, fingerprint, and what bad input says."""

import dataclasses
from collections import Counter

import numpy as np
import polars as pl
import pytest

from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation
from recjax.typing import InputError
from tests.data.samples import logs, random_logs


def sequences(dataset):
    return {
        user: [dataset.item_ids[item] for item in dataset.history(number)]
        for number, user in enumerate(dataset.user_ids)
    }


def test_sorts_by_user_and_time_and_keeps_file_order_in_ties():
    dataset = build(logs([("b", "x", 5), ("a", "z", 9), ("b", "w", 5), ("a", "y", 1), ("b", "v", 2), ("b", "u", 5)]))
    assert dataset.user_ids == ["b", "a"]
    assert sequences(dataset) == {"b": ["v", "x", "w", "u"], "a": ["y", "z"]}
    assert dataset.item_ids == ["", "x", "z", "w", "y", "v", "u"]
    assert dataset.timestamps.tolist() == [2, 5, 5, 5, 1, 9]
    assert dataset.offsets.tolist() == [0, 4, 6]
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (2, 6, 6)


def test_order_equals_pythons_stable_sort_on_random_logs():
    raw = random_logs(0)
    expected = sorted(raw.interactions.rows(), key=lambda row: row[2])
    dataset = build(raw)
    for user, items in sequences(dataset).items():
        assert items == [item for owner, item, _ in expected if owner == user]


def test_catalog_has_a_row_for_every_item_in_item_order():
    catalog = pl.DataFrame({"item_id": ["c", "a", "never"], "title": ["C", "A", "N"], "brand": ["one", None, "two"]})
    dataset = build(logs([("u", "b", 1), ("u", "a", 2), ("u", "c", 3)], catalog))
    assert dataset.catalog["item_id"].to_list() == dataset.item_ids[1:] == ["b", "a", "c"]
    assert dataset.catalog["title"].to_list() == [None, "A", "C"]
    assert dataset.description["catalog"] == {
        "rows": 3,
        "items_without_row": 1,
        "rows_without_events": 1,
        "items_without_title": 1,
    }


def test_ratings_stay_with_their_events():
    dataset = build(logs([("u", "a", 3, 1.0), ("u", "b", 1, None), ("u", "c", 2, 5.0)]))
    assert dataset.values is not None and dataset.values.dtype == np.float32
    np.testing.assert_array_equal(dataset.values, [np.nan, 5.0, 1.0])


def test_min_rating_drops_low_and_unrated_events_and_counts():
    raw = logs([("u", "a", 1, 4.0), ("u", "b", 2, 3.0), ("v", "c", 3, None), ("u", "d", 4, float("nan"))])
    dataset = build(raw, Preparation(min_rating=4))
    assert sequences(dataset) == {"u": ["a"]}
    assert dataset.description["steps"] == [
        {"step": "read", "users": 2, "items": 4, "interactions": 4},
        {"step": "min_rating 4", "users": 1, "items": 1, "interactions": 1},
    ]


@pytest.mark.parametrize(("policy", "expected"), [("keep", "aabab"), ("consecutive", "abab"), ("pair", "ab")])
def test_duplicate_policies(policy, expected):
    rows = [("u", item, time) for time, item in enumerate("aabab")] + [("v", "b", 0), ("v", "a", 1)]
    found = sequences(build(logs(rows), Preparation(duplicates=policy)))
    assert "".join(found["u"]) == expected
    assert found["v"] == ["b", "a"]


def test_pair_keeps_the_earliest_event_even_when_the_file_is_not_in_time_order():
    dataset = build(logs([("u", "a", 9), ("u", "b", 5), ("u", "a", 1)]), Preparation(duplicates="pair"))
    assert dataset.timestamps.tolist() == [1, 5]


def test_consecutive_duplicates_that_the_core_uncovers_go_too():
    rows = [("u", "a", 0), ("u", "rare", 1), ("u", "a", 2), ("u", "b", 3), ("v", "a", 0), ("v", "b", 1), ("v", "a", 2)]
    dataset = build(logs(rows), Preparation(k_core=2, duplicates="consecutive"))
    assert sequences(dataset) == {"u": ["a", "b"], "v": ["a", "b", "a"]}


@pytest.mark.parametrize("seed", range(5))
def test_k_core_and_min_length_reach_a_fixed_point_that_is_as_large_as_possible(seed):
    raw = random_logs(seed, users=40, items=40, events=290)
    dataset = build(raw, Preparation(k_core=4, min_length=6))
    rows = [(user, item) for user, item, _ in raw.interactions.rows()]
    while True:
        users, items = Counter(user for user, _ in rows), Counter(item for _, item in rows)
        kept = [row for row in rows if users[row[0]] >= 6 and items[row[1]] >= 4]
        if len(kept) == len(rows):
            break
        rows = kept
    assert len(rows) > 0
    found = [(user, item) for user, items in sequences(dataset).items() for item in items]
    assert Counter(found) == Counter(rows)


def test_description_records_every_option():
    options = Preparation(k_core=2, min_length=3, duplicates="consecutive", min_rating=None, unseen="drop")
    dataset = build(random_logs(1), options)
    assert dataset.description["options"] == dataclasses.asdict(options) | {"tie_order": "file"}
    assert [step["step"] for step in dataset.description["steps"]] == [
        "read",
        "duplicates consecutive",
        "k_core 2, min_length 3",
    ]


def test_fingerprint_is_stable_and_sees_every_part():
    rows = [("u", "a", 1, 4.0), ("u", "b", 1, 5.0), ("v", "a", 3, 2.0)]
    raw = logs(rows)
    first = build(raw).fingerprint
    assert first == build(logs(rows, name="another")).fingerprint
    assert first == build(logs(rows, raw.catalog.select("title", "item_id"))).fingerprint
    # A constant on purpose: results are compared by it, so a release may not change it without saying so.
    assert first == "29134de33b0a37df19b88979da517b763909363f05a0f2b1f1e6bd5cdf5806a8"
    changed = [
        logs([rows[1], rows[0], rows[2]]),  # the order of a tie
        logs([("u", "a", 0, 4.0), *rows[1:]]),  # a time
        logs([*rows[:2], ("v", "a", 3, 3.0)]),  # a rating
        logs([*rows[:2], ("w", "a", 3, 2.0)]),  # a user id
        logs([row[:3] for row in rows]),  # no ratings
        logs(rows, raw.catalog.with_columns(pl.lit("x").alias("title"))),  # the text
    ]
    prints = [first] + [build(each).fingerprint for each in changed]
    assert len(set(prints)) == len(prints)


def test_item_index_names_unknown_ids():
    dataset = build(logs([("u", "apple", 1), ("u", "pear", 2)]))
    assert dataset.item_index(["pear", "apple", "pear"]).tolist() == [2, 1, 2]
    with pytest.raises(InputError, match=r"no item ids 'aple', 'x' \(2 unknown\); nearest to 'aple': 'apple'"):
        dataset.item_index(["pear", "aple", "x", "aple"])
    with pytest.raises(InputError, match="no item id ''"):
        dataset.item_index([""])
    assert dataset.user_index(["u"]).tolist() == [0]
    with pytest.raises(InputError, match="no user id 'w'"):
        dataset.user_index(["w"])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user_id": ["u"], "item_id": ["a"]}, "lack the column timestamp"),
        ({"user_id": ["u"], "item_id": ["a"], "timestamp": ["yesterday"]}, "timestamps are String, expected whole"),
        ({"user_id": ["u"], "item_id": ["a"], "timestamp": [float("nan")]}, "timestamps are Float64, expected whole"),
        ({"user_id": ["u", None], "item_id": ["a", "b"], "timestamp": [1, 2]}, r"no user_id \(first in rows 2\)"),
        ({"user_id": ["u", "u"], "item_id": ["a", " "], "timestamp": [1, 2]}, r"no item_id \(first in rows 2\)"),
        ({"user_id": ["u"], "item_id": ["a"], "timestamp": [None]}, "timestamp"),
        ({"user_id": ["u"], "item_id": ["a"], "timestamp": [1], "rating": [float("inf")]}, "1 ratings are infinite"),
    ],
)
def test_bad_interactions_are_refused(frame, message):
    raw = dataclasses.replace(logs([("u", "a", 1)]), interactions=pl.DataFrame(frame, strict=False))
    with pytest.raises(InputError, match=message):
        build(raw)


def test_bad_catalogs_are_refused():
    rows = [("u", "a", 1)]
    with pytest.raises(InputError, match="1 item ids stand more than once in the catalog: 'a'"):
        build(logs(rows, pl.DataFrame({"item_id": ["a", "b", "a"], "title": ["x", "y", "z"]})))
    with pytest.raises(InputError, match=r"catalog lacks the column item_id \(found: title\)"):
        build(logs(rows, pl.DataFrame({"title": ["x"]})))


def test_an_empty_catalog_leaves_items_without_text():
    empty = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    dataset = build(logs([("u", "a", 1), ("u", "b", 2)], empty))
    assert dataset.catalog["title"].to_list() == [None, None]
    assert dataset.description["catalog"]["items_without_row"] == 2


def test_nothing_left_is_an_error_that_shows_the_trail():
    raw = logs([("u", "a", 1, 2.0), ("v", "b", 2, 5.0)])
    with pytest.raises(InputError, match="the dataset has no interactions"):
        build(logs([]))
    with pytest.raises(InputError, match=r"no interaction is left after k_core 5.*after read: 2 interactions"):
        build(raw, Preparation(k_core=5))
    with pytest.raises(InputError, match="min_rating 6"):
        build(raw, Preparation(min_rating=6))
    with pytest.raises(InputError, match="the data have no rating column"):
        build(logs([("u", "a", 1)]), Preparation(min_rating=3))


@pytest.mark.parametrize(
    "options",
    [{"k_core": -1}, {"min_length": 0}, {"duplicates": "some"}, {"min_rating": float("nan")}],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Preparation(**options)
