"""All tokenizers behind their one interface, on clustered vectors and on real texts."""

from dataclasses import replace
from functools import lru_cache

import jax
import numpy as np
import pytest

from recjax.tokenizers.fsq import FSQ
from recjax.tokenizers.item_codes import load_codes, load_state
from recjax.tokenizers.permuted import Permuted
from recjax.tokenizers.pq import PQ
from recjax.tokenizers.preparation import fit_preparation, prepared
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.tokenizers.rq_vae import RQVAE
from recjax.tokenizers.tokenizer import tokenize
from recjax.typing import InputError

ITEMS, WIDTH = 300, 16
SMALL = FSQ(slots=2, levels=(5, 4, 3), layers=1, heads=2, steps=0, batch=32)
RESIDUAL = RQKMeans(slots=2, clusters=16, iterations=5)
AUTOENCODED = RQVAE(
    slots=3, clusters=16, hidden=(12,), width=8, sinkhorn=True, steps=10, batch=64, collisions="nearest-free"
)
SHUFFLED = Permuted(replace(RESIDUAL, slots=3))
PRODUCT = PQ(slots=4, clusters=8, iterations=5, rotations=2)
TOKENIZERS = [SMALL, RESIDUAL, AUTOENCODED, SHUFFLED, PRODUCT]


@lru_cache
def vectors():
    """Unit vectors near a few directions; items 2 and 3 are equal, 5 and 6 have none."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(8, WIDTH))[rng.integers(0, 8, ITEMS + 1)] + 0.3 * rng.normal(size=(ITEMS + 1, WIDTH))
    found = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    found[3] = found[2]
    known = np.ones(ITEMS + 1, bool)
    known[[0, 5, 6]] = False
    found[~known] = 0
    return found, known


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: type(tokenizer).__name__)
def test_no_two_items_share_a_tuple_and_the_folder_holds_all(tokenizer, tmp_path):
    found = tokenize(tokenizer, *vectors(), jax.random.key(0))
    assert found.before.identical_texts == 4 and found.before.without_text == 2
    assert found.before.colliding >= 4 and found.after.colliding == 0 and found.after.distinct == ITEMS
    again = tokenize(tokenizer, *vectors(), jax.random.key(0))
    np.testing.assert_array_equal(found.codes.codes, again.codes.codes)

    found.save(tmp_path)
    np.testing.assert_array_equal(load_codes(tmp_path).codes, found.codes.codes)
    other = tokenize(tokenizer, *vectors(), state=load_state(tmp_path))
    np.testing.assert_array_equal(other.codes.codes, found.codes.codes)
    assert found.table().row_count == 7 + found.codes.slots


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: type(tokenizer).__name__)
def test_a_state_encodes_a_part_of_the_catalog_as_it_encoded_all(tokenizer):
    table, known = vectors()
    state = tokenizer.fit(table, known, jax.random.key(1))
    codes = tokenizer.encode(state, table, known)
    np.testing.assert_array_equal(tokenizer.encode(state, table[:100], known[:100]), codes[:100])
    first = [next(options) for options in tokenizer.candidates(state, table[1:5])]
    np.testing.assert_array_equal(first, codes[1:5])  # an item's cheapest tuple is its own


def test_residual_kmeans_is_greedy_and_its_candidates_change_the_last_level_first():
    table, known = vectors()
    state = RESIDUAL.fit(table, known, jax.random.key(0))
    codes, residual = RESIDUAL.encode(state, table, known), table.astype(np.float64)
    for level in range(2):
        distances = ((residual[:, None] - state["centroids"][level]) ** 2).sum(-1)
        np.testing.assert_array_equal(codes[known, level], distances[known].argmin(1))
        residual = residual - state["centroids"][level][codes[:, level]]
    tuples = list(RESIDUAL.candidates(state, table[1:2])[0])
    assert len(set(tuples)) == 256 and {row[0] for row in tuples[:16]} == {codes[1, 0]}


def test_preparation():
    table, known = vectors()
    table = np.concatenate([table, np.full((len(table), 1), 0.5, np.float32)], axis=1)  # a coordinate that is constant
    for kind, deviation in (("standardise", 1e-3), ("whiten", 0.2)):
        state = fit_preparation(table[known], kind)
        found = prepared(state, table, known)
        assert np.isfinite(found).all() and not found[~known].any()
        np.testing.assert_allclose(found[known].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(found[known].std(0)[: WIDTH if kind == "whiten" else None], 1, atol=deviation)
    same = prepared(fit_preparation(table[known], "none"), table, known)
    np.testing.assert_array_equal(same[known], table[known])


def test_bad_input():
    table, known = vectors()
    with pytest.raises(InputError, match=r"16 coordinates.*tokenizer.slots = 3 equal parts; 2 or 4 can"):
        tokenize(FSQ(slots=3), table, known, jax.random.key(0))
    with pytest.raises(InputError, match="heads = 8 does not divide sub-vectors of 4"):
        tokenize(FSQ(), table, known, jax.random.key(0))
    with pytest.raises(InputError, match=r"298 items have a vector, fewer than tokenizer.clusters = 512"):
        tokenize(RQKMeans(clusters=512), table, known, jax.random.key(0))
    with pytest.raises(InputError, match=r"298 items have a vector, fewer than tokenizer.clusters = 512"):
        tokenize(replace(AUTOENCODED, clusters=512), table, known, jax.random.key(0))
    with pytest.raises(
        InputError, match=r"tokenizer.collaborative is 0.1, but `fit` was given no vectors of behaviour"
    ):
        tokenize(replace(AUTOENCODED, collaborative=0.1), table, known, jax.random.key(0))
    with pytest.raises(InputError, match=r"RQVAE\.start is 'warm', expected one of 'kmeans', 'random'"):
        replace(AUTOENCODED, start="warm")
    with pytest.raises(InputError, match="needs a key"):
        tokenize(SMALL, table, known)
    with pytest.raises(InputError, match="3 texts, but vectors of 300 items"):
        tokenize(SMALL, table, known, jax.random.key(0), texts=["a", "b", "c"])
    with pytest.raises(InputError, match="no item has a vector"):
        tokenize(SMALL, table * 0, known & False, jax.random.key(0))
    broken = table.copy()
    broken[7, 3] = np.nan
    with pytest.raises(InputError, match="vector of item 7"):
        tokenize(SMALL, broken, known, jax.random.key(0))


def test_without_preparation_text_like_vectors_collapse():
    """The reason to prepare the input: short vectors of many coordinates all fall on the middle levels."""
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(401, 64)) + 2).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    known = np.arange(401) > 0
    config = {"slots": 4, "levels": (8, 8, 8, 6, 5), "heads": 4, "layers": 1, "steps": 0}
    distinct = {}
    for kind in ("none", "standardise", "whiten"):
        tokenizer = FSQ(prepare=kind, collisions="none", **config)
        distinct[kind] = tokenize(tokenizer, table, known, jax.random.key(0)).before.distinct
    assert distinct["none"] < 200 and distinct["standardise"] == distinct["whiten"] == 400


def test_permuted_codes_have_the_counts_of_the_tokenizer_and_no_meaning():
    table, known = vectors()
    key = jax.random.key(0)
    plain, shuffled = tokenize(SHUFFLED.inner, table, known, key), tokenize(SHUFFLED, table, known, key)
    assert plain.before.colliding == shuffled.before.colliding

    def likeness(codes: np.ndarray) -> float:
        """Mean cosine of items that share their first code, over that of all pairs."""
        rows, cosine = codes.codes[known, 0], table[known] @ table[known].T
        return cosine[rows[:, None] == rows].mean() / cosine.mean()

    assert likeness(plain.codes) > 3 * likeness(shuffled.codes)
