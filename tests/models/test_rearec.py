"""ReaRec: steps read the history through the cache, nothing is left without them, and both losses are as written."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from recjax.data.batches.derived import Prefixes
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.items import bare_items
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.models.parts.objectives import BCE
from recjax.models.rearec import ReaRec, ReaRecModel
from recjax.nn.groups import FROZEN
from recjax.ops.items.embedding import take_position
from recjax.typing import InputError
from tests.drawn import drawn_for

LENGTH, ITEMS, WIDTH, USERS = 6, 12, 8, 8
BARE, STATS = bare_items(ITEMS), ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64))
SIZE: dict[str, Any] = dict(
    width=WIDTH, layers=1, heads=2, max_length=LENGTH, norm="post", input_norm=True, scale=False
)
VIEW = Prefixes(Shifted(LENGTH, align="left", targets=1), least=3)


@cache
def histories():
    items = np.random.default_rng(0).integers(1, ITEMS + 1, 6 * USERS).astype(np.int32)
    return Histories.concatenated(np.full(USERS, 6), items, np.arange(6 * USERS), np.arange(USERS))


@cache
def batch():
    return Loader(histories(), VIEW, 8, None, 0, ITEMS, packed=False).host_batch(0)


@cache
def built(way) -> tuple[ReaRecModel, Any, Any]:
    """The model, its parameters with large step vectors, and its jitted loss at a factor of the term.

    "erl" has two layers: a step reads what each of them has cached.
    """
    sizes = {**SIZE, "layers": 2 if way == "erl" else 1}
    model: Any = ReaRec(**sizes, dropout=0.0, way=way, noise=0.5, weight=0.3).build(STATS)
    params = drawn_for(model.init, jax.random.key(0), batch(), BARE)
    params["steps"] = jax.random.normal(jax.random.key(1), (2, WIDTH))
    return model, params, jax.jit(lambda params, key: model.loss(params, batch(), BARE, key))


@cache
def steps_of(way):
    """Positions of the last tokens of the batch, and the states of all steps."""
    model, params, _ = built(way)
    last = jnp.sum(batch().segments > 0, axis=1) - 1

    @jax.jit
    def run(params):
        first, state = model._read(params, batch(), last)
        return model.reason(params, first, state, take_position(batch().positions, last))

    return last, run(params)


def test_cached_steps_are_those_of_a_full_pass_over_history_and_steps():
    model, params, _ = built("erl")
    last, steps = jax.device_get(steps_of("erl"))
    table, tokens = np.asarray(params["items"]), np.asarray(params["steps"])
    full = jax.jit(lambda vectors, positions: model.module.apply(
        {"params": params}, jnp.zeros_like(positions), positions, jnp.ones_like(positions), vectors=vectors
    ))  # fmt: skip
    for row in range(3):
        length = int(last[row]) + 1
        tail = [steps[k][row] + tokens[k] for k in range(2)]
        vectors = np.concatenate([table[batch().items[row, :length]], tail])
        found = np.asarray(full(vectors[None], np.arange(length + 2)[None]))[0, length - 1 :]
        np.testing.assert_allclose(found, [h[row] for h in steps], atol=1e-5)
    assert np.abs(steps[2] - steps[0]).max() > 0.1


def test_without_steps_it_is_the_model_of_prefixes_bit_for_bit():
    def graded(config):
        def run():
            params = model.init(jax.random.key(0), batch(), BARE)
            loss = jax.value_and_grad(lambda p, key: model.loss(p, batch(), BARE, key), has_aux=True)
            return params, loss(params, jax.random.key(3))

        model = config.build(STATS)
        return jax.jit(run)()

    found = map(graded, (ReaRec(**SIZE, steps=0), NextItem(**SIZE)))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_steps_that_do_not_differ_have_no_divergence(monkeypatch):
    model, params, loss = built("erl")
    found, sums = loss(params, None)
    assert sums["divergence"][0] > 0
    total, weight = sums["objective"]
    np.testing.assert_allclose(found, (total - 0.3 * sums["divergence"][0]) / weight, rtol=1e-6)
    monkeypatch.setattr(ReaRecModel, "reason", lambda self, params, first, *more, **options: [first] * 3)
    sums = jax.jit(lambda params: model.loss(params, batch(), BARE, None)[1])(params)
    np.testing.assert_allclose(sums["divergence"][0], 0.0, atol=1e-6)


def test_the_contrast_begins_after_the_warm_up_and_a_ladder_of_temperatures_trains_every_step():
    model, params, loss = built("prl")
    assert model.refresh_every == "epoch"
    sums = {}
    for epoch, on in ((1, 0.0), (2, 1.0)):
        now = model.refresh(params, BARE, SimpleNamespace(epoch=epoch))  # pyright: ignore[reportArgumentType]
        found, sums = loss(now, jax.random.key(2))
        (total, weight), (contrast, _) = sums["objective"], sums["contrast"]
        assert now[FROZEN]["contrast"] == on and contrast > 0
        np.testing.assert_allclose(found, (total + on * 0.3 * contrast) / weight, rtol=1e-6)
    last, steps = jax.device_get(steps_of("prl"))
    targets = np.asarray(batch().targets)[np.arange(len(last)), last]
    total = 0.0
    for number, states in enumerate(steps):
        scores = states @ np.asarray(params["items"])[1 : ITEMS + 1].T / 5.0 ** (2 - number)
        total -= log_softmax(scores, axis=1)[np.arange(len(last)), targets - 1].sum()
    np.testing.assert_allclose(sums["objective"][0], total, rtol=1e-5)


@pytest.mark.parametrize("way", ["erl", "prl"])
def test_users_event_by_event_are_those_of_whole_histories(way):
    model, params, _ = built(way)
    queries = VIEW.queries(histories(), LENGTH, ITEMS)
    whole = jax.jit(model.users)(params, queries)
    state, advance = model.init_state(USERS, LENGTH), jax.jit(model.advance)
    for event in range(LENGTH):
        found, state = advance(params, state, queries.items[:, event : event + 1])
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert model.streams


def test_a_sampled_loss_is_refused():
    with pytest.raises(InputError, match=r"model\.loss is BCE"):
        ReaRec(loss=BCE()).build(STATS)
