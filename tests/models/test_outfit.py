"""Sets: what items say together, in whatever order, and baskets with one item missing."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Cloze
from recjax.data.items import bare_items
from recjax.models.model import ItemStats
from recjax.models.outfit import OutfitTransformer
from recjax.nn.read_process import ReadProcess
from tests.drawn import drawn_for

KINDS = 3
ITEMS = 3 * KINDS
STATS, KNOWN = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)), bare_items(ITEMS)
SIZE: dict[str, Any] = dict(width=16, layers=1, heads=2, dropout=0.0, compatibility=0.2)


def batch() -> Any:
    """Sets of three, of which any two say what the third is, and one alone says nothing; each misses its third."""
    one, two = np.divmod(np.arange(KINDS**2), KINDS)
    items = 1 + np.stack([one, KINDS + two, 2 * KINDS + (one + two) % KINDS], axis=1).astype(np.int32)
    histories = Histories.concatenated(np.full(len(items), 3), items.ravel(), np.arange(items.size), np.arange(9))
    rows = Loader(histories, Cloze(4, last_copy=True, random_copies=1, align="left"), 9, None, 0, ITEMS, packed=False)
    made = rows.host_batch(0)
    made.items[:], made.targets[:], made.weights[:] = 0, 0, 0.0
    made.items[:, :3], made.targets[:, 2], made.weights[:, 2] = items, items[:, 2], 1.0
    made.items[:, 2] = ITEMS + 1
    return made


@pytest.mark.parametrize(("pool", "solved"), [("attention", True), ("process", True), ("mean", False)])
def test_only_what_reads_items_together_finds_what_two_of_them_say(pool, solved):
    model, rows = OutfitTransformer(**SIZE, pool=pool, steps=2).build(STATS), batch()
    optimiser = optax.adam(0.005)

    @jax.jit
    def trained(params):
        def step(carried, key):
            params, state = carried
            grads, sums = jax.grad(lambda p: model.loss(p, rows, KNOWN, key), has_aux=True)(params)
            updates, state = optimiser.update(grads, state)
            return (optax.apply_updates(params, updates), state), sums["objective"]

        keys = jax.random.split(jax.random.key(1), 200)
        (params, _), objectives = jax.lax.scan(step, (params, optimiser.init(params)), keys)
        return params, objectives

    params, objectives = trained(drawn_for(model.init, jax.random.key(0), rows, KNOWN))
    total, weight = (np.asarray(each)[-1] for each in objectives)
    assert (np.exp(-total / weight) > 0.8) == solved
    if pool != "mean":
        sets = np.array([[1, 4, 7, 0], [7, 0, 1, 4], [1, 2, 3, 0]])
        same, also, other = np.asarray(jax.jit(model.compatible)(params, sets))
        assert same == pytest.approx(also, abs=1e-4)  # neither order nor padding counts
        assert same > other or pool == "process"  # the first set occurs; no set has two items of a kind


def test_what_reads_nothing_sees_nothing_and_what_reads_sees_a_set():
    random = np.random.default_rng(0)
    start, members = (random.normal(size=shape).astype(np.float32) for shape in ((2, 4), (2, 5, 4)))
    there = np.array([[True] * 5, [True, True, False, False, False]])
    for steps in (0, 3):
        module = ReadProcess(steps)
        params = drawn_for(module.init, jax.random.key(2), start, members, there)
        run = jax.jit(lambda x, there, module=module, params=params: module.apply(params, start, x, there))
        found, others = run(members, there), run(members + 1.0, there)
        assert np.array_equal(found, others) == (steps == 0)
        order = np.array([3, 0, 4, 2, 1])
        np.testing.assert_allclose(run(members[:, order], there[:, order]), found, atol=1e-5)
        unseen = np.where(there[..., None], members, np.float32(7))
        np.testing.assert_allclose(run(unseen, there), found, atol=1e-6)
