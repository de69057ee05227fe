"""Tries and beams: items of the catalog only, exact when wide, and one compilation for all catalogs of a capacity."""

import jax
import numpy as np
import pytest

from recjax.decode.beam import agreement, beam_topk
from recjax.decode.exact import exact_topk
from recjax.decode.trie import build_trie
from recjax.parallel.mesh import MeshShape
from recjax.typing import InputError
from tests.decode.reference import best, catalog, competing, raw_scores, whole_logits

CAPACITY = 120
VOCABULARIES = [(300, 250, 200), (6, 5, 4), (20,)]
"""The first by a dense table of one level, the second of two; the last has one level only."""


def random_mask(rng: np.random.Generator, items: int) -> np.ndarray:
    return rng.random(items + 1) < rng.choice([0.03, 0.3, 0.9])


@pytest.mark.parametrize("sizes", VOCABULARIES)
def test_wide_beam_equals_brute_force_with_masks_ties_and_shared_tuples(sizes):
    rng = np.random.default_rng(0)
    for items in (100, 37, 1, 0):
        codes = catalog(rng, items, sizes)
        logits = whole_logits(rng, 6, sizes)
        seen = rng.integers(0, items + 1, (6, 8)).astype(np.int32)
        trie = build_trie(codes, sizes, capacity=CAPACITY)
        raw = raw_scores(logits, codes)
        for _ in range(2):
            mask = random_mask(rng, items)
            mask = np.pad(mask, (0, CAPACITY - items))
            found = beam_topk(logits, trie, 15, beam=CAPACITY, seen=seen, allowed=mask, strip=32)
            expected = best(competing(raw, seen, mask[: items + 1]), 15)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])


def test_a_narrow_beam_returns_allowed_unseen_items_of_the_catalog_with_their_scores():
    rng, sizes = np.random.default_rng(1), VOCABULARIES[0]
    for _ in range(20):
        items = int(rng.integers(1, CAPACITY + 1))
        codes = catalog(rng, items, sizes)
        logits = tuple(rng.normal(size=(5, size)).astype(np.float32) for size in sizes)
        seen = rng.integers(0, items + 1, (5, 6)).astype(np.int32)
        mask = random_mask(rng, items)
        trie = build_trie(codes, sizes, capacity=CAPACITY)
        padded = np.pad(mask, (0, CAPACITY - items))
        found, scores = map(np.asarray, beam_topk(logits, trie, 8, beam=4, seen=seen, allowed=padded, strip=32))
        raw = raw_scores(logits, codes)
        for query, (row, values) in enumerate(zip(found, scores, strict=True)):
            real = row[row > 0]
            assert len(set(real)) == len(real) and mask[real].all() and not np.isin(real, seen[query]).any()
            np.testing.assert_allclose(values[row > 0], raw[query, real], rtol=1e-5, atol=1e-6)
            assert (np.diff(values[row > 0]) <= 0).all() and not row[len(real) :].any()
            assert np.isneginf(values[len(real) :]).all()
            # Beams are spent on allowed items alone: four beams find four allowed items wherever there are so many.
            left = np.setdiff1d(np.flatnonzero(mask[1:]) + 1, seen[query])
            assert len(real) >= min(4 - np.isin(seen[query], np.flatnonzero(mask)).sum(), len(left), 8)


def test_a_beam_keeps_the_best_prefixes_of_each_level():
    # Item 1 is the best by far, but begins with the worst code; item 4 has the best first code.
    codes = np.array([[0, 0], [2, 1], [1, 0], [1, 2], [0, 0]], np.int32)
    logits = (np.array([[3.0, 2.0, 0.0]], np.float32), np.array([[0.0, 9.0, 2.0]], np.float32))
    trie = build_trie(codes, (3, 3), dense=1)

    def listed(beam: int, allowed: np.ndarray) -> list[int]:
        return np.asarray(beam_topk(logits, trie, 4, beam=beam, allowed=allowed)[0])[0].tolist()

    assert [listed(beam, np.ones(5, bool)) for beam in (1, 2)] == [[4, 0, 0, 0], [3, 4, 0, 0]]
    # The mask prunes inside the trie: one beam finds the one allowed item.
    assert listed(1, np.arange(5) == 1) == [1, 0, 0, 0]


def test_seen_items_are_made_up_for_by_spare_tuples():
    rng = np.random.default_rng(2)
    codes = np.stack([np.arange(51) % 3, np.arange(51)], axis=1).astype(np.int32)
    logits = (np.zeros((1, 3), np.float32), rng.normal(size=(1, 51)).astype(np.float32))
    trie = build_trie(codes, (3, 51), dense=1)
    order = np.asarray(beam_topk(logits, trie, 10, beam=10)[0])
    np.testing.assert_array_equal(beam_topk(logits, trie, 5, beam=5, seen=order[:, :5])[0], order[:, 5:])
    assert not np.asarray(beam_topk(logits, trie, 5, beam=5, seen=order[:, :5], spare=0)[0]).any()


def test_all_items_of_a_shared_tuple_are_found_in_order_of_their_ids():
    codes = np.tile(np.array([[1, 2, 3]], np.int32), (2_001, 1))
    codes[7] = [0, 0, 0]
    logits = tuple(np.zeros((1, 4), np.float32) for _ in range(3))
    trie = build_trie(codes, (4, 4, 4))
    seen, some = np.array([[3, 4, 4, 0]]), np.arange(2_001) >= 1_990
    items, _ = beam_topk(logits, trie, 12, beam=2, seen=seen, allowed=np.ones_like(some))
    assert np.asarray(items).tolist() == [[1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]
    items, _ = beam_topk(logits, trie, 12, beam=2, seen=seen * 0, allowed=some)
    assert np.asarray(items).tolist() == [[*range(1_990, 2_001), 0]]


def test_changed_catalogs_and_masks_compile_nothing():
    rng = np.random.default_rng(3)
    sizes = (5, 6, 4)
    before = beam_topk._cache_size()
    trie = build_trie(catalog(rng, 50, sizes), sizes, capacity=CAPACITY)
    for items in (50, CAPACITY, 3, 80):
        codes = catalog(rng, items, sizes)
        trie = trie.updated(codes)
        assert int(trie.count) == items and trie.capacity == CAPACITY
        logits = whole_logits(rng, 4, sizes)
        mask = rng.random(CAPACITY + 1) < 0.8
        found, _ = beam_topk(logits, trie, 10, beam=CAPACITY, allowed=mask)
        np.testing.assert_array_equal(
            found, best(competing(raw_scores(logits, codes), [[0]] * 4, mask[: items + 1]), 10)[0]
        )
    assert beam_topk._cache_size() <= before + 1


def test_a_mask_on_a_mask_leaves_what_both_allow():
    rng = np.random.default_rng(4)
    sizes, items = (5, 6, 4), 80
    codes, logits = catalog(rng, items, sizes), whole_logits(rng, 4, sizes)
    trie = build_trie(codes, sizes, capacity=CAPACITY)
    first, second = rng.random(items + 1) < 0.5, rng.random(items + 1) < 0.5
    narrowed = trie.only(first).only(second)
    whole = trie.only(first & second)
    jax.tree.map(np.testing.assert_array_equal, narrowed, whole)
    assert int(narrowed.count) == (first & second)[1:].sum()
    none, everything = trie.only(np.zeros(items + 1, bool)), np.ones(CAPACITY + 1, bool)
    found, scores = beam_topk(logits, none, 10, beam=CAPACITY, allowed=everything)
    assert not np.asarray(found).any() and np.isneginf(np.asarray(scores)).all()
    # A mask leaves the very arrays that the sub-catalog's own trie has.
    inside = np.flatnonzero(first[1:]) + 1
    rebuilt = build_trie(codes[np.r_[0, inside]], sizes, capacity=CAPACITY)
    kept = trie.only(first)
    for name in ("codes", "first", "table"):
        jax.tree.map(np.testing.assert_array_equal, getattr(kept, name), getattr(rebuilt, name))
    np.testing.assert_array_equal(kept.items, np.r_[0, inside, [0] * CAPACITY][np.asarray(rebuilt.items)])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_reported_for_their_query_only(bad):
    rng = np.random.default_rng(5)
    codes = catalog(rng, 60, (9, 5))
    codes[:, 0] = np.minimum(codes[:, 0], 7)
    codes[4, 0] = 7
    logits = tuple(rng.normal(size=(3, size)).astype(np.float32) for size in (9, 5))
    logits[0][1, 7] = bad
    logits[0][2, 8] = bad  # no item has it
    items, scores = beam_topk(logits, build_trie(codes, (9, 5)), 4, beam=8)
    assert np.isnan(np.asarray(scores)).all(1).tolist() == [False, True, False]
    assert np.isfinite(np.asarray(scores)).all(1).tolist() == [True, False, True]
    assert np.asarray(items).any(1).tolist() == [True, False, True]


def test_a_mesh_gives_the_same_lists():
    rng = np.random.default_rng(6)
    sizes = (30, 20, 10)
    codes, logits = (
        catalog(rng, 100, sizes),
        tuple(rng.normal(size=(11, 3, 30)).astype(np.float32)[:, s, :n] for s, n in enumerate(sizes)),
    )
    seen = rng.integers(0, 101, (11, 5)).astype(np.int32)
    trie = build_trie(codes, sizes, capacity=CAPACITY)
    expected = jax.tree.map(np.asarray, beam_topk(logits, trie, 10, beam=12, seen=seen))
    with jax.set_mesh(MeshShape(2, 4, 1).build()):
        found = jax.tree.map(np.asarray, beam_topk(logits, trie, 10, beam=12, seen=seen))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_vocabulary_too_large_for_64_bit_keys_is_sorted_too():
    rng = np.random.default_rng(7)
    sizes = (40_000,) * 5
    codes = catalog(rng, 40, sizes)
    logits = rng.normal(size=(2, 5, 40_000)).astype(np.float32)
    trie = build_trie(codes, sizes)
    found = beam_topk(logits, trie, 10, beam=40, strip=64)
    jax.tree.map(np.testing.assert_array_equal, found, exact_topk(logits, codes, np.zeros((2, 1), np.int32), 10))


def test_agreement_counts_shared_items_and_equal_firsts():
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 3, 0, 0], [0, 0, 0, 0]])
    found = np.array([[1, 4, 3, 2], [6, 5, 1, 2], [3, 0, 0, 0], [0, 0, 0, 0]])
    result = agreement(found, exact, 4)
    assert result.overlap == pytest.approx((1 + 2 / 4 + 1 / 2) / 3) and result.top1 == pytest.approx(1 / 3)
    assert result.queries == 3
    assert agreement(found, exact, 2).overlap == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert np.isnan(agreement(found[3:], exact[3:], 4).overlap)
    with pytest.raises(InputError, match="over 5 places"):
        agreement(found, exact, 5)


def test_bad_catalogs_and_searches_are_refused_in_the_users_words():
    codes = np.array([[0, 0], [1, 2], [3, 1]], np.int32)
    with pytest.raises(InputError, match="item 2 has code 3 in slot 0; expected 0 to 2"):
        build_trie(codes, (3, 4))
    with pytest.raises(InputError, match=r"shape \(3, 2\); expected \[items \+ 1, 3\]"):
        build_trie(codes, (4, 4, 4))
    trie = build_trie(codes, (4, 4), capacity=3)
    with pytest.raises(InputError, match="4 items do not fit into a trie with a capacity of 3"):
        trie.updated(np.zeros((5, 2), np.int32))
    with pytest.raises(InputError, match="the trie's are"):
        beam_topk(np.zeros((1, 2, 5), np.float32), trie, 3, beam=2)
    with pytest.raises(InputError, match="beam 0"):
        beam_topk(np.zeros((1, 2, 4), np.float32), trie, 3, beam=0)
