"""Product quantisation: nearest tuples, and a rotation that gives each part something to say."""

from itertools import islice

import jax
import numpy as np
import pytest

from recjax.tokenizers.pq import PQ
from recjax.typing import InputError

ITEMS, WIDTH = 200, 4


def vectors() -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates that vary, both in the first part, and two that hardly do."""
    found = np.random.default_rng(0).normal(size=(ITEMS + 1, WIDTH)) * [1.0, 1.0, 0.01, 0.01]
    return found.astype(np.float32), np.arange(ITEMS + 1) > 0


def error(tokenizer: PQ) -> float:
    """Mean squared distance of vectors from what their codes stand for."""
    table, known = vectors()
    state = tokenizer.fit(table, known, jax.random.key(0))
    codes = tokenizer.encode(state, table, known)[1:]
    rebuilt = np.concatenate([state["centroids"][slot][codes[:, slot]] for slot in range(tokenizer.slots)], axis=1)
    np.testing.assert_allclose(state["rotation"] @ state["rotation"].T, np.eye(WIDTH), atol=1e-5)
    return float(np.square(rebuilt - table[1:] @ state["rotation"]).sum(axis=1).mean())


def test_a_rotation_spreads_what_vectors_say_over_the_parts():
    plain, rotated = (error(PQ(slots=2, clusters=8, iterations=10, rotations=rounds)) for rounds in (0, 2))
    assert rotated < 0.7 * plain


def test_candidates_are_all_tuples_from_near_to_far():
    tokenizer = PQ(slots=2, clusters=4, iterations=5, rotations=1)
    table, known = vectors()
    state = tokenizer.fit(table, known, jax.random.key(0))
    codes = tokenizer.encode(state, table, known)
    parts = (table[1:4] @ state["rotation"]).reshape(3, 2, 2)
    for row, own, candidates in zip(parts, codes[1:4], tokenizer.candidates(state, table[1:4]), strict=True):
        tuples = list(islice(candidates, 20))
        assert len(set(tuples)) == 16 and tuples[0] == tuple(own)
        far = [sum(np.square(row[s] - state["centroids"][s][code]).sum() for s, code in enumerate(t)) for t in tuples]
        np.testing.assert_allclose(far, sorted(far), rtol=1e-5)


def test_what_cannot_be_fitted_says_why():
    table, known = vectors()
    with pytest.raises(InputError, match=r"tokenizer\.slots = 3"):
        PQ(slots=3, clusters=8).fit(table, known, jax.random.key(0))
    with pytest.raises(InputError, match=r"tokenizer\.clusters = 256"):
        PQ(slots=2).fit(table, known, jax.random.key(0))
