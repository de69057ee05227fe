"""SASRec, gSASRec and BERT4Rec: packing isolation, states of the last position, norms, losses."""

import dataclasses
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import bare_items
from recjax.models.bert4rec import BERT4Rec
from recjax.models.gsasrec import GSASRec
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BCE, BPR, GBCE, SampledSoftmax
from recjax.models.sasrec import SASRec
from recjax.typing import InputError
from tests.drawn import drawn

ITEMS, LENGTH = 50, 16
BARE = bare_items(ITEMS)
STATS = ItemStats(ITEMS, np.arange(ITEMS + 1))
SMALL = dict(width=16, layers=1, heads=2, max_length=LENGTH)
DEEP = SASRec(width=16, layers=2, heads=2, max_length=LENGTH)
CONFIGS = {
    "sasrec-pre": DEEP,
    "sasrec-post": SASRec(**SMALL, norm="post", loss=BPR()),
    "sasrec-paper": SASRec(**SMALL, norm="sasrec", loss=BCE()),
    "sasrec-bf16": SASRec(**SMALL, loss=SampledSoftmax(8), dtype="bfloat16"),
    "gsasrec": GSASRec(**SMALL, loss=GBCE(8)),
    "bert4rec": BERT4Rec(**SMALL, inner=32),
}


def _batch() -> Batch:
    rng = np.random.default_rng(0)
    items = rng.integers(1, ITEMS + 1, (3, LENGTH)).astype(np.int32)
    segments = np.ones((3, LENGTH), np.int32)
    segments[0, 9:], segments[1, 5:12], segments[1, 12:] = 2, 2, 0
    weights = (segments > 0).astype(np.float32)
    targets = np.where(weights > 0, rng.integers(1, ITEMS + 1, items.shape), 0).astype(np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (3, 1))
    return Batch(np.where(segments > 0, items, 0), segments, positions, targets, weights)  # pyright: ignore


@cache
def _built(config):
    model = config.build(STATS)
    return model, drawn(jax.eval_shape(model.init, jax.random.key(0), _batch(), BARE))


@cache
def _hidden(config):
    """Compiled: parameters, batch -> states of all positions."""
    module = _built(config)[0].module
    return jax.jit(lambda params, batch: module.apply({"params": params}, batch.items, batch.positions, batch.segments))


@pytest.mark.parametrize("name", ["sasrec-bf16", "gsasrec"])  # tests/models/test_laws.py trains the others' parts
def test_loss_falls_when_trained(name):
    model, params = _built(CONFIGS[name])
    batch = _batch()

    @jax.jit
    def step(params, key):
        (loss, sums), grads = jax.value_and_grad(model.loss, has_aux=True)(params, batch, BARE, key)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), loss, sums

    losses = []
    for i in range(30):
        params, loss, sums = step(params, jax.random.key(i))
        losses.append(float(loss))
    assert sums["loss"][1] == batch.weights.sum()
    np.testing.assert_allclose(sums["loss"][0] / sums["loss"][1], loss, rtol=1e-6)
    assert np.mean(losses[-5:]) < losses[0] - 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_packing_isolation_is_bit_exact(name):
    batch, hidden, params = _batch(), _hidden(CONFIGS[name]), _built(CONFIGS[name])[1]
    before = np.asarray(hidden(params, batch), np.float32)
    changed_item = np.array(batch.items)
    changed_item[0, 10] = changed_item[0, 10] % ITEMS + 1
    after = np.asarray(hidden(params, dataclasses.replace(batch, items=changed_item)), np.float32)
    differs = np.any(before != after, axis=-1)
    assert not differs[0, :9].any() and not differs[1:].any()
    assert differs[0, 10:].all()
    assert differs[0, 9] == isinstance(CONFIGS[name], BERT4Rec)


@pytest.mark.parametrize("name", [n for n in CONFIGS if n != "sasrec-bf16"])
def test_user_state_is_the_last_position(name):
    model, params = _built(CONFIGS[name])
    batch = _batch()
    lengths = np.array([LENGTH, 5, 0], np.int32)
    valid = np.arange(LENGTH)[None] < lengths[:, None]
    seen: Any = np.zeros((3, 1), np.int32)
    queries = Queries(np.where(valid, batch.items, 0), batch.positions, lengths, seen)  # pyright: ignore
    users = np.asarray(jax.jit(model.users)(params, queries))
    whole = dataclasses.replace(batch, items=queries.items, segments=valid.astype(np.int32))  # pyright: ignore
    full = _hidden(CONFIGS[name])(params, whole)
    np.testing.assert_allclose(users[:2], np.asarray(full)[[0, 1], [LENGTH - 1, 4]], rtol=1e-4, atol=1e-5)


def test_remat_changes_memory_not_results():
    batch = _batch()
    (model, params), other = _built(DEEP), dataclasses.replace(DEEP, remat=True).build(STATS)
    plain, again = (jax.jit(jax.grad(lambda p, m=m: m.loss(p, batch, BARE, None)[0]))(params) for m in (model, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), plain, again)


def test_wrong_compositions_are_named():
    with pytest.raises(InputError, match="heads is 3, expected a number that divides the width, 16"):
        _built(SASRec(width=16, heads=3, max_length=LENGTH))
    with pytest.raises(InputError, match="no mixer is called 'mamba'; there are: attention"):
        SASRec(mixer="mamba").build(STATS)
    with pytest.raises(InputError, match="layers is 0, expected 1 or more"):
        SASRec(layers=0).build(STATS)
