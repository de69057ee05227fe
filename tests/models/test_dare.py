"""DARE: a search that learns apart from what it finds, and finds few."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.items import bare_items
from recjax.models.dare import DARE, SEARCH, kept
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import Negatives
from recjax.settings import SettingError
from tests.drawn import drawn_for

ITEMS, ROWS, LENGTH = 20, 6, 7
STATS, KNOWN = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)), bare_items(ITEMS)
SMALL: dict[str, Any] = dict(width=4, keep=3, inner=(8,), category=None, max_length=LENGTH)


def batch() -> Any:
    items = np.random.default_rng(0).integers(1, ITEMS + 1, ROWS * (LENGTH + 1)).astype(np.int32)
    histories = Histories.concatenated(np.full(ROWS, LENGTH + 1), items, np.arange(items.size), np.arange(ROWS))
    return Loader(histories, Shifted(LENGTH, targets=1), ROWS, None, 0, ITEMS, packed=False).host_batch(0)


def gradients(model: Any, params: Any) -> Any:
    rows = batch()
    return jax.jit(jax.grad(lambda params: model.loss(params, rows, KNOWN, jax.random.key(2))[0]))(params)


def test_a_shared_table_gets_the_sum_of_what_the_search_and_what_is_read_want():
    """Of two tables with the same values, each gets its own part of the gradient, and both are wanted."""
    apart, shared = DARE(**SMALL).build(STATS), DARE(**SMALL, tables="shared").build(STATS)
    params = drawn_for(shared.init, jax.random.key(0), batch(), KNOWN)
    tables = ("items", "ago")
    own = gradients(apart, params | {SEARCH + name: params[name] for name in tables})
    both = gradients(shared, params)
    for name in tables:
        assert min(jnp.abs(own[name]).max(), jnp.abs(own[SEARCH + name]).max()) > 1e-5
        np.testing.assert_allclose(own[name] + own[SEARCH + name], both[name], atol=1e-6)
    np.testing.assert_allclose(own["network"]["0"]["kernel"], both["network"]["0"]["kernel"], atol=1e-6)
    maps = params | {"projected": dict.fromkeys(tables, jnp.eye(4))}
    mapped = gradients(DARE(**SMALL, tables="projected").build(STATS), maps)  # by the identity, as it starts
    np.testing.assert_allclose(mapped["items"], both["items"], atol=1e-6)


def test_the_search_keeps_the_best_events_and_no_others_are_read():
    scores, there = jnp.array([[3.0, 1.0, 2.0, 9.0, 2.5]]), jnp.array([[True, True, True, False, True]])
    assert kept(scores, there, 2).tolist() == [[True, False, False, False, True]]
    assert kept(scores, there, 4).tolist() == kept(scores, there, 9).tolist() == there.tolist()
    model, rows = DARE(**SMALL).build(STATS), batch()
    params = drawn_for(model.init, jax.random.key(0), rows, KNOWN)
    asked = jnp.tile(jnp.arange(1, 4), (ROWS, 1))

    @jax.jit
    def read(params):
        history = model.history(params, rows, jnp.full(ROWS, LENGTH - 1), KNOWN)
        return history, [model.vectors(model.tables(params, search), asked, KNOWN) for search in (True, False)]

    history, vectors = read(params)
    clicks = jax.jit(lambda values: model.clicks(params, {**history, "values": values}, *vectors))
    best = np.argsort(-np.asarray(model.search(history, vectors[0])), axis=-1)[..., : SMALL["keep"]]
    others = np.ones((ROWS, 3, LENGTH), bool)
    np.put_along_axis(others, best, False, axis=-1)
    unread = history["values"] + 5.0 * np.asarray(others.all(axis=1))[..., None]
    assert others.all(axis=1).any()
    found, other = clicks(history["values"]), clicks(unread)
    np.testing.assert_allclose(found[0], other[0], atol=1e-6)
    assert jnp.abs(found[1] - other[1]).max() > 1e-4


def test_what_users_have_is_no_negative():
    model, rows = DARE(**{**SMALL, "negatives": 5}).build(STATS), batch()
    own = np.concatenate([rows.items, rows.targets], axis=1)
    drawn = Negatives(5, "popularity", "row", outside_history=True).draw(rows, jax.random.key(0), model.stats)
    assert drawn.shape == (ROWS, 5) and (drawn[..., None] == own[:, None]).any(axis=-1).mean() < 0.1


def test_settings_that_cannot_be():
    wrongs: tuple[dict[str, Any], ...] = ({"search_width": 4, "tables": "shared"}, {"keep": 0}, {"auxiliary": -1.0})
    for wrong in wrongs:
        with pytest.raises(SettingError):
            DARE(**wrong)
