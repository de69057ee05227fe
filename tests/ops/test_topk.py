"""Streaming, sharded ranking against a float64 brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from recjax.ops.items.topk import (
    ACROSS_BLOCKS,
    DOT_PRODUCT,
    QUERY_BLOCK,
    Scorer,
    masked_rank,
    masked_topk,
    ranks_by,
    scores_by,
    topk_and_rank_by,
)

MESHES = [(8, 1, 1), (2, 4, 1)]


def problem(queries: int, rows: int, seen: int, *, integers: bool = True, seed: int = 0):
    """Users, table, bias and seen items; small integers make many exact ties, and float32 sums exact."""
    rng = np.random.default_rng(seed)
    draw = (lambda *s: rng.integers(-2, 3, s)) if integers else (lambda *s: rng.normal(size=s))
    users, table, bias = draw(queries, 5), draw(rows, 5), draw(rows)
    hidden = rng.integers(0, rows, (queries, seen))
    return users.astype(np.float32), table.astype(np.float32), bias.astype(np.float32), hidden.astype(np.int32)


def competing(scores, seen, n_items, candidates=None):
    """float64 scores with everything that may not compete at -inf."""
    scores = scores.copy()
    scores[:, 0] = -np.inf
    scores[:, n_items + 1 :] = -np.inf
    for row, hidden in zip(scores, seen, strict=True):
        row[hidden] = -np.inf
    if candidates is not None:
        scores[:, : len(candidates)][:, ~candidates] = -np.inf
    return scores


def brute_topk(scores, k):
    ids = np.zeros((len(scores), k), np.int32)
    best = np.full((len(scores), k), -np.inf)
    for row, values in enumerate(scores):
        order = sorted(np.flatnonzero(values > -np.inf), key=lambda item: (-values[item], item))[:k]
        ids[row, : len(order)] = order
        best[row, : len(order)] = values[order]
    return ids, best


def brute_rank(scores, raw, targets):
    ranks = []
    for row, everything, target in zip(scores, raw, targets, strict=True):
        mine = everything[target]
        ranks.append(1 + (row > mine).sum() + (row[:target] == mine).sum())
    return np.array(ranks)


def raw_scores(users, table, bias):
    return users.astype(np.float64) @ table.T.astype(np.float64) + (0 if bias is None else bias.astype(np.float64))


@pytest.mark.parametrize(
    ("chunk", "with_bias", "masked"), [(1_000, True, True), (64, False, True), (50, True, False), (7, False, False)]
)
def test_equals_brute_force_with_ties_seen_and_candidates(chunk, with_bias, masked):
    users, table, bias, seen = problem(9, 128, 20)
    bias = bias if with_bias else None
    targets = np.arange(1, 10, dtype=np.int32) * 11
    candidates = np.arange(101) % 3 != 0 if masked else None
    raw = raw_scores(users, table, bias)
    scores = competing(raw, seen, 100, candidates)
    where = {"bias": bias, "candidates": candidates, "n_items": 100, "chunk": chunk}
    items, values = masked_topk(users, table, seen, 12, **where)
    expected_items, expected_values = brute_topk(scores, 12)
    np.testing.assert_array_equal(items, expected_items)
    np.testing.assert_array_equal(values, expected_values)
    ranks, own = masked_rank(users, table, targets, seen, **where)
    np.testing.assert_array_equal(ranks, brute_rank(scores, raw, targets))
    np.testing.assert_array_equal(own, raw[np.arange(9), targets])


def test_equals_brute_force_on_real_numbers():
    users, table, bias, seen = problem(40, 3_001, 30, integers=False)
    raw = raw_scores(users, table, bias)
    scores = competing(raw, seen, 3_000)
    targets = np.arange(1, 41, dtype=np.int32) * 70
    items, values = masked_topk(users, table, seen, 20, bias=bias, chunk=700)
    np.testing.assert_array_equal(items, brute_topk(scores, 20)[0])
    np.testing.assert_allclose(values, brute_topk(scores, 20)[1], rtol=1e-5)
    ranks, _ = masked_rank(users, table, targets, seen, bias=bias, chunk=700)
    np.testing.assert_array_equal(ranks, brute_rank(scores, raw, targets))


@pytest.mark.parametrize(("integers", "chunk"), [(True, 2_000), (False, 700)])
def test_few_of_a_wide_chunk_equal_brute_force(chunk, integers):
    """Integers tie where the list ends, so that all scores are sorted; real numbers leave most groups out."""
    users, table, bias, seen = problem(8, 1_407, 30, integers=integers)
    raw = raw_scores(users, table, bias)
    scores = competing(raw, seen, 1_400)
    targets = np.arange(8, dtype=np.int32) * 150 + 1
    where = {"n_items": 1_400, "chunk": chunk}

    @jax.jit
    def everything():
        both = topk_and_rank_by(
            DOT_PRODUCT, users, (table, bias), jnp.asarray(targets), jnp.asarray(seen), 10, n_items=1_400, chunk=chunk
        )
        lists = masked_topk(users, table, seen, 10, bias=bias, **where)
        return *lists, masked_rank(users, table, targets, seen, bias=bias, **where)[0], both

    items, values, ranks, both = everything()
    np.testing.assert_array_equal(items, brute_topk(scores, 10)[0])
    np.testing.assert_allclose(values, brute_topk(scores, 10)[1], rtol=1e-5)
    np.testing.assert_array_equal(ranks, brute_rank(scores, raw, targets))
    for found, expected in zip(both, (items, ranks), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_targets_are_compared_as_the_chunks_have_them():
    """A scorer that gives a row another last bit beside other rows: equal items still tie."""

    def rows(users, table):
        away = jnp.float32(2.0**-20) * (table.shape[0] == 8)  # gathered targets are as many as queries
        return users @ table.T + away

    scorer = Scorer(rows, DOT_PRODUCT.pairs, multiple=8)
    users, table = np.ones((8, 1), np.float32), np.ones((101, 1), np.float32)
    targets, seen = np.arange(1, 9, dtype=np.int32) * 12, np.zeros((8, 1), np.int32)
    ranked = jax.jit(lambda *arrays: ranks_by(scorer, *arrays, n_items=100, chunk=16))
    ranks, own = ranked(users, table, targets[:, None], seen)
    np.testing.assert_array_equal(ranks[:, 0], targets)
    np.testing.assert_array_equal(own, 1.0)


@pytest.mark.parametrize("shape", MESHES)
def test_any_mesh_gives_the_same_lists_and_ranks(shape):
    users, table, bias, seen = problem(21, 131, 9)
    targets = (np.arange(21, dtype=np.int32) * 6) + 1
    candidates = np.arange(131) % 5 != 0
    few = np.stack([np.random.default_rng(i).choice(np.arange(1, 131), 30, replace=False) for i in range(21)])
    options = {"bias": bias, "n_items": 130, "chunk": 16}

    def everything():
        return (
            masked_topk(users, table, seen, 70, candidates=candidates, **options),
            masked_rank(users, table, targets, seen, candidates=candidates, **options),
            masked_rank(users, table, targets, seen, candidates=few.astype(np.int32), **options),
        )

    expected = jax.tree.map(np.asarray, everything())
    mesh = jax.make_mesh(shape, ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        found = jax.tree.map(np.asarray, everything())
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("shape", "chunk"), [((1, 1, 1), 16), ((2, 4, 1), 1_000)])
def test_several_targets_rank_each_as_if_it_were_alone(shape, chunk):
    users, table, bias, seen = problem(21, 131, 9)
    targets = np.random.default_rng(1).integers(0, 130, (21, 6)).astype(np.int32)
    where = {"start": 2, "n_items": 128}  # item i is row 2 + i
    mesh = jax.make_mesh(shape, ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)

    @jax.jit
    def both(users, rows, targets, seen):
        ranks = ranks_by(DOT_PRODUCT, users, rows, targets, seen, **where, chunk=chunk)
        return *ranks, scores_by(DOT_PRODUCT, users, rows, targets, **where)

    with jax.set_mesh(mesh):
        ranks, own, scores = jax.tree.map(np.asarray, both(users, (table, bias), targets, seen))
    for column in range(6):
        alone = jax.device_get(masked_rank(users, table[2:], targets[:, column], seen, bias=bias[2:], n_items=128))
        real = targets[:, column] > 0
        np.testing.assert_array_equal(ranks[real, column], alone[0][real])
        np.testing.assert_array_equal(own[real, column], alone[1][real])
    np.testing.assert_array_equal(scores, np.where(targets > 0, own, 0))


def test_more_queries_than_a_block():
    users, table, bias, seen = problem(QUERY_BLOCK * 2 + 3, 40, 4)
    scores = competing(raw_scores(users, table, bias), seen, 39)
    items, _ = masked_topk(users, table, seen, 5, bias=bias)
    np.testing.assert_array_equal(items, brute_topk(scores, 5)[0])


@pytest.mark.parametrize(("shape", "chunk"), [((1, 1, 1), 2_000), ((1, 1, 1), 300), ((1, 2, 1), 300)])
def test_many_queries_score_vectors_laid_across(shape, chunk):
    """Once for all of them, whether or not rows come to a whole chunk; small integers tie."""
    users, table, bias, seen = problem(QUERY_BLOCK * (ACROSS_BLOCKS * shape[0] - 1) + 5, 1_407, 6)
    raw = raw_scores(users, table, bias)
    scores = competing(raw, seen, 1_400)
    targets = np.arange(len(users), dtype=np.int32) % 1_400 + 1
    mesh = jax.make_mesh(shape, ("data", "model", "seq"), axis_types=(AxisType.Auto,) * 3)
    ranked = jax.jit(
        lambda *given: topk_and_rank_by(DOT_PRODUCT, *given, 5, n_items=1_400, chunk=chunk)  # both, of the same scores
    )
    with jax.set_mesh(mesh):
        given = users, (table, bias), targets, seen
        assert "f32[5,1408]" in str(jax.make_jaxpr(ranked)(*given)) or shape[1] > 1
        items, ranks = jax.device_get(ranked(*given))
    np.testing.assert_array_equal(items, brute_topk(scores, 5)[0])
    np.testing.assert_array_equal(ranks, brute_rank(scores, raw, targets))


def test_never_holds_queries_by_items():
    users, table, _, seen = problem(2_000, 5_000, 4)

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (out.aval.size for out in equation.outvars if hasattr(out.aval, "size"))
            for value in equation.params.values():
                for inner in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
                    if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                        yield from sizes(getattr(inner, "jaxpr", inner))

    for function in (
        lambda u, t, s: masked_topk(u, t, s, 10, chunk=500),
        lambda u, t, s: masked_rank(u, t, s[:, 0], s, chunk=500),
        lambda u, t, s: ranks_by(DOT_PRODUCT, u, (t, None), s, s, n_items=4_999, chunk=500),
    ):
        largest = max(sizes(jax.make_jaxpr(function)(users, table, seen).jaxpr))
        assert QUERY_BLOCK * 500 <= largest <= QUERY_BLOCK * 600


@pytest.mark.parametrize(
    ("rows", "queries", "chunk"),
    [(1 + 37, 50, 100), (1 + 3_416, 50, 100), (1 + 3_416, 1, 10_000), (12_102, 1, 10_000)],
)
def test_constant_scores_earn_nothing(rows, queries, chunk):
    rng = np.random.default_rng(0)
    users = rng.normal(size=(queries, 100)).astype(np.float32)
    table = np.tile(rng.normal(size=100).astype(np.float32), (rows, 1))
    targets = rng.integers(1, rows, queries).astype(np.int32)
    targets[0] = rows - 1
    seen = np.zeros((queries, 1), np.int32)
    ranks, _ = masked_rank(users, table, targets, seen, chunk=chunk)
    np.testing.assert_array_equal(ranks, targets)
    items, _ = masked_topk(users, table, seen, 10, chunk=chunk)
    np.testing.assert_array_equal(items, np.tile(np.arange(1, 11), (queries, 1)))


def test_positive_and_negative_zero_tie():
    users = np.array([[1.0], [-1.0]], np.float32)
    table = np.array([[5.0], [-0.0], [0.0], [-0.0], [0.0]], np.float32)
    seen = np.zeros((2, 1), np.int32)
    np.testing.assert_array_equal(masked_topk(users, table, seen, 4)[0], [[1, 2, 3, 4]] * 2)
    np.testing.assert_array_equal(masked_rank(users, table, np.array([3, 3]), seen)[0], [3, 3])


def test_lists_longer_than_the_catalog_end_in_padding():
    users, table, bias, _ = problem(2, 6, 0)
    seen = np.array([[1, 2, 2, 0], [1, 2, 3, 4]], np.int32)
    items, scores = masked_topk(users, table, seen, 9, bias=bias, n_items=4)
    assert (np.asarray(items) > 0).sum(1).tolist() == [2, 0]
    assert set(np.asarray(items)[0, :2]) == {3, 4}
    assert np.isneginf(np.asarray(scores)[0, 2:]).all() and np.isneginf(np.asarray(scores)[1]).all()


def test_a_seen_target_still_competes():
    users = np.ones((1, 1), np.float32)
    table = np.array([[0.0], [3.0], [2.0], [1.0]], np.float32)
    ranks, scores = masked_rank(users, table, np.array([2]), np.array([[2, 1]], np.int32))
    assert (ranks[0], scores[0]) == (1, 2.0)


@pytest.mark.parametrize("chunk", [100, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_reported_for_their_query_only(bad, chunk):
    users, table, bias, seen = problem(3, 10, 3)
    users[1] = bad
    table[:, 0] = 1.0
    targets = np.array([1, 2, 3], np.int32)
    items, scores = masked_topk(users, table, seen, 3, bias=bias, chunk=chunk)
    assert np.isnan(np.asarray(scores)).all(1).tolist() == [False, True, False]
    assert not np.asarray(items)[1].any()
    # A rank among listed items knows no chunks.
    lists = [np.tile(np.arange(1, 6, dtype=np.int32), (3, 1))] if chunk == 4 else []
    for candidates in (None, *lists):
        ranks, own = masked_rank(users, table, targets, seen, bias=bias, candidates=candidates, chunk=chunk)
        assert (np.asarray(ranks) == 0).tolist() == [False, True, False]
        assert np.isnan(np.asarray(own)).tolist() == [False, True, False]


def test_rows_that_are_no_items_may_hold_anything():
    users, table, bias, seen = problem(3, 10, 3)
    table[0], table[8:] = np.nan, np.inf
    items, scores = masked_topk(users, table, seen, 10, bias=bias, n_items=7, chunk=4)
    assert not np.isnan(np.asarray(scores)).any()
    assert np.asarray(items).max() <= 7


def test_sampled_candidates_equal_brute_force():
    users, table, bias, seen = problem(12, 64, 10)
    rng = np.random.default_rng(1)
    targets = rng.integers(1, 64, 12).astype(np.int32)
    few = np.stack([rng.choice(np.arange(1, 64), 20, replace=False) for _ in range(12)]).astype(np.int32)
    few[:, 15:] = 0
    raw = raw_scores(users, table, bias)
    scores = competing(raw, seen, 63)
    for row, ids in zip(scores, few, strict=True):
        row[np.setdiff1d(np.arange(64), ids)] = -np.inf
    ranks, own = masked_rank(users, table, targets, seen, bias=bias, candidates=few)
    np.testing.assert_array_equal(ranks, brute_rank(scores, raw, targets))
    np.testing.assert_array_equal(own, raw[np.arange(12), targets])


def test_bfloat16_vectors_are_scored_in_float32():
    users, table, _, seen = problem(4, 50, 5, integers=False)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (users, table)]
    raw = raw_scores(*(np.asarray(x, np.float32) for x in low), None)
    items, scores = masked_topk(*low, seen, 5)
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(items, brute_topk(competing(raw, seen, 49), 5)[0])
