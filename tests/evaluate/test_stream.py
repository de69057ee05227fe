"""Events one by one give the lists of whole histories, also after a save, a restore and more users than expected."""

import jax
import numpy as np
import pytest

from recjax.data.items import bare_items
from recjax.data.splits import Histories
from recjax.data.views import Queries, Shifted
from recjax.evaluate.online import online_cost
from recjax.evaluate.stream import Stream
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.models.sasrec import SASRec
from recjax.typing import InputError

ITEMS, ROOM, USERS = 40, 24, 11
VIEW = Shifted(max_length=ROOM, align="left")
MODEL = NextItem(width=16, layers=2, heads=2, max_length=ROOM, inner=16).build(ItemStats(ITEMS, np.arange(ITEMS + 1)))
RNG = np.random.default_rng(0)
HISTORIES = [RNG.integers(1, ITEMS + 1, length) for length in RNG.integers(1, ROOM + 1, USERS)]
NAMES = [f"u{number}" for number in range(USERS)]


@pytest.fixture(scope="module")
def params():
    lengths = np.array([len(history) for history in HISTORIES])
    items = np.concatenate(HISTORIES).astype(np.int32)
    histories = Histories.concatenated(lengths, items, np.zeros(len(items), np.int64), np.arange(USERS))
    queries = VIEW.queries(histories, ROOM, ITEMS)
    seen = np.zeros((USERS, ROOM), np.int32)
    for row, history in enumerate(HISTORIES):
        seen[row, : len(history)] = history
    queries = Queries(queries.items, queries.positions, queries.lengths, seen)
    segments = queries.segments
    init = jax.jit(lambda key: MODEL.module.init(key, queries.items, queries.positions, segments)["params"])
    params = init(jax.random.key(0))
    items, scores = jax.jit(lambda p: MODEL.scoring(p, queries, bare_items(ITEMS)).topk(seen, 5))(params)
    return params, np.asarray(items), np.asarray(scores)


def _events(cut: slice) -> tuple[list[str], np.ndarray]:
    """The events of all users, taken in turn, as a log has them."""
    log = [(place, user, item) for user, history in enumerate(HISTORIES) for place, item in enumerate(history)]
    log.sort(key=lambda event: event[0])
    return [NAMES[user] for _, user, _ in log[cut]], np.array([item for _, _, item in log[cut]])


def test_events_give_the_lists_of_whole_histories(params, tmp_path):
    params, items, scores = params
    total = sum(map(len, HISTORIES))
    stream = Stream(MODEL, params, VIEW, users_per_batch=4)  # fewer than there are users
    for cut in (slice(0, 5), slice(5, 6), slice(6, total // 2)):
        stream.push(*_events(cut))
    stream.save(tmp_path / "states.safetensors", {"step": 3})
    again = Stream(MODEL, params, VIEW, users_per_batch=4)
    with pytest.raises(InputError, match="step 3 there, 4 here"):
        again.restore(tmp_path / "states.safetensors", {"step": 4})
    again.restore(tmp_path / "states.safetensors", {"step": 3})
    again.push(*_events(slice(total // 2, total)))
    found, found_scores = again.recommend(NAMES, 5)
    np.testing.assert_array_equal(found, items)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-4, atol=1e-5)
    assert again.length("u3") == len(HISTORIES[3]) and again.length("nobody") == 0
    assert again.bytes_per_user > 2 * 2 * ROOM * 16 * 4


def test_what_cannot_be_is_said(params, tmp_path):
    params = params[0]
    stream = Stream(MODEL, params, VIEW, users_per_batch=4)
    with pytest.raises(InputError, match="item number 41 is not in the catalog"):
        stream.push(["a"], np.array([41]))
    with pytest.raises(InputError, match=f"user 'a' would have {ROOM + 1} events"):
        stream.push(["a"] * (ROOM + 1), np.ones(ROOM + 1, np.int64))
    with pytest.raises(InputError, match="no events of user 'b'"):
        stream.recommend(["b"], 3)
    with pytest.raises(InputError, match="positions from the end"):
        Stream(MODEL, params, Shifted(max_length=ROOM))
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(InputError, match="holds no states of users"):
        stream.restore(tmp_path / "junk", {})


def test_the_positions_of_a_model_that_has_a_table_count_from_the_left():
    assert SASRec(width=8, max_length=ROOM).build(MODEL.stats).learned_positions


def test_the_cost_of_one_more_event(params):
    cost = online_cost(MODEL, params[0], VIEW)
    assert cost["ms"] > 0
    assert cost["bytes_per_user"] == Stream(MODEL, params[0], VIEW, users_per_batch=1).bytes_per_user
    right = SASRec(width=16, layers=1, max_length=ROOM, inner=16).build(ItemStats(ITEMS, np.arange(ITEMS + 1)))
    assert online_cost(right, params[0], Shifted(max_length=ROOM)) == {}
