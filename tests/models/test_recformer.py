"""Recformer: a history is a text, newest item first; its table changes at refreshes alone, and then not at all."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.features.feature import Source
from recjax.data.features.sentences import Sentence
from recjax.data.items import bare_items
from recjax.models.model import ItemStats
from recjax.models.parts.sentence_encoder import drawn_words, windows
from recjax.models.recformer import TABLE, Recformer
from recjax.nn.groups import FROZEN
from recjax.typing import InputError
from tests.drawn import drawn_for

ITEMS, COUNT, LENGTH = 9, 4, 5
RANDOM = np.random.default_rng(0)
WORDS = np.pad(RANDOM.integers(2, 20, (ITEMS, COUNT)), [(1, 118), (0, 0)]).astype(np.int32)
WORDS[1 : ITEMS + 1, 0], WORDS[3, 3], WORDS[5, 2:] = -1, 0, 0  # keys, and sentences of different lengths
CATALOG = bare_items(ITEMS, {"sentence": jnp.asarray(WORDS)})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {"sentence": (COUNT,)}, sizes={"sentence": (20,) * COUNT})
CONFIG = Recformer(width=8, layers=1, inner=16, window=2, tokens=12, dropout=0.0)
ROWS = np.array([[1, 2, 3, 4, 5], [6, 5, 0, 0, 0]], np.int32)
LAST = np.arange(LENGTH) == (ROWS > 0).sum(1)[:, None] - 1
SEGMENTS = (ROWS > 0).astype(np.int32)
BATCH = Batch(ROWS, SEGMENTS, ROWS * 0, np.where(LAST, 7, 0), LAST.astype(np.float32))  # pyright: ignore[reportArgumentType]


@cache
def built(phase: Any = "table") -> tuple[Any, Any]:
    model = replace(CONFIG, phase=phase).build(STATS)
    return model, drawn_for(model.init, jax.random.key(0), BATCH, CATALOG)


@jax.jit
def users(params, rows, items=CATALOG):
    lengths = (rows > 0).sum(1)
    return built()[0].users(params, Queries(rows, rows * 0, lengths, rows[:, :0]), items)


def test_the_newest_items_are_read_and_the_oldest_are_cut_off():
    """Twelve tokens: the first one and, of the first history, items 5 (2 tokens), 4 (4), 3 (3) and a part of 2."""
    found = np.asarray(users(built()[1], ROWS))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)

    def change(place, item):
        rows = ROWS.copy()
        rows[0, place] = item
        return np.abs(np.asarray(users(built()[1], rows)) - found).max(axis=1)

    assert change(0, 8)[0] == 0 and change(4, 8)[0] > 1e-3 and change(2, 8)[1] == 0
    assert np.abs(np.asarray(users(built()[1], ROWS[:, [1, 0, 2, 3, 4]]))[1] - found[1]).max() > 1e-3  # order counts


def test_a_text_alone_makes_an_item():
    model, params = built("pretrain")
    read = jax.jit(model.read)
    table = np.asarray(read(params, CATALOG))
    swapped = CATALOG.adding({"sentence": CATALOG["sentence"][np.r_[:8, 9, 8, 10:128]]})
    np.testing.assert_allclose(read(params, swapped)[8:10], table[[9, 8]], atol=1e-5)
    assert not table[0].any() and np.abs(table[8] - table[9]).max() > 1e-2 and model.per_item == ()


def test_windows_are_local_but_for_the_first_token():
    seen = np.asarray(windows(jnp.array([[True] * 6 + [False]]), 2))[0]
    place = np.arange(7)
    near = np.abs(place[:, None] - place) <= 2
    expected = (near | (place == 0) | (place == 0)[:, None]) & (place < 6) & (place < 6)[:, None]
    np.testing.assert_array_equal(seen, expected | np.eye(7, dtype=bool))


def test_the_table_has_no_gradient_and_changes_at_refreshes_of_its_phase_alone():
    model, params = built()

    class Sweep:
        compiled = staticmethod(jax.jit)

    fresh = model.refresh(params, CATALOG, Sweep())
    np.testing.assert_array_equal(fresh[FROZEN][TABLE], jax.jit(model.read)(params, CATALOG))
    gradient = jax.jit(jax.grad(lambda p: model.loss(p, BATCH, CATALOG, None)[0]))(fresh)
    assert not np.any(gradient[FROZEN][TABLE]) and np.any(gradient["words"])
    fixed = built("fixed")[0]
    assert model.refresh_every == "epoch" and fixed.refresh_every is None and model.per_item == (FROZEN,)
    np.testing.assert_array_equal(fixed.prepare(fresh, CATALOG)[TABLE], fresh[FROZEN][TABLE])


def test_pretraining_masks_words_and_contrasts_followers():
    model, params = built("pretrain")
    gradient, sums = jax.jit(jax.grad(lambda p: model.loss(p, BATCH, CATALOG, None), has_aux=True))(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert float(sums["contrast"][0]) == 0  # both histories want item 7, which is no negative of itself
    assert 0 < float(sums["masked"][1]) < 20
    hidden = np.asarray(drawn_words(jnp.asarray(WORDS[None]), 1.0, jax.random.key(0)))[0]
    np.testing.assert_array_equal(hidden, WORDS > 1)


def test_sentences_have_keys_and_one_vocabulary():
    import polars as pl

    catalog = pl.DataFrame({"title": ["Red lamp", "lamp", None], "brand": ["Red", None, "Blue x"]})
    dataset: Any = type("D", (), {"catalog": catalog, "n_items": 3, "name": "d"})
    source = Source(dataset, None, bare_items(3))  # pyright: ignore[reportArgumentType]
    feature = Sentence(("title", "brand"), (2, 1), 4, 4)
    state = feature.fit([source], 0)
    made = feature.make(source, state)
    np.testing.assert_array_equal(made, [[0] * 4, [-1, 3, 2, -2], [-1, 2, 0, 0], [-2, 1, 0, 0]])
    with pytest.raises(InputError, match="colour"):
        Sentence(("colour",), (2,)).fit([source], 0)
    with pytest.raises(InputError, match="Sentence"):
        Recformer().build(replace(STATS, columns={}))
