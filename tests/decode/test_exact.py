"""Exact decoding against a float64 brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.decode.exact import exact_rank, exact_topk
from recjax.parallel.mesh import MeshShape
from recjax.typing import InputError
from tests.decode.reference import best, catalog, competing, rank, raw_scores, whole_logits

SIZES = (7, 5, 6)
ITEMS = 90


def problem(queries: int = 9, seed: int = 0):
    """Logits, codes, users, vectors, seen, candidates, targets; whole numbers, so sums are exact and ties many."""
    rng = np.random.default_rng(seed)
    codes = catalog(rng, ITEMS, SIZES)
    users, vectors = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (queries, ITEMS + 1))
    seen = rng.integers(0, ITEMS + 1, (queries, 12)).astype(np.int32)
    candidates = rng.random(ITEMS + 1) < 0.6
    targets = rng.integers(1, ITEMS + 1, queries).astype(np.int32)
    return whole_logits(rng, queries, SIZES), codes, users, vectors, seen, candidates, targets


@pytest.mark.parametrize(("chunk", "with_vectors", "masked"), [(1_000, True, True), (7, True, False), (7, False, True)])
def test_equals_brute_force_with_ties_seen_and_candidates(chunk, with_vectors, masked):
    logits, codes, users, vectors, seen, candidates, targets = problem()
    added = {"users": users, "vectors": vectors} if with_vectors else {}
    raw, mask = raw_scores(logits, codes, **added), candidates if masked else None
    scores = competing(raw, seen, mask)
    items, values = exact_topk(logits, codes, seen, 12, candidates=mask, chunk=chunk, **added)
    np.testing.assert_array_equal(items, best(scores, 12)[0])
    np.testing.assert_array_equal(values, best(scores, 12)[1])
    ranks, own = exact_rank(logits, codes, targets, seen, candidates=mask, chunk=chunk, **added)
    np.testing.assert_array_equal(ranks, rank(scores, raw, targets))
    np.testing.assert_array_equal(own, raw[np.arange(9), targets])


def test_equals_brute_force_on_real_numbers():
    rng = np.random.default_rng(1)
    codes = catalog(rng, 700, (64, 64, 64, 64))
    logits = rng.normal(size=(5, 4, 64)).astype(np.float32)
    seen = rng.integers(0, 701, (5, 30)).astype(np.int32)
    raw = raw_scores(logits.swapaxes(0, 1), codes)
    items, values = exact_topk(logits, codes, seen, 20, chunk=100)
    expected, sums = best(competing(raw, seen), 20)
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_allclose(values, sums, rtol=1e-5)


def test_a_catalog_inside_a_longer_table_is_ranked_alone_and_another_compiles_nothing():
    logits, codes, users, vectors, seen, candidates, targets = problem()
    items = jax.jit(lambda *args, **more: exact_topk(*args, 15, **more))
    ranks = jax.jit(exact_rank)
    for start, size in ((0, 60), (25, 40), (30, 60)):
        mine = np.r_[0, start + 1 : start + size + 1]
        hidden, wanted = np.where(seen <= size, seen, 0), np.minimum(targets, size)
        allowed = candidates[: ITEMS - 29] & (np.arange(ITEMS - 29) <= size)
        raw = raw_scores(logits, codes[mine], users, vectors[mine])
        scores = competing(raw, hidden, allowed[: size + 1])
        options = {"users": users, "vectors": vectors, "candidates": allowed, "start": start, "n_items": size}
        options = jax.tree.map(jnp.asarray, options)
        np.testing.assert_array_equal(items(logits, codes, hidden, **options)[0], best(scores, 15)[0])
        found = ranks(logits, codes, wanted, hidden, **options)[0]
        np.testing.assert_array_equal(found, rank(scores, raw, wanted))
    assert items._cache_size() == ranks._cache_size() == 1


def test_a_mesh_gives_the_same_lists_and_ranks():
    logits, codes, users, vectors, seen, candidates, targets = problem()
    few = np.stack([np.random.default_rng(i).choice(np.arange(1, 61), 20, replace=False) for i in range(9)])
    options = {"users": users, "vectors": vectors, "start": 20, "n_items": 60, "chunk": 8}

    def everything():
        wanted = np.minimum(targets, 60)
        return (
            exact_topk(logits, codes, seen, 70, candidates=candidates, **options),
            exact_rank(logits, codes, wanted, seen, candidates=candidates, **options),
            exact_rank(logits, codes, wanted, seen, candidates=few.astype(np.int32), **options),
        )

    expected = jax.tree.map(np.asarray, everything())
    assert (expected[0][0] > 0).sum() > 100
    with jax.set_mesh(MeshShape(2, 4, 1).build()):
        found = jax.tree.map(np.asarray, everything())
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_sampled_candidates_equal_brute_force():
    logits, codes, _, _, seen, _, targets = problem()
    rng = np.random.default_rng(2)
    few = np.stack([rng.choice(np.arange(1, ITEMS + 1), 20, replace=False) for _ in range(9)]).astype(np.int32)
    few[:, 15:] = 0
    raw = raw_scores(logits, codes)
    scores = competing(raw, seen)
    for row, ids in zip(scores, few, strict=True):
        row[np.setdiff1d(np.arange(ITEMS + 1), ids)] = -np.inf
    ranks, own = exact_rank(logits, codes, targets, seen, candidates=few)
    np.testing.assert_array_equal(ranks, rank(scores, raw, targets))
    np.testing.assert_array_equal(own, raw[np.arange(9), targets])


def test_lists_longer_than_the_catalog_end_in_padding():
    logits, codes, *_ = problem(2)
    seen = np.array([[1, 2, 2, 0], [1, 2, 3, 4]], np.int32)
    items, scores = exact_topk(logits, codes, seen, 9, n_items=4)
    assert set(np.asarray(items)[0, :2]) == {3, 4} and not np.asarray(items)[0, 2:].any()
    assert not np.asarray(items)[1].any() and np.isneginf(np.asarray(scores)[1]).all()
    items, scores = exact_topk(logits, codes, seen, 3, candidates=np.zeros(ITEMS + 1, bool))
    assert not np.asarray(items).any() and np.isneginf(np.asarray(scores)).all()


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_scores_that_are_not_finite_are_reported_for_their_query_only(bad):
    logits, codes, _, _, seen, _, targets = problem(3)
    # A code of one item in the catalog; and one that only rows above it have, which is no item's score.
    codes[:, 0] = np.minimum(codes[:, 0], 4)
    codes[17, 0], codes[81:, 0] = 5, 6
    logits[0][1, 5] = bad
    logits[0][2, 6] = np.nan
    wanted = np.minimum(targets, 80)
    items, scores = exact_topk(logits, codes, seen, 3, n_items=80, chunk=16)
    assert np.isnan(np.asarray(scores)).all(1).tolist() == [False, True, False]
    assert np.asarray(items).any(1).tolist() == [True, False, True]
    ranks, own = exact_rank(logits, codes, wanted, seen, n_items=80, chunk=16)
    assert (np.asarray(ranks) == 0).tolist() == np.isnan(np.asarray(own)).tolist() == [False, True, False]


def test_inputs_that_do_not_belong_together_are_refused():
    logits, codes, users, vectors, seen, *_ = problem()
    with pytest.raises(InputError, match="logits of 2 slots, but items have 3 codes"):
        exact_topk(logits[:2], codes, seen, 3)
    with pytest.raises(InputError, match="without the other"):
        exact_topk(logits, codes, seen, 3, users=users)
    with pytest.raises(InputError, match="50 rows of vectors, but 91 of codes"):
        exact_topk(logits, codes, seen, 3, users=users, vectors=vectors[:50])
