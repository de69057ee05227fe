"""Requests over HTTP: lists are those of `recommend`, and what cannot be is said."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recjax.evaluate.recommend import recommend
from recjax.serve.limits import Limits
from tests.evaluate import toy
from tests.serve.site import DATA, Site, running, served

RUN = served()
LIMITS = Limits(k=20, events=50, ids=100, body=5_000, users=3)


@pytest.fixture(scope="module")
def site():
    with running(RUN, LIMITS) as found:
        yield found


def expected(history: list[str], k: int = 10) -> list[str]:
    found = recommend(RUN.model, RUN.params, DATA, toy.VIEW, [history], k=k)
    return found.table["item_id"].to_list()


def test_lists_are_those_of_the_command_line(site: Site):
    for history in (["i1"], ["i0", "i4", "i9", "i1", "i0", "i2", "i16", "i25"], [f"i{n}" for n in (1, 4, 9, 16)]):
        assert site.listed(history=history) == expected(history)
        assert site.listed(history=history, k=20) == expected(history, 20)
    status, found = site.ask("POST", "/v1/recommend", {"history": ["i1", "i4"], "k": 1})
    table = recommend(RUN.model, RUN.params, DATA, toy.VIEW, [["i1", "i4"]], k=1).table
    assert status == 200 and found == {
        "items": [
            {"rank": 1, "item_id": table["item_id"][0], "title": table["title"][0] or "", "score": table["score"][0]}
        ],
        "unknown": [],
        "fallback": False,
    }


def test_candidates_and_exclusions(site: Site):
    whole = expected(["i1", "i4"], 20)
    some = [whole[5], whole[2], whole[9], "i1"]
    assert site.listed(history=["i1", "i4"], candidates=some) == [whole[2], whole[5], whole[9]]
    assert site.listed(history=["i1", "i4"], candidates=some, exclude=[whole[2]]) == [whole[5], whole[9]]
    assert site.listed(history=["i1", "i4"], exclude=whole[:3], k=4) == whole[3:7]
    assert site.listed(history=["i1", "i4"], candidates=[]) == []


def test_many_at_once_are_answered_together_by_the_same_programs(site: Site):
    rng = np.random.default_rng(2)
    histories = [[f"i{n}" for n in rng.integers(0, 5, length) ** 2] for length in rng.integers(1, 9, 48)]
    before = site.service.programs.count
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda history: site.listed(history=history), histories))
    assert found == [expected(history) for history in histories]
    assert site.service.programs.count == before
    text = site.ask("GET", "/metrics")[1]
    value = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[0] != "#"}
    assert value["recjax_batch_queries_count"] < value["recjax_batch_queries_sum"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"history": ["i1"', 400, "not JSON"),
        (b"[" * 4_000, 400, "nested too deeply"),
        ({"histroy": ["i1"]}, 422, "there is no setting histroy; did you mean history?"),
        ({"history": []}, 422, "history is empty"),
        ({"history": "i1"}, 422, 'history is "i1", expected a list'),
        ({"history": [1.5]}, 422, "history[0] is 1.5, expected a text or a whole number"),
        ({"history": ["i1"] * 51}, 422, "history has 51 entries, expected at most 50"),
        ({"history": ["i1"], "k": 21}, 422, "k is 21, expected at most 20"),
        ({"history": ["i1"], "k": 0}, 422, "k is 0, expected at least 1"),
        ({"history": ["i1"], "k": True}, 422, "k is true, expected a whole number"),
        ({"history": ["i1"], "exclude": ["i2"] * 101}, 422, "exclude has 101 entries"),
        ({"history": ["i1"], "unknown": "no"}, 422, "expected 'refuse' or 'skip'"),
        ({"history": ["i1", "i16x"]}, 422, "history: the catalog has no item 'i16x'; nearest to 'i16x': 'i16'"),
        ({"history": ["i1"], "candidates": ["i1", "\ud800"]}, 422, "candidates: the catalog has no item"),
        ({"history": ["i1"], "timestamps": [1, 2]}, 422, "timestamps has 2 numbers"),
        (b'{"history": ["' + b"i" * 5_000 + b'"]}', 413, "more than the 5,000 bytes"),
        (None, 415, "expected application/json"),
        ([], 422, "the request is [], expected an object"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_is_said(site: Site, body, status: int, words: str):
    found = site.ask("POST", "/v1/recommend", body)
    assert found[0] == status and words in found[1]["error"]["message"], found


def test_a_body_without_a_length_has_a_limit_too(site: Site):
    headers = {"transfer-encoding": "chunked", "content-type": "application/json"}
    status, found = site.ask("POST", "/v1/recommend", b"1770\r\n" + b" " * 6_000 + b"\r\n0\r\n\r\n", headers)
    assert status == 413 and found["error"]["code"] == "too_long"


def test_a_name_that_is_not_this_machines_is_refused(site: Site):
    status, found = site.ask("GET", "/health", headers={"host": "shop.example"})
    assert status == 400 and found["error"]["code"] == "bad_host"
    assert site.ask("GET", "/health", headers={"host": "LOCALHOST:1"}) == (200, {"status": "ready"})


def test_unknown_ids_are_named_with_the_nearest_or_skipped(site: Site):
    status, found = site.ask("POST", "/v1/recommend", {"history": ["i01", "i1", "i01", 7]})
    assert status == 422 and found["error"]["code"] == "unknown_items"
    assert [each["id"] for each in found["error"]["unknown"]] == ["i01", "7"]
    assert "i0" in found["error"]["unknown"][0]["nearest"]
    status, found = site.ask("POST", "/v1/recommend", {"history": ["i01", "i1"], "unknown": "skip"})
    assert found["unknown"] == ["i01"] and [item["item_id"] for item in found["items"]] == expected(["i1"])


def test_a_history_of_which_nothing_is_left_gets_popular_items(site: Site):
    status, found = site.ask("POST", "/v1/recommend", {"history": ["?"], "unknown": "skip", "k": 3})
    assert status == 200 and found["fallback"] and found["items"][0]["score"] is None
    assert [item["item_id"] for item in found["items"]] == expected(["?"], 3)


def test_users_are_remembered_event_by_event(site: Site):
    assert site.ask("POST", "/v1/users/ann%20b/c/recommend", {})[0] == 404
    for number, item in enumerate(["i1", "i4", "i9", "i1"], start=1):
        status, found = site.ask(
            "POST", "/v1/users/ann%20b/c/events", {"events": [{"item_id": item, "timestamp": number}]}
        )
        assert (status, found["events"]) == (200, number)
    assert site.listed("/v1/users/ann%20b/c/recommend", k=7) == expected(["i1", "i4", "i9", "i1"], 7)
    again = {"events": [{"item_id": "i9", "timestamp": 3}, {"item_id": "i16", "timestamp": 5}]}
    assert site.ask("POST", "/v1/users/ann%20b/c/events", again)[1] == {"events": 5, "skipped": 1, "unknown": []}
    history = ["i1", "i4", "i9", "i1", "i16"]
    assert site.listed("/v1/users/ann%20b/c/recommend") == expected(history)
    whole = expected(history, 20)
    assert site.listed("/v1/users/ann%20b/c/recommend", candidates=whole[3:6], exclude=[whole[4]]) == [
        whole[3],
        whole[5],
    ]
    assert site.ask("DELETE", "/v1/users/ann%20b/c")[0] == 204
    assert site.ask("DELETE", "/v1/users/ann%20b/c")[0] == 404
    assert site.ask("POST", "/v1/users/ann%20b/c/recommend", {})[1]["error"]["code"] == "unknown_user"


def test_events_that_cannot_be_change_nothing(site: Site):
    path = "/v1/users/bob/events"
    for events, words in [
        ([{"item_id": "i1"}, {"item_id": "nowhere"}], "events: the catalog has no item 'nowhere'"),
        ([{"item_id": "i1", "timestamp": 2}, {"item_id": "i4"}], "1 of 2 events have a timestamp"),
        ([{"item_id": "i1", "timestamp": 2}, {"item_id": "i4", "timestamp": 1}], "not in the order"),
        ([], "events is empty"),
        ([{"item": "i1"}], "item_id is missing"),
        ([{"item_id": "i1", "timestamp": -1}], "expected at least 0"),
    ]:
        status, found = site.ask("POST", path, {"events": events})
        assert status == 422 and words in found["error"]["message"], found
    assert site.ask("POST", path, {"events": [{"item_id": "?"}], "unknown": "skip"})[1]["events"] == 0
    assert site.ask("POST", "/v1/users/bob/recommend", {})[0] == 404


def test_the_one_who_was_away_for_longest_makes_room(site: Site):
    for user in ("a", "b", "c", "a", "d"):
        site.ask("POST", f"/v1/users/{user}/events", {"events": [{"item_id": "i1"}]})
    statuses = [site.ask("POST", f"/v1/users/{user}/recommend", {})[0] for user in "abcd"]
    assert statuses == [200, 404, 200, 200]
    assert site.listed("/v1/users/a/recommend") == expected(["i1", "i1"])
    assert site.listed("/v1/users/d/recommend") == expected(["i1"])


def test_items_by_title_and_by_id(site: Site):
    titles = dict(DATA.catalog.select("item_id", "title").iter_rows())
    status, found = site.ask("GET", "/v1/items?search=LAMP%20re&limit=100")
    assert status == 200 and {item["item_id"] for item in found["items"]} == {
        item for item, title in titles.items() if title and "lamp" in title and "re" in title
    }
    first = site.ask("GET", "/v1/items?search=i7")[1]["items"][0]
    assert first == {"item_id": "i7", "title": titles["i7"]}
    assert site.ask("GET", "/v1/items?item_id=i7&item_id=none")[1]["items"] == [first]
    assert len(site.ask("GET", "/v1/items?limit=4")[1]["items"]) == 4
    assert site.ask("GET", "/v1/items?limit=101")[0] == 422


def test_the_document_has_every_path_and_the_limits(site: Site):
    document = site.ask("GET", "/openapi.json")[1]
    assert document["openapi"].startswith("3.") and len(document["paths"]) == 8
    assert document["components"]["schemas"]["Ask"]["properties"]["k"]["maximum"] == 20
    assert document["components"]["schemas"]["Ask"]["properties"]["history"]["maxItems"] == 50
    about = site.ask("GET", "/v1/model")[1]
    assert (about["run"], about["items"], about["online"]) == ("toy", DATA.n_items, "history")
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/v1/recommend", 405), ("POST", "/health", 405)):
        found = site.ask(method, path)
        assert found[0] == status and path in found[1]["error"]["message"] + path
    metrics = site.ask("GET", "/metrics")[1]
    assert 'recjax_requests_total{method="GET",route="other",status="404"} 1.0' in metrics


def test_scores_that_are_no_numbers_are_a_fault_of_the_server():
    params = {name: np.full_like(table, np.nan) for name, table in RUN.params.items()}
    with running(served(params=params), LIMITS) as site:
        status, found = site.ask("POST", "/v1/recommend", {"history": ["i1"]})
        assert status == 500 and found["error"]["code"] == "not_finite"
