"""The best tuples of all there are, against brute force, and which of them are items."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from recjax.decode.unconstrained import best_tuples, items_of
from recjax.typing import InputError
from tests.decode.reference import catalog


@pytest.mark.parametrize("width", [1, 7, 200])
def test_best_tuples_are_the_best_of_all(width):
    rng, sizes = np.random.default_rng(0), (6, 5, 4)
    logits = tuple(rng.normal(size=(3, size)).astype(np.float32) for size in sizes)
    tuples, scores = map(np.asarray, best_tuples(logits, width))
    everything = np.array(list(itertools.product(*map(range, sizes))))
    assert tuples.shape == (3, min(width, 120), 3)
    for query in range(3):
        sums = sum(row[query][everything[:, slot]] for slot, row in enumerate(logits))
        order = np.argsort(-sums)[: tuples.shape[1]]
        np.testing.assert_array_equal(tuples[query], everything[order])
        np.testing.assert_allclose(scores[query], sums[order], rtol=1e-5)


def test_logits_of_one_vocabulary_may_be_one_array():
    logits = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
    parts = best_tuples(tuple(logits.swapaxes(0, 1)), 9)
    np.testing.assert_array_equal(best_tuples(jnp.asarray(logits), 9)[0], parts[0])


def test_items_of_tuples():
    sizes = (6, 5)
    codes = catalog(np.random.default_rng(2), 12, sizes)
    tuples = np.array(list(itertools.product(*map(range, sizes)))).reshape(6, 5, 2)
    expected = [
        [next((item for item in range(1, 13) if tuple(codes[item]) == (a, b)), 0) for b in range(5)] for a in range(6)
    ]
    np.testing.assert_array_equal(items_of(tuples, codes, sizes), expected)
    with pytest.raises(InputError, match="more tuples"):
        items_of(tuples, codes, (2**40, 2**40))
