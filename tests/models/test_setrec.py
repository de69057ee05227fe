"""SETRec: sets have no order, queries do not see each other, and texts alone rank items without an event."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import bare_items
from recjax.models.model import ItemStats
from recjax.models.setrec import SETRec
from recjax.text.lm.t5 import T5, T5Config
from recjax.typing import InputError

ITEMS, SLOTS, WIDTH = 9, 3, 8
RANDOM = np.random.default_rng(0)
COLUMNS = {
    name: np.pad(RANDOM.normal(size=(ITEMS, width)), [(1, 0), (0, 0)]).astype(np.float32)
    for name, width in (("behaviour", 5), ("vectors", 6))
}
COLUMNS["behaviour"][ITEMS] = 0  # nobody has had it
CATALOG = bare_items(ITEMS, jax.tree.map(jnp.asarray, COLUMNS))
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {name: x.shape[1:] for name, x in COLUMNS.items()})
CONFIG = SETRec(slots=SLOTS, hidden=(7,), width=WIDTH, layers=1, heads=2, channels=4, inner=16, dropout=0.0)
MODEL = CONFIG.build(STATS)
ROWS = np.array([[1, 2, 3, 0], [4, 5, 0, 0], [6, 7, 8, 2]], np.int32)
QUERIES = Queries(ROWS, np.zeros_like(ROWS), (ROWS > 0).sum(1), ROWS[:, :0])  # pyright: ignore[reportArgumentType]
LAST = np.arange(4) == (ROWS > 0).sum(1)[:, None] - 1
BATCH = Batch(ROWS, (ROWS > 0).astype(np.int32), ROWS * 0, np.where(LAST, 9, 0), LAST.astype(np.float32))  # pyright: ignore[reportArgumentType]


@cache
def params():
    return jax.jit(MODEL.init)(jax.random.key(0), BATCH, CATALOG)


@jax.jit
def scores(params, items=CATALOG):
    return MODEL.scoring(params, QUERIES, items).scores(jnp.tile(jnp.arange(1, ITEMS + 1), (3, 1)))


def with_slots_in_order(params, order):
    """The text slots of all items in another order."""
    *layers, last = params["text"]
    kernel = last["kernel"].reshape(-1, SLOTS, WIDTH)[:, order].reshape(last["kernel"].shape)
    bias = last["bias"].reshape(SLOTS, WIDTH)[np.array(order)].reshape(-1)
    return {**params, "text": [*layers, {"kernel": kernel, "bias": bias}]}


def test_slots_have_no_order_but_that_of_their_queries():
    order = [2, 0, 1]
    moved = with_slots_in_order(params(), order)
    asked = {**moved, "tokens": params()["tokens"][np.array([0, *(1 + slot for slot in order)])]}
    np.testing.assert_allclose(scores(asked), scores(params()), rtol=1e-5, atol=1e-5)
    assert np.abs(scores(moved) - scores(params())).max() > 1e-2


def test_a_query_changes_its_own_answer_alone():
    answers = jax.jit(MODEL.answers)
    before = answers(params(), QUERIES, CATALOG)
    other = {**params(), "tokens": params()["tokens"].at[2].add(1.0)}
    change = np.abs(answers(other, QUERIES, CATALOG) - before).max(axis=(0, 2))
    assert change[2] > 1e-3 and not np.delete(change, 2).any()


def test_one_causal_pass_answers_as_every_prefix_of_packed_histories_does():
    causal = replace(MODEL, config=replace(CONFIG, causal=True))
    segments = np.array([[1, 1, 2, 2, 2, 0]], np.int32)
    rows = np.array([[1, 2, 4, 5, 6, 0]], np.int32)
    packed = replace(
        BATCH, items=rows, segments=segments, targets=rows % ITEMS + 1, weights=(segments > 0) * np.float32(1)
    )
    found = jax.jit(partial(causal.answers, everywhere=True))(params(), packed, CATALOG)[0]
    prefixes = np.array([[1, 0, 0], [1, 2, 0], [4, 0, 0], [4, 5, 0], [4, 5, 6]], np.int32)
    queries = Queries(prefixes, prefixes * 0, (prefixes > 0).sum(1), prefixes[:, :0])  # pyright: ignore[reportArgumentType]
    for model, alike in ((causal, True), (MODEL, False)):
        expected = jax.jit(model.answers)(params(), queries, CATALOG)
        assert np.allclose(found[:5], expected, atol=1e-5) == alike
    loss, sums = jax.jit(partial(causal.loss, key=None))(params(), packed, CATALOG)
    assert np.isfinite(loss) and float(sums["loss"][1]) == 5


def test_inputs_that_share_a_position_have_no_order():
    """Swapped inputs of one item swap their states, and change no other by more than the order of sums."""
    t5 = T5(T5Config(3, width=WIDTH, heads=2, channels=4, inner=16, layers=1, decoder_layers=1, dropout=0.0))
    inputs = jnp.asarray(RANDOM.normal(size=(1, 6, WIDTH)), jnp.float32)
    mask, places = jnp.ones((1, 6), bool), jnp.array([[0, 0, 0, 1, 1, 1]])
    tokens = jnp.zeros((1, 6), jnp.int32)
    weights = jax.jit(t5.init)(jax.random.key(0), tokens, mask, tokens[:, :1])
    encoded = jax.jit(lambda x: t5.apply(weights, x, mask, places, method=T5.encode))
    swap = np.array([1, 0, 2, 3, 4, 5])
    np.testing.assert_allclose(encoded(inputs[:, swap]), encoded(inputs)[:, swap], atol=1e-5)


def test_an_item_without_an_event_is_scored_by_its_text():
    found = np.asarray(scores(params()))
    texts = CATALOG.adding({"vectors": CATALOG["vectors"].at[9].set(0.0)})
    assert np.abs(np.asarray(scores(params(), texts))[:, 8] - found[:, 8]).max() > 1e-2
    answers = np.asarray(jax.jit(MODEL.answers)(params(), QUERIES, CATALOG))
    own = np.asarray(MODEL.sets(params(), CATALOG)[0])[9]
    np.testing.assert_allclose(found[:, 8], 0.5 * np.einsum("bsd,sd->b", answers[:, 1:], own[1:]), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_of_softmaxes_and_the_distance_of_texts():
    loss, sums = jax.jit(lambda params: MODEL.loss(params, BATCH, CATALOG, None))(params())
    answers, sets = jax.jit(MODEL.answers)(params(), QUERIES, CATALOG), MODEL.sets(params(), CATALOG)
    logits = jnp.einsum("bsd,isd->bsi", answers, sets[0])[..., 1:]
    cross = -jax.nn.log_softmax(logits)[..., 8].mean()
    distance = np.square(np.asarray(sets[2] - sets[1])).sum(axis=1)[ROWS[ROWS > 0]].mean()
    np.testing.assert_allclose(loss, cross + 0.7 * distance, rtol=1e-5)
    assert float(sums["loss"][1]) == 3


def test_a_catalog_without_behaviour_is_refused():
    with pytest.raises(InputError, match="'behaviour'"):
        CONFIG.build(ItemStats(ITEMS, np.ones(ITEMS + 1), {"vectors": (6,)}))
