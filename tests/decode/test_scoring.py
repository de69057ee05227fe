"""Every form of scoring under the one contract: lists and ranks by brute force over its own scores."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.decode.scoring import UNRANKED, CodeSum, DotProduct, Pairs, Scoring, Stepwise
from recjax.decode.trie import build_trie
from recjax.typing import InputError

ITEMS, QUERIES, SLOTS, SIZE, WIDTH = 40, 5, 3, 4, 3
RNG = np.random.default_rng(0)
CODES = np.concatenate([np.zeros((1, SLOTS), int), RNG.integers(0, SIZE, (ITEMS, SLOTS))]).astype(np.int32)
USERS = RNG.integers(-2, 3, (QUERIES, WIDTH)).astype(np.float32)
VECTORS = RNG.integers(-2, 3, (ITEMS + 1, WIDTH)).astype(np.float32)  # small integers: many ties
LOGITS = RNG.normal(size=(QUERIES, SLOTS, SIZE)).astype(np.float32)
AFTER = RNG.normal(size=(SIZE + 1, SIZE)).astype(np.float32)
"""Logits of a code given the one before it; the last row stands before the first slot."""
SEEN = np.array([[1, 2, 0], [0, 0, 0], [7, 7, 40], [3, 0, 9], [5, 6, 8]], np.int32)


def squared(queries: Any, rows: Any) -> Any:
    return -jnp.sum((queries[:, None] - rows[None]) ** 2, axis=-1)


def begin(queries: Any) -> Any:
    return queries["level"][:, None], queries["logits"][:, None]


def step(cache: Any, codes: Any) -> Any:
    level, logits = cache
    here = jnp.take_along_axis(logits, level[..., None, None].astype(jnp.int32), axis=2)[:, :, 0]
    return here + jnp.asarray(AFTER)[codes], (level + 1, logits)


def chain() -> dict[str, Any]:
    queries = {"level": np.zeros(QUERIES, np.int32), "logits": LOGITS}
    return {"begin": begin, "step": step, "queries": queries, "trie": build_trie(CODES, (SIZE,) * SLOTS)}


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def of_chain(query: int, codes: np.ndarray) -> float:
    before = [SIZE, *codes[:-1]]
    steps = (log_softmax(LOGITS[query, slot] + AFTER[last])[codes[slot]] for slot, last in enumerate(before))
    return sum(steps)


FORMS: dict[str, tuple[Any, Any]] = {
    "dot product": (lambda: DotProduct(USERS, VECTORS, ITEMS), lambda q, i: USERS[q] @ VECTORS[i]),
    "bias": (
        lambda: DotProduct(USERS, VECTORS, ITEMS, np.arange(ITEMS + 1, dtype=np.float32) % 3),
        lambda q, i: USERS[q] @ VECTORS[i] + i % 3,
    ),
    "codes": (
        lambda: CodeSum(*map(jnp.asarray, (LOGITS, CODES)), ITEMS, *map(jnp.asarray, (USERS, VECTORS))),
        lambda q, i: LOGITS[q, range(SLOTS), CODES[i]].sum() + USERS[q] @ VECTORS[i],
    ),
    "pairs": (lambda: Pairs(squared, USERS, VECTORS, ITEMS), lambda q, i: -np.sum((USERS[q] - VECTORS[i]) ** 2)),
    "exact steps": (lambda: Stepwise(**chain(), beam=None), lambda q, i: of_chain(q, CODES[i])),
    "wide beam": (lambda: Stepwise(**chain(), beam=ITEMS), lambda q, i: of_chain(q, CODES[i])),
}
WHOLE = [name for name in FORMS if name != "wide beam"]


def in_order(name: str, query: int, allowed: np.ndarray) -> list[int]:
    """Items that may be listed, best first, ties by the smaller id."""
    score = FORMS[name][1]
    open_ = [item for item in range(1, ITEMS + 1) if allowed[item]]
    return sorted(open_, key=lambda item: (-round(float(score(query, item)), 4), item))


TARGETS = np.array([1, 17, 7, 22, 40], np.int32)  # seen, not, seen twice, not, not
SEVERAL = np.array([[1, 17, 0], [17, 2, 40], [7, 7, 3], [22, 0, 0], [40, 1, 5]], np.int32)
MASK = np.arange(ITEMS + 1) % 3 > 0


@cache
def of_form(name: str) -> Scoring:
    return FORMS[name][0]()


@cache
def ranked(name: str) -> Any:
    """Compiled: targets -> their ranks and scores."""
    return jax.jit(lambda targets: of_form(name).rank(targets, jnp.asarray(SEEN)))


@cache
def listed(name: str, masked: bool) -> Any:
    """Lists of all items with their scores; with a mask, ranks and scores of targets among its items."""
    scoring, seen, targets, mask = of_form(name), *map(jnp.asarray, (SEEN, TARGETS, MASK))
    if masked:
        return jax.device_get(
            jax.jit(lambda: (scoring.topk(seen, ITEMS + 2, mask), scoring.rank(targets, seen, mask)))()
        )
    return jax.device_get((jax.jit(lambda: scoring.topk(seen, ITEMS + 2))(), ranked(name)(TARGETS)))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_lists_and_ranks_follow_the_scores(name, masked):
    candidates = MASK if masked else np.ones(ITEMS + 1, bool)
    (items, scores), (ranks, own) = listed(name, masked)
    for query in range(QUERIES):
        unseen = candidates & ~np.isin(np.arange(ITEMS + 1), SEEN[query])
        expected = in_order(name, query, unseen)
        assert items[query].tolist() == [*expected, *[0] * (ITEMS + 2 - len(expected))]
        values = [FORMS[name][1](query, item) for item in expected]
        np.testing.assert_allclose(scores[query, : len(expected)], values, rtol=1e-4, atol=1e-4)
        target = TARGETS[query]
        if candidates[target] or name in WHOLE:
            unseen[target] = True
            assert int(ranks[query]) == in_order(name, query, unseen).index(target) + 1
            np.testing.assert_allclose(own[query], FORMS[name][1](query, target), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_calls_together_give_what_each_gives_alone(name):
    """Ranks beside lists, several targets of a query, and scores of a few items."""
    scoring, seen = of_form(name), jnp.asarray(SEEN)

    @jax.jit
    def everything():
        scores = None if name == "wide beam" else scoring.scores(jnp.asarray(SEVERAL))
        beside = scoring.rank_and_list(jnp.asarray(TARGETS), seen, 6)
        return beside, scoring.ranks(jnp.asarray(SEVERAL), seen), scores

    (beside, items), ranks, scores = jax.device_get(everything())
    (whole, _), (alone, _) = listed(name, False)
    np.testing.assert_array_equal(beside, alone)
    np.testing.assert_array_equal(items, whole[:, :6])
    for place, column in enumerate(SEVERAL.T):
        alone = np.asarray(ranked(name)(column)[0])
        np.testing.assert_array_equal(ranks[column > 0, place], alone[column > 0])
    if name == "wide beam":
        with pytest.raises(InputError, match="does not score single items"):
            scoring.scores(jnp.asarray(SEVERAL))
        return
    expected = [[FORMS[name][1](query, item) if item else 0 for item in row] for query, row in enumerate(SEVERAL)]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_a_narrow_beam_answers_that_a_target_is_not_in_its_list():
    scoring, seen = Stepwise(**chain(), beam=2), np.zeros((QUERIES, 1), np.int32)
    worst = np.array(
        [in_order("exact steps", query, np.ones(ITEMS + 1, bool))[-1] for query in range(QUERIES)], np.int32
    )
    ranks, own = jax.jit(lambda: scoring.rank(worst, seen))()
    assert (np.asarray(ranks) == UNRANKED).all() and np.isneginf(own).all()
    with pytest.raises(InputError, match=r"model\.beam=none"):
        scoring.rank(worst, seen, np.ones((QUERIES, 3), np.int32))


def test_a_table_without_a_row_for_each_item_is_refused():
    with pytest.raises(InputError, match=rf"has {ITEMS} rows of items, expected {ITEMS + 1}"):
        DotProduct(USERS, VECTORS[:-1], ITEMS)
    with pytest.raises(InputError, match=f"Pairs has {ITEMS} rows"):
        Pairs(squared, USERS, (VECTORS, VECTORS[1:]), ITEMS)
    jax.eval_shape(lambda n: DotProduct(USERS, VECTORS[:-1], n).users, ITEMS)  # traced: unknown
