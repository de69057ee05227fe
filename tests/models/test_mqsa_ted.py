"""MQSA-TED: what its queries are made of, what its vectors are taught, and what is left without either."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.items import Relation, bare_items
from recjax.mixers.mixer import SeqContext
from recjax.mixers.stack import window_mean
from recjax.models.model import ItemStats
from recjax.models.mqsa_ted import MQSATED
from recjax.models.sasrec import SASRec
from recjax.ops.items.sparse_teacher import sparse_teacher
from recjax.settings import SettingError
from tests.drawn import drawn_for

LENGTH, ITEMS, WIDTH = 6, 12, 8
STATS = ItemStats(ITEMS, np.arange(ITEMS + 1)[::-1].astype(np.int64))  # item 1 is the most frequent, item 12 has none
SIZE: dict[str, Any] = dict(width=WIDTH, layers=1, max_length=LENGTH, dropout=0.1)
NEXT = np.arange(ITEMS + 1) % ITEMS + 1  # item i is followed by item i + 1
LINKS = Relation(np.stack([NEXT, np.zeros_like(NEXT)], 1), np.stack([np.ones(ITEMS + 1), np.zeros(ITEMS + 1)], 1))
KNOWN = bare_items(ITEMS).adding({"next": jax.tree.map(jnp.asarray, LINKS)})


def batch(packed=True):
    items = np.random.default_rng(0).integers(1, ITEMS + 1, 96).astype(np.int32)
    histories = Histories.concatenated(np.full(16, 6), items, np.arange(96), np.arange(16))
    return Loader(histories, Shifted(LENGTH), 8, 12, 0, ITEMS, packed=packed).host_batch(0)


@cache
def start():
    """Parameters with a long query."""
    return jax.jit(MQSATED(**SIZE).build(STATS).init)(jax.random.key(0), batch(), KNOWN)


def graded(config):
    model, rows = config.build(STATS), batch()
    params = drawn_for(model.init, jax.random.key(0), rows, KNOWN)
    graded = jax.value_and_grad(lambda params: model.loss(params, rows, KNOWN, jax.random.key(3)), has_aux=True)
    return params, jax.jit(graded)(params)


def test_training_tells_a_vector_what_follows_its_item():
    """Of the table alone, from the teacher alone: after a while a frequent item scores its successor best."""
    rows, known = batch(), {}

    def trained(weight):
        config = MQSATED(**{**SIZE, "dropout": 0.0}, weight=weight, head=1.0, distilled=None, l2=1e-3)
        model, optimiser = config.build(STATS), optax.adam(0.01)

        def total(params):
            return sum(f * x / w for f, x, w in model.terms(params, rows, KNOWN, jnp.zeros(()), None).values())

        @jax.jit
        def run(params):
            def step(carried, _):
                params, state = carried
                updates, state = optimiser.update(jax.grad(total)(params), state)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, optimiser.init(params)), None, 150)[0][0]

        return np.asarray(run(start())["items"])

    for weight in (1.0, 0.0):
        table, taught = trained(weight), np.intersect1d(np.arange(1, ITEMS), rows.targets)
        best = 1 + (table[taught] @ table[1 : ITEMS + 1].T).argmax(axis=1)
        known[weight] = (best == NEXT[taught]).mean()
    assert known[1.0] > 0.8 > 0.5 > known[0.0]


def test_without_its_ideas_it_is_sasrec_bit_for_bit():
    alone = MQSATED(**SIZE, alpha=1.0, weight=0.0, l2=0.0)
    jax.tree.map(np.testing.assert_array_equal, graded(alone), graded(SASRec(**SIZE, norm="sasrec")))
    model = MQSATED(**SIZE).build(STATS)
    params = jax.eval_shape(model.init, jax.random.key(0), batch(), KNOWN)
    sums = jax.eval_shape(model.loss, params, batch(), KNOWN, jax.random.key(3))[1]
    assert {"loss", "objective", "l2", "distillation"} == set(sums) and "long" in params


def test_a_window_is_of_one_history():
    segments: Any = np.array([[1, 1, 1, 1, 2, 2, 0]])
    x = np.random.default_rng(0).normal(size=(1, 7, 3)).astype(np.float32)
    found = jax.jit(lambda x: window_mean(x, SeqContext(segments, segments), 3))(x)
    for place, begins in enumerate([0, 0, 0, 1, 4, 4]):
        np.testing.assert_allclose(found[0, place], x[0, begins : place + 1].mean(axis=0), rtol=1e-5)


def test_the_long_query_is_a_mean():
    """With a window of one event it is the event; a longer one gives other states."""
    models = [MQSATED(**SIZE, alpha=0.0, window=window).build(STATS) for window in (1, 3)]
    rows = batch()
    inputs = (start(), rows.items, rows.positions, rows.segments)
    one, three = (np.asarray(jax.jit(model.encode)(*inputs)) for model in models)
    first = (rows.segments > 0) & (np.diff(np.pad(rows.segments, ((0, 0), (1, 0)))) != 0)
    np.testing.assert_allclose(one[first], three[first], rtol=1e-4, atol=1e-5)
    assert abs(one - three)[(rows.segments > 0) & ~first].max() > 0.01


def test_the_sparse_teacher_is_the_dense_formula():
    random = np.random.default_rng(0)
    table, student = (random.normal(size=shape).astype(np.float32) for shape in ((ITEMS + 4, WIDTH), (2, 3, WIDTH)))
    linked = np.array([[[3, 5, 0], [1, 0, 0], [7, 2, 9]]] * 2)
    logits = np.where(linked > 0, random.uniform(0, 5, linked.shape), 0).astype(np.float32)
    weights = np.array([[1, 0.5, 0], [1, 1, 2]], np.float32)

    def dense(student, table):
        teacher = (
            jnp.zeros((2, 3, ITEMS + 1)).at[jnp.arange(2)[:, None, None], jnp.arange(3)[:, None], linked].add(logits)
        )
        shares = jax.nn.softmax(teacher[..., 1:])
        return -jnp.sum(weights[..., None] * shares * jax.nn.log_softmax(student @ table[1 : ITEMS + 1].T))

    def sparse(student, table):
        return sparse_teacher(student, table, linked, logits, weights, items=ITEMS)

    one, other = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(student, table) for f in (dense, sparse))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), one, other)


def test_only_frequent_targets_are_taught():
    model = MQSATED(**SIZE, head=0.25).build(STATS)
    assert np.flatnonzero(model.head()).tolist() == [1, 2, 3]
    rows = batch()
    for distilled, most in ((2, 2), (None, 99)):
        model = MQSATED(**SIZE, head=0.25, distilled=distilled, l2=0.0).build(STATS)
        summed = jax.jit(lambda params, model=model: model.terms(params, rows, KNOWN, params, jax.random.key(1)))
        _, total, weight = summed(start())["distillation"]
        wanted = np.minimum(((rows.targets <= 3) & (rows.weights > 0)).sum(axis=1), most).sum()
        assert weight == wanted and total > 0


def test_a_window_needs_a_query_of_its_own():
    with pytest.raises(SettingError, match="query_window"):
        MQSATED(**SIZE, norm="pre").build(STATS).init(jax.random.key(0), batch(), KNOWN)
