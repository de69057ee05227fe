"""PISA: how it weighs sessions and remembers items, and what it may not look at."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import NextSession, Shifted
from recjax.data.items import Relation, bare_items
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BPR, FullSoftmax
from recjax.models.pisa import PISA
from recjax.typing import InputError

ITEMS, LENGTH, WIDTH = 9, 12, 8
HISTORY = [1, 2, 3, 1, 4, 1, 5, 6, 7]
BASKETS = [0, 0, 0, 1, 1, 2, 2, 2, 5]
"""Item 1 three times, all others once; the last session is of item 7 alone."""


@cache
def catalog():
    links, values = np.zeros((ITEMS + 1, 2), np.int32), np.zeros((ITEMS + 1, 2), np.float32)
    links[1], values[1] = [4, 5], [0.6, 0.3]
    links[5], values[5] = [1, 0], [0.9, 0]
    return bare_items(ITEMS).adding({"sessions": Relation(jnp.asarray(links), jnp.asarray(values))})


@cache
def built(**changes):
    settings = {"width": WIDTH, "layers": 1, "max_length": LENGTH, "dropout": 0.0, **changes}
    model = PISA(**settings).build(ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)))
    params = jax.device_get(jax.jit(model.init)(jax.random.key(0), batch(), catalog()))
    params["gate"]["kernel"] = 0.5 * np.random.default_rng(1).normal(size=(2 * WIDTH, 2)).astype(np.float32)
    return model, params


def batch(items=HISTORY, times=BASKETS, view=NextSession(LENGTH)):  # noqa: B008
    lengths = np.array([len(items)])
    items, times = np.asarray(items, np.int32), np.asarray(times, np.int64)
    return Loader(Histories.concatenated(lengths, items, times, lengths), view, 1, None, 0, ITEMS).host_batch(0)


@cache
def reading(**changes):
    """Compiled: parameters, rows, catalog, key -> what the model reads."""
    return jax.jit(built(**changes)[0].read)


def read(rows, params=None, key=None, **changes):
    given = built(**changes)[1] if params is None else params
    return jax.device_get(reading(**changes)(given, rows, catalog(), key))


def vectors(params):
    table = np.asarray(params["items"])
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)


@pytest.mark.parametrize("changes", [{"decay": 0.0}, {}])
def test_sessions_are_weighted_by_the_strength_of_their_items_in_memory(changes):
    """Against a plain loop: the idea itself."""
    params, relation, decay = built(**changes)[1], catalog().relation("sessions"), changes.get("decay", 0.5)
    table, numbers, found = vectors(params), np.unique(BASKETS, return_inverse=True)[1], read(batch(), **changes)
    for number in range(4):
        ages = 1.0 + number - numbers
        left = np.where(numbers <= number, np.maximum(ages, 1) ** -decay, 0)
        left = {item: left[np.array(HISTORY) == item].sum() / left.sum() for item in HISTORY}
        session = [item for item, n in zip(HISTORY, numbers, strict=True) if n == number]
        links = {i: dict(zip(relation.ids[i].tolist(), relation.values[i].tolist(), strict=True)) for i in session}
        strength = [
            left[item]
            + sum(links[item].get(other, 0) for other in session if other != item)
            + sum(table[item] @ table[other] for other in session if other != item)
            for item in session
        ]
        weights = np.sqrt(np.maximum(strength, 0) + 2.0**-20)
        place = np.flatnonzero(numbers == number)[-1]
        expected = (weights / weights.sum()) @ table[session]
        np.testing.assert_allclose(found["sessions"][0, place], expected, rtol=1e-4, atol=1e-6)
        memory = sum(left[item] * table[item] for item in set(HISTORY))
        np.testing.assert_allclose(found["memory"][0, number], memory / np.linalg.norm(memory), rtol=1e-4, atol=1e-6)


def test_it_recommends_again_what_was_chosen_often():
    """Item vectors at right angles and nothing learned: memory alone orders items that the last session has not."""
    model, params = built(long=5.0)
    table = np.zeros_like(params["items"])
    table[1 : WIDTH + 1] = np.eye(WIDTH)
    histories = Histories.concatenated(np.array([9]), np.array(HISTORY, np.int32), np.array(BASKETS), np.zeros(1))
    queries = NextSession(LENGTH).queries(histories, LENGTH, ITEMS)
    asked = np.arange(1, 9, dtype=np.int32)[None]
    scored = jax.jit(lambda *given: model.scoring(*given).scores(asked)[0])
    scores = np.asarray(scored({**params, "items": table}, queries, catalog()))
    assert scores.argmax() == 0  # item 1, and not 7, the last
    assert all(scores[item - 1] > scores[8 - 1] for item in HISTORY)


def test_without_activation_a_session_is_the_plain_mean_bit_for_bit():
    _, params = built()
    still, bare = ({**params, "factors": np.zeros(count, np.float32)} for count in (3, 0))
    none, mean = read(batch(), still), read(batch(), bare, memory=())
    jax.tree.map(np.testing.assert_array_equal, none, mean)
    assert np.abs(read(batch())["sessions"] - mean["sessions"]).max() > 1e-3


def test_what_comes_later_changes_nothing_before_it():
    whole, other = read(batch()), read(batch(items=[*HISTORY[:5], 8, 9, 2, 3]))
    for name in ("users", "memory", "gate"):
        np.testing.assert_array_equal(whole[name][0, :2], other[name][0, :2])
        assert np.abs(whole[name][0, 2:4] - other[name][0, 2:4]).max() > 1e-3
    np.testing.assert_array_equal(whole["sessions"][0, :5], other["sessions"][0, :5])


def test_the_order_inside_a_session_means_nothing():
    order = [2, 0, 1, 4, 3, 7, 5, 6, 8]
    one, other = read(batch()), read(batch(items=np.array(HISTORY)[order]))
    for name in ("users", "memory"):
        np.testing.assert_allclose(one[name][0, :4], other[name][0, :4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", [BPR(), FullSoftmax()])
def test_the_loss_is_the_sum_of_its_parts(objective):
    model, params = built(loss=objective, task=0.8, ahead=0.3, long=0.4, temper=3.0)
    loss, sums = jax.jit(model.loss)(params, batch(), catalog(), None)
    mean = {name: float(total / weight) for name, (total, weight) in sums.items()}
    parts = 0.7 * mean["session"] + 0.3 * mean["user"] + 0.4 * mean["memory"]
    np.testing.assert_allclose(loss, 0.8 * parts + 0.2 * mean["apart"], rtol=1e-5)
    assert sums["apart"][1] == 3 and sums["user"][1] == 6  # sessions, and events, that have a session before them
    assert 0 < mean["gate"] < 1


def test_ages_in_seconds_want_times():
    view = NextSession(LENGTH, times=True)
    days = [86400 * day + 7 for day in BASKETS]
    by_day, by_session = read(batch(times=days, view=view), age_seconds=86400.0), read(batch())
    np.testing.assert_allclose(by_day["memory"][0, :3], by_session["memory"][0, :3], rtol=1e-5, atol=1e-6)
    assert np.abs(by_day["memory"][0, 3] - by_session["memory"][0, 3]).max() > 1e-3  # three days after the session
    with pytest.raises(InputError, match=r"set view\.times"):
        jax.eval_shape(built(age_seconds=86400.0)[0].read, built()[1], batch(), catalog())


def test_it_needs_the_relation_that_it_names():
    model, params = built()
    with pytest.raises(InputError, match="the relation 'sessions'"):
        jax.eval_shape(model.read, params, replace(batch()), bare_items(ITEMS))


def test_to_a_view_without_sessions_every_event_is_one():
    """The sum of losses is that of the same events with a session each."""
    model, params = built(loss=FullSoftmax())
    of_events = batch(times=list(range(9)), view=NextSession(LENGTH))
    plain = batch(items=[*HISTORY, 8], times=[0] * 10, view=Shifted(LENGTH, align="left"))
    one, other = (jax.jit(model.loss)(params, rows, catalog(), None)[1] for rows in (of_events, plain))
    for name in ("session", "user", "memory", "apart"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5)


def test_forgotten_events_are_in_no_memory_while_training():
    _, params = built(forget=0.4)
    found, plain = (read(batch(), key=key, forget=0.4) for key in (jax.random.key(3), None))
    assert np.abs(found["memory"] - plain["memory"]).max() > 1e-3
    kept = np.asarray(jax.random.bernoulli(jax.random.fold_in(jax.random.key(3), 1), 0.6, (1, LENGTH)))[0, :9]
    assert 0 < kept.sum() < 9
    levels = 1.0 + 3 - np.unique(BASKETS, return_inverse=True)[1]
    memory = (kept * levels**-0.5) @ vectors(params)[HISTORY]
    np.testing.assert_allclose(found["memory"][0, 3], memory / np.linalg.norm(memory), rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, plain, read(batch(), params))
