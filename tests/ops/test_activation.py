"""Memory strength against plain loops, and what sessions of packed rows are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.ops.activation import base_level, matching, shares, spreading, traces, unit
from recjax.ops.sessions import runs

SEGMENTS = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 0, 0]])
NUMBERS = np.array([[0, 0, 1, 2, 2, 0, 1, 1, 0, 0]])
ITEMS = np.array([[3, 4, 3, 3, 5, 3, 4, 3, 0, 0]])
FOUND = runs(jnp.asarray(SEGMENTS), jnp.asarray(NUMBERS))
REAL = 8
"""Events that are no padding."""


def test_sessions_of_a_packed_row():
    assert FOUND.number[0, :REAL].tolist() == [0, 0, 1, 2, 2, 3, 4, 4]
    assert np.flatnonzero(FOUND.last[0]).tolist() == [1, 2, 4, 5, 7, 9]
    assert FOUND.ends[0, :5].tolist() == [1, 2, 4, 5, 7]
    assert FOUND.segments[0].tolist() == [1, 1, 1, 2, 2, 0, 0, 0, 0, 0]
    pairs = [(p, k) for p in range(REAL) for k in range(REAL)]
    own = {(p, k): SEGMENTS[0, p] == SEGMENTS[0, k] for p, k in pairs}
    for name, alike in (("together", np.equal), ("seen", np.greater_equal)):
        expected = [own[p, k] and alike(NUMBERS[0, p], NUMBERS[0, k]) for p, k in pairs]
        assert [bool(getattr(FOUND, name)[0, p, k]) for p, k in pairs] == expected


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.3])
def test_base_level_is_the_softmax_of_the_logarithm_over_the_items_of_the_history(decay):
    times = np.array([[0, 0, 4, 5, 5, 1, 7, 7, 0, 0]], np.float32)
    found = base_level(traces(jnp.asarray(times), FOUND.seen, decay), jnp.asarray(ITEMS))[0]
    for p in range(REAL):
        history = [k for k in range(REAL) if SEGMENTS[0, k] == SEGMENTS[0, p] and NUMBERS[0, k] <= NUMBERS[0, p]]
        strength = {}
        for k in history:
            strength.setdefault(ITEMS[0, k], []).append((1 + times[0, p] - times[0, k]) ** -decay)
        level = {item: np.log(np.sum(parts)) for item, parts in strength.items()}
        total = np.sum(np.exp(list(level.values())))
        np.testing.assert_allclose(found[p], np.exp(level[ITEMS[0, p]]) / total, rtol=1e-5)


def test_base_level_falls_with_time_and_rises_with_repeats():
    @jax.jit
    def of_first(times, items):
        one = runs(jnp.ones_like(items), jnp.arange(items.shape[1])[None])
        left = traces(times, one.seen, 0.5)[:, -1]
        return jnp.sum(jnp.where(items == items[0, 0], left, 0.0))

    def level(times, items):  # of the first item, in its last session
        return float(of_first(jnp.asarray([times], jnp.float32), jnp.asarray([items])))

    assert level([0, 1, 2], [1, 2, 3]) > level([0, 1, 9], [1, 2, 3])
    assert level([0, 1, 2], [1, 1, 3]) > level([0, 1, 2], [1, 2, 3])


def test_spreading_and_matching_are_sums_over_the_other_items_of_the_session():
    random = np.random.default_rng(0)
    links = np.array([[0, 0], [0, 0], [0, 0], [4, 5], [3, 0], [3, 9]])
    values = np.where(links > 0, random.random(links.shape), 0).astype(np.float32)
    vectors = random.normal(size=(1, 10, 3)).astype(np.float32)
    spread = spreading(jnp.asarray(ITEMS), FOUND.together, jnp.asarray(links[ITEMS]), jnp.asarray(values[ITEMS]))[0]
    near = matching(jnp.asarray(vectors), jnp.asarray(ITEMS), FOUND.together)[0]
    for p in range(REAL):
        others = [k for k in range(REAL) if FOUND.together[0, p, k] and ITEMS[0, k] != ITEMS[0, p]]
        weights = dict(zip(links[ITEMS[0, p]].tolist(), values[ITEMS[0, p]].tolist(), strict=True))
        np.testing.assert_allclose(spread[p], sum(weights.get(ITEMS[0, k], 0.0) for k in others), rtol=1e-5)
        np.testing.assert_allclose(near[p], sum(vectors[0, p] @ vectors[0, k] for k in others), rtol=1e-4, atol=1e-6)


def test_shares_are_a_distribution_over_the_session_in_any_order():
    activation = np.random.default_rng(1).normal(size=(1, 10)).astype(np.float32)
    found = np.asarray(shares(jnp.asarray(activation), FOUND.together))[0]
    assert (found > 0).all()
    for number in range(5):
        np.testing.assert_allclose(found[:REAL][np.asarray(FOUND.number[0, :REAL]) == number].sum(), 1, rtol=1e-6)
    swapped = activation[:, [1, 0, 2, 4, 3, 5, 7, 6, 8, 9]]
    again = np.asarray(shares(jnp.asarray(swapped), FOUND.together))[0]
    np.testing.assert_allclose(again[[1, 0, 2, 4, 3, 5, 7, 6, 8, 9]], found, rtol=1e-6)


def test_without_activation_the_shares_are_equal_to_the_bit():
    of = jax.jit(lambda sessions: shares(jnp.zeros((1, 9)), runs(jnp.ones((1, 9), jnp.int32), sessions).together)[0])
    found = of(jnp.asarray([[0, 0, 0, 1, 1, 1, 1, 1, 2]]))
    np.testing.assert_array_equal(found, (1 / np.array([3] * 3 + [5] * 5 + [1], np.float32)))


def test_a_zero_vector_has_no_direction():
    np.testing.assert_allclose(unit(jnp.asarray([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
