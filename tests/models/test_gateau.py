"""GATEAU: samples whose targets need what is far back weigh more."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.derived import Numbered
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.items import bare_items
from recjax.models.gateau import GATEAU, GATEAUModel
from recjax.models.model import ItemStats
from recjax.models.sasrec import SASRec
from recjax.nn.groups import FROZEN
from recjax.typing import InputError

ITEMS, USERS, LENGTH, BACK = 20, 40, 24, 8
"""Users with even numbers have again what they had `BACK` events ago, the others anything."""
SIZE: dict[str, Any] = dict(width=ITEMS + 1, layers=1, heads=1, max_length=LENGTH, dropout=0.0, short=3, room=USERS)
KNOWN, STATS = bare_items(ITEMS), ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64))


class Oracle(GATEAUModel):
    """Predicts what stands `BACK` events ago, where its context reaches that far."""

    def states(self, params, batch, items):
        back = jnp.pad(batch.items, [(0, 0), (BACK - 1, 0)])[:, : batch.items.shape[1]]
        same = jnp.pad(batch.segments, [(0, 0), (BACK - 1, 0)])[:, : batch.items.shape[1]] == batch.segments
        return jnp.where(same[..., None], 4.0 * jax.nn.one_hot(back, ITEMS + 1), 0.0)


class Constant(GATEAUModel):
    def states(self, params, batch, items):
        return jnp.zeros((*batch.items.shape, ITEMS + 1))


class Sweep:
    """The last tokens of the one batch that there is, in the order of the samples."""

    step = epoch = 2

    def __init__(self, params: Any, batch: Any):
        self.params, self.batch = params, batch

    def __call__(self, fn: Any) -> Any:
        values = jax.jit(fn)(self.params, self.batch, KNOWN)
        order = np.argsort(self.batch.more["samples"])
        return jax.tree.map(lambda x: np.asarray(x)[order, -1], values)


def batch() -> Any:
    random = np.random.default_rng(0)
    items = random.integers(1, ITEMS + 1, (USERS, LENGTH + 1)).astype(np.int32)
    items[::2] = np.tile(items[::2, :BACK], (1, 4))[:, : LENGTH + 1]
    lengths = np.full(USERS, LENGTH + 1)
    histories = Histories.concatenated(lengths, items.ravel(), np.arange(items.size), np.arange(USERS))
    return Loader(histories, Numbered(Shifted(LENGTH)), USERS, None, 0, ITEMS, packed=False).host_batch(0)


def model(kind: type[GATEAUModel] = GATEAUModel, **changes: Any) -> GATEAUModel:
    built = GATEAU(**{**SIZE, **changes}).build(STATS)
    return kind(built.module, built.objective, built.stats, built.config)


def weights(kind: type[GATEAUModel], **changes: Any) -> np.ndarray:
    built, here = model(kind, **changes), batch()
    params = {"items": np.eye(ITEMS + 1, dtype=np.float32), FROZEN: {"weights": np.ones(USERS, np.float32)}}
    return np.asarray(built.refresh(params, KNOWN, Sweep(params, here))[FROZEN]["weights"])


def test_samples_that_depend_on_what_is_far_back_weigh_more():
    found = weights(Oracle)
    assert (found[::2, None] > found[1::2]).mean() > 0.9  # the AUC
    assert found.mean() == pytest.approx(1.0, rel=1e-5)
    assert weights(Oracle, select="top").tolist() == [2.0, 0.0] * (USERS // 2)
    assert sorted(weights(Oracle, select="random", share=0.25))[-11:] == [0.0] + [4.0] * 10


def test_a_model_that_knows_nothing_weighs_all_alike():
    np.testing.assert_allclose(weights(Constant), 1.0, rtol=1e-6)


def test_the_loss_is_that_of_sasrec_until_a_weight_changes():
    built, here = model(), batch()
    params = jax.jit(built.init)(jax.random.key(0), here, KNOWN)
    plain = SASRec(**{k: v for k, v in SIZE.items() if k not in ("short", "room")}).build(STATS)
    losses = jax.jit(lambda params, batch: [each.loss(params, batch, KNOWN, None)[0] for each in (built, plain)])
    np.testing.assert_allclose(*losses(params, here), rtol=1e-6)
    one = {**params, FROZEN: {"weights": np.where(np.arange(USERS) == 3, np.float32(2), np.float32(0))}}
    alone = replace(here, weights=here.weights * (here.more["samples"] == 3)[:, None])
    np.testing.assert_allclose(losses(one, here)[0], losses(params, alone)[1], rtol=1e-5)
    assert built.refresh(params, KNOWN, type("Early", (Sweep,), {"epoch": 1})(params, here)) is params


def test_room_for_too_few_samples_is_said():
    with pytest.raises(InputError, match=r"model.room is 8, but there are 40 samples"):
        weights(Constant, room=8)
