"""Lite-LLM4Rec: items are known by their texts, one pass scores all, and a batch trains the reader by its own items."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import bare_items
from recjax.models.lite_llm4rec import TABLE, LiteLLM4Rec
from recjax.models.model import ItemStats
from recjax.nn.groups import FROZEN
from recjax.text.lm.decoder import Decoder
from recjax.typing import InputError
from tests.drawn import drawn_for

ITEMS, WIDTH, LENGTH = 9, 8, 4
RANDOM = np.random.default_rng(0)
WORDS = np.pad(RANDOM.integers(1, 20, (ITEMS, 3)), [(1, 118), (0, 0)]).astype(np.int32)
VECTORS = np.pad(RANDOM.normal(size=(ITEMS, 6)), [(1, 118), (0, 0)]).astype(np.float32)
CATALOG = bare_items(ITEMS, {"words": jnp.asarray(WORDS), "vectors": jnp.asarray(VECTORS)})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {"words": (3,), "vectors": (6,)}, sizes={"words": (20,) * 3})
SIZES = dict(width=WIDTH, layers=1, item_layers=1, heads=2, inner=16, dropout=0.0)
ROWS = np.array([[1, 2, 3, 0], [4, 5, 0, 0]], np.int32)
SEGMENTS = (ROWS > 0).astype(np.int32)
PLACES = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), ROWS.shape)
BATCH = Batch(ROWS, SEGMENTS, PLACES, np.roll(ROWS, -1, 1), SEGMENTS.astype(np.float32))  # pyright: ignore[reportArgumentType]
QUERIES = Queries(ROWS, PLACES, SEGMENTS.sum(1), ROWS[:, :0])  # pyright: ignore[reportArgumentType]
EVERY = jnp.tile(jnp.arange(1, ITEMS + 1), (2, 1))


def built(**settings):
    model = LiteLLM4Rec(**SIZES, **settings).build(STATS)  # pyright: ignore[reportArgumentType]
    return model, drawn_for(model.init, jax.random.key(0), BATCH, CATALOG)


def test_an_item_is_its_text_and_one_pass_scores_all(monkeypatch):
    model, params = built()
    calls, states = [], Decoder.states
    monkeypatch.setattr(Decoder, "states", lambda *given: calls.append(1) or states(*given))
    scores = jax.jit(lambda params, items: model.scoring(params, QUERIES, items).scores(EVERY))
    found = np.asarray(scores(params, CATALOG))
    assert len(calls) == 1 and np.ptp(found) > 0.1
    swapped = CATALOG.adding({"vectors": CATALOG["vectors"][np.r_[:8, 9, 8, 10:128]]})  # of two that no history has
    np.testing.assert_allclose(scores(params, swapped), found[:, [*range(7), 8, 7]], rtol=1e-5, atol=1e-5)


def test_a_batch_trains_the_reader_by_its_own_items_and_a_refresh_reads_all():
    model, params = built(text="words", column="words")

    class Sweep:
        compiled = staticmethod(jax.jit)

    params = model.refresh(params, CATALOG, Sweep())  # pyright: ignore[reportArgumentType]
    table = np.asarray(params[FROZEN][TABLE])
    np.testing.assert_array_equal(table, jax.jit(model.read)(params, CATALOG))
    assert not table[0].any() and not table[ITEMS + 1 :].any()
    gradient = jax.jit(
        lambda params, items: jax.grad(lambda p: model.loss(p, BATCH, items, jax.random.key(1))[0])(params)
    )
    found = gradient(params, CATALOG)
    assert not np.any(found[FROZEN][TABLE]) and all(np.any(leaf) for leaf in jax.tree.leaves(found["item"]["layer_0"]))
    other = gradient(params, CATALOG.adding({"words": CATALOG["words"].at[6:].set(7)}))  # no item of the batch
    jax.tree.map(np.testing.assert_array_equal, found, other)
    changed = gradient(params, CATALOG.adding({"words": CATALOG["words"].at[5].set(7)}))
    assert np.abs(changed["item"]["tokens"] - found["item"]["tokens"]).max() > 1e-6


def test_heads_and_sources():
    free, params = built(head="free", ids=True)
    assert free.per_item == ("items", "head") and not free.config.ranks_unseen
    without = {**params, "head": jnp.zeros_like(params["head"])}
    assert not np.any(jax.jit(lambda p: free.scoring(p, QUERIES, CATALOG).scores(EVERY))(without))
    assert LiteLLM4Rec().ranks_unseen
    alone = LiteLLM4Rec(**SIZES, text="none", ids=True).build(STATS)  # pyright: ignore[reportArgumentType]
    assert set(jax.eval_shape(alone.init, jax.random.key(0), BATCH, CATALOG)) == {"sequence", "items"}
    with pytest.raises(InputError, match="ids"):
        LiteLLM4Rec(text="none")
    with pytest.raises(InputError, match="items=Words"):
        LiteLLM4Rec(text="words").build(replace(STATS, sizes={}))
    with pytest.raises(InputError, match="`text`"):
        LiteLLM4Rec().build(replace(STATS, columns={}))
