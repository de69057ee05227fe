"""Codes one after another: the beam, its exact oracle, and both against brute force over all items in float64."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.decode.expansion import expanded_rank, expanded_topk
from recjax.decode.stepwise import UNRANKED, rank_in_list, stepwise_topk
from recjax.decode.trie import Trie, build_trie
from recjax.parallel.mesh import MeshShape
from recjax.typing import InputError
from tests.decode.reference import best, catalog, competing, rank

CAPACITY, WIDTH, QUERIES, ITEMS = 120, 6, 5, 100
VOCABULARIES = [(9, 8, 7), (40, 30), (20,)]
CHUNKS = {"chunk": 7}
LISTED = {"k": 15, "normalise": "vocabulary", **CHUNKS}
"""Options of the exact search that several tests share."""


@lru_cache
def network(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Weights of a small recurrent decoder: what it predicts depends on all codes so far and on the query."""
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    tables = [draw(1, WIDTH), *(draw(size, WIDTH) for size in sizes[:-1])]
    return {"tables": tables, "turn": 0.7 * draw(WIDTH, WIDTH), "heads": [draw(WIDTH, size) for size in sizes]}


def decoder(params: dict[str, Any]):
    """`begin` and `step`; the query is an array that serves all prefixes, the state and the codes so far are not."""

    def begin(queries):
        rows = len(queries)
        return {"query": queries[:, None], "state": jnp.zeros((rows, 1, WIDTH)), "codes": jnp.zeros((rows, 1, 0))}

    def step(cache, codes):
        slot = cache["codes"].shape[2]
        read = jnp.asarray(params["tables"][slot])[codes if slot else codes + 1]
        state = jnp.tanh(cache["state"] @ params["turn"] + read + cache["query"])
        past = jnp.broadcast_to(cache["codes"], (*codes.shape, slot))
        grown = jnp.concatenate([past, codes[..., None].astype(jnp.float32)], axis=2)
        return state @ params["heads"][slot], {"query": cache["query"], "state": state, "codes": grown}

    return begin, step


def asked() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(QUERIES, WIDTH)).astype(np.float32)


def forced(params: dict[str, Any], queries: np.ndarray, codes: np.ndarray, children: bool = False) -> np.ndarray:
    """float64 [q, items + 1]: log-probabilities of each item's codes, one item and one code at a time."""
    scores = np.zeros((len(queries), len(codes)))
    for query, row in enumerate(queries.astype(np.float64)):
        for item, own in enumerate(codes[1:], start=1):
            state = np.zeros(WIDTH)
            for slot, code in enumerate(own):
                read = params["tables"][slot][own[slot - 1] if slot else 0]
                state = np.tanh(state @ params["turn"].astype(np.float64) + read + row)
                logits = state @ params["heads"][slot].astype(np.float64)
                if children:
                    siblings = np.unique(codes[1:][(codes[1:, :slot] == own[:slot]).all(axis=1), slot])
                    logits = np.where(np.isin(np.arange(len(logits)), siblings), logits, -np.inf)
                scores[query, item] += logits[code] - np.logaddexp.reduce(logits)
    return scores


@lru_cache
def search(kind: str, **options: Any):
    """A compiled search of (params, queries, trie, seen, candidates)."""

    def run(params, queries, trie, seen, candidates):
        called = stepwise_topk if kind == "beam" else expanded_topk
        return called(*decoder(params), queries, trie, seen=seen, candidates=candidates, **options)

    return jax.jit(run)


@lru_cache
def ranked():
    """A compiled exact rank of (params, queries, trie, targets, seen, candidates)."""

    def run(params, queries, trie, targets, seen, candidates):
        return expanded_rank(*decoder(params), queries, trie, targets, seen=seen, candidates=candidates, chunk=16)

    return jax.jit(run)


in_list = jax.jit(rank_in_list)


def case(sizes: tuple[int, ...], items: int = ITEMS) -> tuple[np.ndarray, Trie, np.ndarray, np.ndarray]:
    """Codes, their trie, seen items and a mask of candidates that reaches beyond the catalog."""
    rng = np.random.default_rng(items)
    codes = catalog(rng, items, sizes)
    seen = rng.integers(0, items + 1, (QUERIES, 6)).astype(np.int32)
    return codes, build_trie(codes, sizes, capacity=CAPACITY), seen, rng.random(CAPACITY + 1) < 0.4


@pytest.mark.parametrize(
    ("sizes", "normalise"),
    [(VOCABULARIES[0], "vocabulary"), *zip(VOCABULARIES, ("children", "children", "vocabulary"), strict=True)],
    ids=str,
)
def test_exact_lists_and_wide_beams_equal_brute_force(sizes, normalise):
    params, queries = network(sizes), asked()
    options = {"k": 15, "normalise": normalise}
    for items in (ITEMS, 1, 0):
        codes, trie, seen, mask = case(sizes, items)
        raw = forced(params, queries, codes, normalise == "children") if items else np.zeros((QUERIES, 1))
        expected = best(competing(raw, seen, mask[: items + 1]), 15)
        exact = search("exact", **options, **CHUNKS)(params, queries, trie, seen, mask)
        wide = search("beam", **options, beam=CAPACITY)(params, queries, trie, seen, mask)
        for found in (exact, wide):
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_a_narrow_beam_lists_valid_items_with_the_scores_of_their_paths():
    sizes = VOCABULARIES[0]
    params, queries = network(sizes), asked()
    codes, trie, seen, mask = case(sizes)
    raw, exact = forced(params, queries, codes), search("exact", **LISTED)(params, queries, trie, seen, mask)
    items, scores = map(np.asarray, search("beam", k=8, beam=3)(params, queries, trie, seen, mask))
    assert (items > 0).sum() > 2 * QUERIES and not np.array_equal(items, np.asarray(exact[0])[:, :8])
    for query, (row, own) in enumerate(zip(items, scores, strict=True)):
        real = row[row > 0]
        assert len(set(real)) == len(real) and mask[real].all() and not np.isin(real, seen[query]).any()
        np.testing.assert_allclose(own[row > 0], raw[query, real], rtol=1e-5, atol=1e-5)
        assert np.isneginf(own[row == 0]).all() and not row[len(real) :].any()


def test_items_of_one_tuple_stand_together_by_id_and_seen_ones_are_made_up_for():
    sizes = VOCABULARIES[0]
    params, queries = network(sizes), asked()
    codes = np.tile(np.array([[1, 2, 3]], np.int32), (31, 1))
    codes[5] = [0, 0, 0]
    trie, seen = build_trie(codes, sizes, capacity=CAPACITY), np.full((QUERIES, 6), 3, np.int32)
    everything = np.ones(CAPACITY + 1, bool)
    for kind, options in (("beam", {"k": 4, "beam": 1}), ("exact", LISTED)):
        items = np.asarray(search(kind, **options)(params, queries, trie, seen, everything)[0])[:, :4]
        assert all(row in ([1, 2, 4, 6], [5, 1, 2, 4], [5, 0, 0, 0]) for row in items.tolist())
    # A beam of one goes on below the first code; the tuples that seen items take up are spare ones.
    codes = np.stack([np.zeros(31), np.arange(31) % 8, np.arange(31) // 8], axis=1).astype(np.int32)
    trie = build_trie(codes, sizes, capacity=CAPACITY)
    order = np.asarray(search("exact", **LISTED)(params, queries, trie, seen * 0, everything)[0])
    found = search("beam", k=3, beam=8)(params, queries, trie, order[:, :3], everything)[0]
    np.testing.assert_array_equal(found, order[:, 3:6])


@pytest.mark.parametrize("among", ["all", "mask", "lists"])
def test_exact_ranks_equal_brute_force(among):
    sizes = VOCABULARIES[0]
    params, queries, rng = network(sizes), asked(), np.random.default_rng(5)
    codes, trie, seen, mask = case(sizes)
    lists = np.stack([rng.permutation(ITEMS)[:12] for _ in range(QUERIES)]).astype(np.int32)  # one of them may be 0
    targets = rng.integers(1, ITEMS + 1, QUERIES).astype(np.int32)
    targets[0] = seen[0].max()  # a seen target competes
    competitors = {"all": None, "mask": mask, "lists": lists}[among]

    found, scores = ranked()(params, queries, trie, targets, seen, competitors)
    raw = forced(params, queries, codes)
    masked = competing(raw, seen, mask[: ITEMS + 1] if among == "mask" else None)
    if among == "lists":
        masked = np.where([np.isin(np.arange(ITEMS + 1), row) for row in lists], masked, -np.inf)
    # Items of one tuple tie exactly; in float64 they do too.
    np.testing.assert_array_equal(found, rank(masked, raw, targets))
    np.testing.assert_allclose(scores, raw[np.arange(QUERIES), targets], rtol=1e-5)
    if among == "all":  # the rank in the list of a wide beam is the exact one
        wide = search("beam", k=CAPACITY, beam=CAPACITY)(params, queries, trie, None, None)
        np.testing.assert_array_equal(in_list(*wide, targets, seen)[0], found)


def test_a_target_outside_the_list_or_the_trie_is_unranked():
    items = np.array([[4, 2, 0], [3, 1, 5], [0, 0, 0]], np.int32)
    scores = np.array([[-1, -2, -np.inf], [-1, -1, -3], [np.nan] * 3], np.float32)
    ranks, found = jax.device_get(in_list(items, scores, np.array([2, 4, 1])))
    assert ranks.tolist() == [2, UNRANKED, 0] and found[:2].tolist() == [-2.0, -np.inf] and np.isnan(found[2])
    assert in_list(items, scores, np.array([0, 0, 0]))[0].tolist()[0] == UNRANKED
    # Seen items do not compete, but a seen target does.
    seen = np.array([[0, 0, 0], [5, 3, 0], [0, 0, 0]], np.int32)
    assert in_list(items, scores, np.array([4, 5, 1]), seen)[0].tolist()[:2] == [1, 2]

    sizes = VOCABULARIES[0]
    _, trie, seen, _ = case(sizes)
    only, targets = jax.jit(Trie.only)(trie, np.arange(ITEMS + 1) != 9), np.full(QUERIES, 9, np.int32)
    ranks, found = ranked()(network(sizes), asked(), only, targets, seen, None)
    assert ranks.tolist() == [UNRANKED] * QUERIES and np.isneginf(np.asarray(found)).all()


@pytest.mark.parametrize("normalise", ["vocabulary", "children"])
def test_logits_that_are_not_finite_spoil_their_query_only(normalise):
    sizes = (9, 8)
    params, queries = network(sizes), asked()
    codes = np.minimum(catalog(np.random.default_rng(0), ITEMS, sizes), np.array(sizes) - 2)
    targets = np.full(QUERIES, 1, np.int32)

    @jax.jit
    def found(trie, bad):
        begin, step = decoder(params)

        def spoiled(cache, codes):
            slot = cache["codes"].shape[2]
            logits, cache = step(cache, codes)
            # No item has the last code of a slot: that one may be impossible, for all queries.
            logits = jnp.where(jnp.arange(sizes[slot]) == sizes[slot] - 1, -jnp.inf, logits)
            return jnp.where((jnp.arange(QUERIES)[:, None, None] == 2) & (slot == 1), bad, logits), cache

        return (
            stepwise_topk(begin, spoiled, queries, trie, 4, beam=4, normalise=normalise),
            expanded_topk(begin, spoiled, queries, trie, 4, normalise=normalise, chunk=16),
            expanded_rank(begin, spoiled, queries, trie, targets, normalise=normalise, chunk=16),
        )

    for bad in (np.nan, np.inf, -np.inf):
        *lists, (ranks, scores) = found(build_trie(codes, sizes), bad)
        for items, values in lists:
            assert np.asarray(items).all(axis=1).tolist() == [True, True, False, True, True]
            assert np.asarray(items).any(axis=1).tolist() == [True, True, False, True, True]
            assert np.isfinite(np.asarray(values)).all(axis=1).tolist() == [True, True, False, True, True]
            assert np.isnan(np.asarray(values[2])).all()
        assert (np.asarray(ranks) == 0).tolist() == [False, False, True, False, False] and np.isnan(scores[2])


def test_one_compilation_serves_all_catalogs_and_a_mesh_gives_the_same():
    sizes = VOCABULARIES[0]
    params, queries = network(sizes), np.concatenate([asked(), asked()[:3] * 2])
    run = search("beam", k=10, beam=12)
    start = run._cache_size()
    for items in (50, CAPACITY, 3):
        codes = catalog(np.random.default_rng(items), items, sizes)
        trie = build_trie(codes, sizes, capacity=CAPACITY)
        seen, mask = np.zeros((len(queries), 2), np.int32), np.arange(CAPACITY + 1) % 3 > 0
        expected = jax.tree.map(np.asarray, run(params, queries, trie, seen, mask))
    assert run._cache_size() == start + 1
    codes, trie, _, mask = case(sizes)
    for name, options in (("beam", {"beam": 12}), ("exact", {"chunk": 16})):
        run = search(name, k=10, **options)
        expected = jax.tree.map(np.asarray, run(params, queries, trie, seen, mask))
        with jax.set_mesh(MeshShape(4, 2, 1).build()):
            sharded = jax.device_put(queries, jax.NamedSharding(jax.sharding.get_mesh(), jax.P("data")))
            found = jax.tree.map(np.asarray, run(params, sharded, trie, seen, mask))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_bad_searches_are_refused_in_the_users_words():
    sizes = VOCABULARIES[0]
    trie, params = case(sizes)[1], network(sizes)
    with pytest.raises(InputError, match="beam 0"):
        stepwise_topk(*decoder(params), asked(), trie, 3, beam=0)
    with pytest.raises(InputError, match="chunk is 0"):
        expanded_topk(*decoder(params), asked(), trie, 3, chunk=0)
    with pytest.raises(InputError, match=r"step 0 returned logits of shape \(5, 1, 20\), expected \(5, 1, 9\)"):
        jax.eval_shape(lambda: stepwise_topk(*decoder(network((20,))), asked(), trie, 3, beam=2))
