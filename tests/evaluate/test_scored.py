"""Ranking of dense host scores against sorting everything."""

import numpy as np
import pytest

from recjax.evaluate.host_ranking import GROUP, Rules, rank_scored, target_ranks, top_items
from recjax.evaluate.metrics import MISS
from tests.evaluate import toy


@pytest.mark.parametrize("levels", [1, 3, 10_000])
@pytest.mark.parametrize("size", [7, 20 * GROUP + 5, 100 * GROUP])
def test_lists_equal_a_full_sort(size, levels):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, levels, (6, size)).astype(float)
    scores[:, 0] = -np.inf
    scores[0, 2:] = -np.inf
    scores[1] = -np.inf
    expected = np.zeros((6, 10), int)
    for row, values in zip(expected, scores, strict=True):
        order = [item for item in np.lexsort((np.arange(size), -values)) if values[item] > -np.inf][:10]
        row[: len(order)] = order
    np.testing.assert_array_equal(top_items(scores, 10), expected)


def test_ranks_equal_a_full_sort():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (50, 40)).astype(float)
    targets = rng.integers(0, 40, 50)
    order = [np.lexsort((np.arange(40), -row)).tolist() for row in scores]
    expected = [row.index(target) + 1 for row, target in zip(order, targets, strict=True)]
    np.testing.assert_array_equal(target_ranks(scores, scores[np.arange(50), targets], targets), expected)


def test_small_chunks_change_nothing(monkeypatch):
    data = toy.dataset()
    examples = toy.split(data).test
    rng = np.random.default_rng(0)
    table = rng.integers(0, 4, (toy.USERS, toy.ITEMS + 1)).astype(float)

    def score(histories):
        return table[histories.users]

    whole = rank_scored(score, examples, data.n_items, Rules())
    monkeypatch.setattr("recjax.evaluate.host_ranking.CHUNK_SCORES", 100)
    parts = rank_scored(score, examples, data.n_items, Rules())
    np.testing.assert_array_equal(whole.ranks, parts.ranks)
    np.testing.assert_array_equal(whole.lists, parts.lists)
    assert (whole.ranks == MISS).sum() > 5  # repeats


def test_what_is_not_recommended_is_a_miss():
    data = toy.dataset()
    examples = toy.split(data).test
    none = rank_scored(lambda h: np.full((len(h), data.n_items + 1), -np.inf), examples, data.n_items, Rules(False))
    assert (none.ranks == MISS).all() and not none.lists.any()
