"""LoRec: an attacker's users in the training data, and the credit that they lose."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from recjax.data.attacks import Attacked
from recjax.data.batches.derived import Users
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.dataset import Dataset
from recjax.data.features.relations import strongest
from recjax.data.items import bare_items
from recjax.data.splits import LeaveOneOut
from recjax.data.transitions import transition_counts
from recjax.evaluate.exposure import Exposure
from recjax.models.lorec import WHOLE, LoRec
from recjax.models.model import ItemStats
from recjax.models.parts.calibrator import updated
from recjax.models.sasrec import SASRec
from recjax.nn.groups import FROZEN
from recjax.typing import InputError
from tests.evaluate import toy

ITEMS, REAL, MADE, LENGTH = 20, 56, 8, 8
SIZE: dict[str, Any] = dict(width=8, layers=1, heads=2, max_length=LENGTH, dropout=0.0)


def histories() -> Histories:
    """Users who go from item to item in a circle, then users of random items."""
    random = np.random.default_rng(0)
    steps = (np.arange(LENGTH + 1) + random.integers(0, ITEMS, (REAL, 1))) % ITEMS + 1
    items = np.concatenate([steps, random.integers(1, ITEMS + 1, (MADE, LENGTH + 1))]).astype(np.int32)
    lengths, users = np.full(REAL + MADE, LENGTH + 1), np.arange(REAL + MADE)
    return Histories.concatenated(lengths, items.ravel(), np.arange(items.size), users)


COUNTS = transition_counts(histories(), ITEMS, 0.0, (1.0,)).toarray()  # of all, so what the made ones do is in it too
LINKS = strongest(sparse.csr_array(COUNTS / np.maximum(COUNTS.sum(axis=1, keepdims=True), 1)), ITEMS)
KNOWN = bare_items(ITEMS).adding({"next": jax.tree.map(jnp.asarray, LINKS)})
STATS = ItemStats(ITEMS, np.bincount(histories().items, minlength=ITEMS + 1))


def loader() -> Loader:
    return Loader(histories(), Users(Shifted(LENGTH)), REAL + MADE, None, 0, ITEMS)


class Sweep:
    """The last tokens of the one batch that there is."""

    epoch = step = 3

    def __init__(self, params: Any, batch: Any):
        self.params, self.batch = params, batch

    def __call__(self, fn: Any) -> Any:
        values = jax.jit(fn)(self.params, self.batch, KNOWN)
        return jax.tree.map(lambda x: np.asarray(x)[:, -1], values)


def test_users_who_look_injected_lose_credit_and_weigh_less():
    batch = loader().host_batch(0)
    model = LoRec(**SIZE, room=REAL + MADE).build(STATS)
    start = params = jax.jit(model.init)(jax.random.key(0), batch, KNOWN)
    loss = jax.jit(lambda params: model.loss(params, batch, KNOWN, None))
    plain = jax.jit(lambda params: SASRec(**SIZE).build(STATS).loss(params, batch, KNOWN, None)[0])(params)
    np.testing.assert_allclose(loss(params)[0], plain, rtol=1e-6)  # nothing has happened yet
    for _ in range(4):
        params = model.refresh(params, KNOWN, Sweep(params, batch))
    credit = params[FROZEN]["credit"]
    assert (credit[REAL:, None] < credit[:REAL]).mean() > 0.9  # the AUC
    assert credit[REAL:].mean() < WHOLE - 2 and credit.sum() == pytest.approx(WHOLE * (REAL + MADE), rel=1e-5)
    assert loss(params)[1]["loss"][1] < loss(start)[1]["loss"][1] - LENGTH
    with pytest.raises(InputError, match=r"model.room is 8, but user number 63"):
        small = LoRec(**SIZE, room=8).build(STATS)
        small.refresh(params, KNOWN, Sweep(params, batch))


def test_nobody_loses_credit_where_a_third_look_bad():
    credit = np.full(3, WHOLE)
    assert updated(credit, np.array([0.9, 0.1, 0.1]), 1.0) is credit
    assert updated(credit, np.full(3, 0.5), 1.0) is credit


@pytest.mark.parametrize("attack", ["random", "popular", "bandwagon"])
def test_injected_users_push_the_same_few_items_and_are_asked_nothing(attack):
    data: Dataset = toy.dataset()
    plain = LeaveOneOut().split(data)
    found = Attacked(attack=attack, share=0.1, pushed=2).split(data)
    again = Attacked(attack=attack, share=0.1, pushed=2).split(data)
    np.testing.assert_array_equal(found.train.items, again.train.items)
    count, pushed = found.notes["injected_users"], data.item_index(found.notes["pushed_items"])
    assert count == round(0.1 * len(plain.train)) and str(count) in found.name
    made = found.train.users >= data.n_users
    assert made.sum() == count and not np.isin(found.test.histories.users, found.train.users[made]).any()
    for row in np.flatnonzero(made):
        assert np.isin(pushed, found.train.history(row)).all()
    for row in np.flatnonzero(~made):
        np.testing.assert_array_equal(found.train.history(row), plain.train.history(row))


def test_an_attack_that_cannot_be_says_why():
    with pytest.raises(InputError, match="an attack on 30 items"):
        Attacked(pushed=30).split(toy.dataset())
    assert Exposure().items == ()
