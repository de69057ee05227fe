"""SRA-CL: which samples are neighbours, what the terms move, and that none of it ranks."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.alterations import Substitute
from recjax.data.batches.derived import Prefixes, Users
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader, query_batches
from recjax.data.batches.partners import AlteredCopy, Partnered
from recjax.data.batches.views import Shifted
from recjax.data.items import bare_items
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.models.sracl import SRACL
from recjax.nn.groups import FROZEN
from recjax.typing import InputError
from tests.drawn import drawn_for

LENGTH, ITEMS, WIDTH, USERS, EVENTS = 6, 12, 8, 8, 5
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64), columns={"vectors": (2,)})
TOPIC = np.arange(ITEMS + 1) % 2  # even items are of one topic, odd ones of the other
VECTORS = jnp.asarray(np.eye(2, dtype=np.float32)[TOPIC] * (np.arange(ITEMS + 1) > 0)[:, None])
KNOWN = bare_items(ITEMS, {"vectors": VECTORS})
SIZE: dict[str, Any] = dict(width=WIDTH, layers=1, heads=2, max_length=LENGTH, dropout=0.1)
PLAIN = Users(Prefixes(Shifted(LENGTH, targets=1)))
COPIES = Partnered(Partnered(PLAIN, AlteredCopy((Substitute(),)), "first"), AlteredCopy((Substitute(),)), "second")
RELATED = np.where(np.arange(ITEMS + 1) > 2, np.arange(ITEMS + 1) - 2, 0)[:, None].astype(np.int32)  # of the same topic


def histories():
    """Of users of one topic each."""
    random = np.random.default_rng(0)
    items = 2 * random.integers(1, ITEMS // 2, (USERS, EVENTS)) - np.arange(USERS)[:, None] % 2
    given = np.full(USERS, EVENTS), items.reshape(-1).astype(np.int32), np.arange(USERS * EVENTS), np.arange(USERS)
    return Histories.concatenated(*given)


@cache
def loader():
    return Loader(histories(), COPIES, 8, None, 0, ITEMS, packed=False, relations={"neighbours": RELATED})


class Sweep:
    """Contents of the loader's batches, as a refresh sees it."""

    step = epoch = 0

    def __init__(self, params):
        self.params = params

    def __call__(self, fn):
        found = []
        for step in range(4):
            rows = loader().host_batch(step)
            place = np.maximum((rows.segments > 0).sum(axis=1) - 1, 0)
            values = jax.jit(fn)(self.params, rows, KNOWN)
            found.append(jax.tree.map(lambda x, at=place: np.asarray(x)[np.arange(8), at], values))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


@cache
def built(memory=20, **changes):
    model = SRACL(**SIZE, memory=memory, neighbours=3, **changes).build(STATS)
    params = drawn_for(model.init, jax.random.key(0), loader().host_batch(0), KNOWN)
    return model, model.refresh(params, KNOWN, Sweep(params))


def neighbours(model, params, rows):
    """Shares of the samples of the memory in each positive [b, m], told by states that are unit vectors."""
    memory = params[FROZEN] | {"states": np.eye(len(params[FROZEN]["users"]))}
    return np.asarray(jax.jit(model.positives)({**params, FROZEN: memory}, rows, KNOWN, jax.random.key(5))[0])


@pytest.mark.parametrize("neighbourhood", ["semantic", "random"])
def test_neighbours_are_of_the_same_topic_but_at_random(neighbourhood):
    model, params = built(neighbourhood=neighbourhood)
    rows, users = loader().host_batch(0), np.asarray(params[FROZEN]["users"])
    found = neighbours(model, params, rows)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    own = rows.more["users"]
    assert not found[own[:, None] == users].any() and ((found > 0).sum(axis=1) == 3).all()
    alike = np.where(own[:, None] % 2 == users % 2, found, 0).sum(axis=1).mean()
    assert alike > 0.99 if neighbourhood == "semantic" else alike < 0.9


def test_the_memory_is_of_samples_each_once():
    for memory in (20, 60):
        users = np.asarray(built(memory)[1][FROZEN]["users"])
        assert (users >= 0).sum() == min(memory, 4 * USERS) and np.bincount(users[users >= 0].astype(int)).max() <= 4


def test_gradients_reach_the_anchor_and_the_weights_but_no_memory():
    model, params = built()
    rows = loader().host_batch(0)

    def inter(params):
        hidden = model.encode(params, rows.items, rows.positions, rows.segments)
        return model.terms(params, rows, KNOWN, hidden, None)["inter"][1]

    found = jax.jit(jax.grad(inter))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found[FROZEN]))
    assert np.any(found["items"]) and all(np.any(leaf) for leaf in found["attend"].values())


def test_items_are_replaced_by_listed_neighbours_alone():
    rows = loader().host_batch(0)
    for name in ("first", "second"):
        copy = rows.more[f"{name}_items"]
        changed = copy != rows.items
        assert changed.any() and (copy == np.where(changed, RELATED[rows.items, 0], rows.items)).all()


def test_without_its_terms_it_is_the_encoder_which_alone_ranks():
    base = NextItem(**SIZE, norm="post", input_norm=True, scale=False).build(STATS)
    alone = SRACL(**SIZE, inter=0.0, intra=0.0).build(STATS)
    rows = loader().host_batch(0)
    starts = [jax.jit(each.init)(jax.random.key(0), rows, KNOWN) for each in (base, alone)]
    jax.tree.map(np.testing.assert_array_equal, *starts)
    losses = [jax.jit(m.loss)(starts[0], rows, KNOWN, jax.random.key(1))[0] for m in (base, alone)]
    assert losses[0] == losses[1] and alone.refresh_every is None
    model, params = built()
    queries = next(query_batches(histories(), PLAIN, ITEMS, 8))[0]
    lists = [jax.jit(lambda p, m=m: m.scoring(p, queries, KNOWN).topk(queries.seen, 5))(params) for m in (base, model)]
    jax.tree.map(np.testing.assert_array_equal, *lists)


def test_what_it_reads_has_to_be_there():
    with pytest.raises(InputError, match="set the recipe's text"):
        SRACL(**SIZE).build(dataclasses.replace(STATS, columns={}))
    model, params = built()
    rows = loader().host_batch(0)
    lone = dataclasses.replace(rows, more={k: v for k, v in rows.more.items() if k != "users"})
    with pytest.raises(InputError, match="Users view"):
        jax.eval_shape(lambda params: model.positives(params, lone, KNOWN, None), params)
