"""States advanced event by event give the lists of whole histories, also in slots that were another user's."""

import jax
import numpy as np
import pytest

from recjax.data.batches.views import Shifted
from recjax.evaluate.recommend import recommend
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.parallel.mesh import MeshShape
from recjax.serve import programs
from recjax.serve.limits import Limits
from recjax.serve.programs import Programs, Query
from recjax.serve.users import Remembered, Streamed, UnknownUserError, open_users
from tests.serve.site import DATA, running, served

VIEW = Shifted(max_length=8)
STATS = ItemStats(DATA.n_items, np.ones(DATA.n_items + 1, np.int64))


def lru():
    model = NextItem(width=8, layers=1, mixer="lru", max_length=8, inner=8).build(STATS)
    items = np.ones((1, 8), np.int32)
    init = jax.jit(lambda key: model.module.init(key, items, items, items)["params"])
    return served(model, init(jax.random.key(0)), VIEW)


def test_a_model_with_a_state_of_one_size_is_advanced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "SIZES", (1,))
    run = lru()

    def expected(history: list[str]) -> list[str]:
        return recommend(run.model, run.params, DATA, VIEW, [history], k=9).table["item_id"].to_list()

    with running(run, Limits(k=20, users=2)) as site:
        assert isinstance(site.service.users, Streamed) and site.service.online == "state"
        histories = {user: [] for user in "abca"}
        for user, items in (
            ("a", ["i1"]),
            ("b", ["i4", "i9"]),
            ("a", ["i16", "i1", "i0"]),
            ("c", ["i9"]),
            ("a", ["i4"]),
        ):
            sent = {"events": [{"item_id": item} for item in items]}
            assert site.ask("POST", f"/v1/users/{user}/events", sent)[0] == 200
            histories[user] += items
        for user in "ac":
            assert site.listed(f"/v1/users/{user}/recommend", k=9) == expected(histories[user])
        assert site.ask("POST", "/v1/users/b/recommend", {})[0] == 404 and site.service.users.evicted == 1
        whole = site.listed("/v1/users/a/recommend", k=20)
        assert site.listed("/v1/users/a/recommend", candidates=whole[4:7], exclude=[whole[5]]) == [whole[4], whole[6]]
        assert site.ask("DELETE", "/v1/users/a")[0] == 204
        site.ask("POST", "/v1/users/a/events", {"events": [{"item_id": "i9"}]})
        assert site.listed("/v1/users/a/recommend", k=9) == expected(["i9"])
        assert site.listed(history=["i4", "i9"], k=9) == expected(["i4", "i9"])


def test_a_model_without_such_a_state_reads_the_last_events():
    users = open_users(served(), 2)
    assert isinstance(users, Remembered) and len(users) == 0
    users.push("a", np.arange(1, 6, dtype=np.int32), None)
    users.push("a", np.arange(6, 11, dtype=np.int32), np.arange(5))
    slot = users.slot("a")
    items, times, row = users.history(slot)
    assert items.tolist() == [5, 6, 7, 8, 9, 10] and times.tolist() == [0, 0, 1, 2, 3, 4] and row is None
    assert users.length(slot) == 10 and sorted(users.distinct(slot).tolist()) == list(range(1, 11))
    with pytest.raises(UnknownUserError):
        users.slot("b")


def test_more_hidden_items_than_a_program_takes_one_by_one_go_into_a_mask(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "HIDDEN", 3)
    run = served()
    compiled = Programs(run, 50)
    assert compiled.most == DATA.n_items  # no list is longer than the catalog
    history, times = np.array([1, 2], np.int32), np.zeros(2, np.int64)
    hidden = [np.arange(1, 1 + count, dtype=np.int32) for count in (0, 3, 4, 15, DATA.n_items)]
    allowed = np.arange(DATA.n_items + 1) % 2 == 0
    queries = [Query(history, times, each, mask, 50) for each in hidden for mask in (None, allowed)]
    whole = compiled.lists(queries[:1])[0].items
    for query, found in zip(queries, compiled.lists(queries), strict=True):
        mask = np.ones_like(allowed) if query.allowed is None else query.allowed
        assert found.items.tolist() == [item for item in whole if item not in query.hidden and mask[item]]
        assert len(found.scores) == len(found.items) and np.isfinite(found.scores).all()


def test_tables_in_parts_give_the_same_lists():
    whole = served()
    rows = -(-len(whole.params["outputs"]) // 2) * 2
    params = {name: np.pad(table, [(0, rows - len(table)), (0, 0)]) for name, table in whole.params.items()}
    parts = type(whole)(
        **{**vars(whole), "params": params, "mesh": MeshShape(data=1, model=2).build(jax.devices()[:2])}
    )
    queries = [Query(np.array([n, 3], np.int32), np.zeros(2, np.int64), np.array([3]), None, 9) for n in (1, 2, 5)]
    for one, other in zip(Programs(whole, 9).lists(queries), Programs(parts, 9).lists(queries), strict=True):
        assert one.items.tolist() == other.items.tolist()
    assert isinstance(open_users(parts, 2), Remembered)
