"""Events one by one give the lists of whole histories, also after a save, a restore and more users than expected."""

import jax
import numpy as np
import pytest

from recjax.data.batches.views import Queries, Shifted
from recjax.data.items import bare_items
from recjax.data.splits import Histories
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


def test_events_give_the_lists_of_whole_histories(params):
    params, items, scores = params
    total = sum(map(len, HISTORIES))
    stream = Stream(MODEL, params, VIEW, users_per_batch=4)  # fewer than there are users
    for cut in (slice(0, 5), slice(5, 6), slice(6, total // 2)):
        stream.push(*_events(cut))
    again = Stream(MODEL, params, VIEW, users_per_batch=4)
    again.restore(stream.arrays())
    again.push(*_events(slice(total // 2, total)))
    found, found_scores = again.recommend(NAMES, 5)
    np.testing.assert_array_equal(found, items)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-4, atol=1e-5)
    assert again.length("u3") == len(HISTORIES[3]) and again.length("nobody") == 0
    assert again.bytes_per_user > 2 * 2 * ROOM * 16 * 4


def test_what_cannot_be_is_said(params):
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


def test_events_given_a_second_time_change_nothing(params):
    params = params[0]
    users, items = ["a", "b", "a", "a", "b"], np.array([1, 2, 3, 3, 4])
    times = np.array([10, 10, 20, 20, 30])
    stream = Stream(MODEL, params, VIEW, users_per_batch=4)
    assert not stream.push(users, items, times).any()  # an item twice at one time is two events
    before = stream.arrays()
    assert stream.push(users, items, times).all()
    for name, array in stream.arrays().items():
        np.testing.assert_array_equal(array, before[name], name)
    with pytest.raises(InputError, match=r"1 events are not after .* user 'a'"):
        stream.push(["a", "a"], np.array([5, 9]), np.array([21, 19]), late="refuse")
    for name, array in stream.arrays().items():
        np.testing.assert_array_equal(array, before[name], name)
    found = stream.push(["a", "a", "c", "a"], np.array([7, 3, 3, 9]), np.array([20, 20, 20, 25]))
    assert found.tolist() == [False, True, False, False]  # another item at the time of the last one is new
    whole = Stream(MODEL, params, VIEW, users_per_batch=4)
    whole.push(["a"] * 5 + ["b"] * 2 + ["c"], np.array([1, 3, 3, 7, 9, 2, 4, 3]))
    for one, other in zip(stream.recommend(["a", "b", "c"], 5), whole.recommend(["a", "b", "c"], 5), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_last_items_alone_are_remembered(params):
    stream = Stream(MODEL, params[0], VIEW, users_per_batch=4, seen_items=3)
    stream.push(["a"] * 6, np.array([1, 2, 3, 1, 4, 4]))
    listed = set(stream.recommend(["a"], ITEMS)[0][0].tolist())
    assert listed == {0, *range(1, ITEMS + 1)} - {3, 1, 4}
    assert stream.length("a") == 6 and stream.forgetful(["a", "nobody"]) == 1
    assert stream.arrays()["seen"].tolist() == [3, 1, 4]
    stream.push(["b"] * 3, np.array([1, 1, 2]))
    assert stream.forgetful(["a", "b"]) == 1


def test_the_positions_of_a_model_that_has_a_table_count_from_the_left():
    assert SASRec(width=8, max_length=ROOM).build(MODEL.stats).learned_positions


def test_the_cost_of_one_more_event(params):
    cost = online_cost(MODEL, params[0], VIEW)
    assert cost["ms"] > 0
    assert cost["bytes_per_user"] == Stream(MODEL, params[0], VIEW, users_per_batch=1).bytes_per_user
    right = SASRec(width=16, layers=1, max_length=ROOM, inner=16).build(ItemStats(ITEMS, np.arange(ITEMS + 1)))
    assert online_cost(right, params[0], Shifted(max_length=ROOM)) == {}
