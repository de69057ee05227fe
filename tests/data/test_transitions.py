"""Transition counts against a slow reference, ranks against sorting, and the published floor."""

import numpy as np
import pytest

from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.data.store.prepared import find
from recjax.data.transitions import Transitions, item_counts, target_ranks, transition_counts
from tests.data.samples import random_logs


def reference_counts(histories, n_items):
    counts = np.zeros((n_items + 1, n_items + 1))
    for row in range(len(histories)):
        history = histories.history(row)
        for place, first in enumerate(history):
            for gap in (1, 2, 3):
                if place + gap < len(history) and history[place + gap] != first:
                    counts[first, history[place + gap]] += 0.5 ** (gap - 1)
                    counts[history[place + gap], first] += 0.5 ** (gap - 1) / 2
    return counts


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_scores_equal_the_formula(seed):
    dataset = build(random_logs(seed))
    split = LeaveOneOut().split(dataset)
    counts = reference_counts(split.train, dataset.n_items)
    np.testing.assert_allclose(transition_counts(split.train, dataset.n_items).toarray(), counts)
    popularity = item_counts(split.test.histories.items, dataset.n_items)
    found = Transitions.fit(split.train, dataset.n_items, popularity).scores(split.test.histories)
    sums, trained = counts.sum(1, keepdims=True), item_counts(split.train.items, dataset.n_items)
    weights = counts / np.sqrt(np.where(sums > 0, sums, 1)) / (trained + 1) ** 0.25
    for row in range(len(split.test)):
        recent = split.test.histories.history(row)[::-1][:5]
        expected = sum(0.5**age * weights[item] for age, item in enumerate(recent)) + 1e-7 * popularity
        np.testing.assert_allclose(found[row, 1:], expected[1:], atol=1e-12)
    assert np.all(np.isneginf(found[:, 0]))


def test_ranks_equal_sorting_with_ties_by_id():
    dataset = build(random_logs(4))
    test = LeaveOneOut().split(dataset).test
    scores = np.random.default_rng(0).integers(0, 4, (len(test), dataset.n_items + 1)).astype(float)
    scores[:, 0] = -np.inf
    for mask in (True, False):
        ranks = target_ranks(scores.copy(), test.histories, test.targets, mask_seen=mask)
        for row, target in enumerate(test.targets):
            seen = set(test.histories.history(row)) - {target} if mask else set()
            listed = [item for item in range(1, dataset.n_items + 1) if item not in seen]
            listed.sort(key=lambda item: (-scores[row, item], item))
            assert ranks[row] == 1 + listed.index(target)


def test_constant_scores_earn_only_what_their_ids_give():
    dataset = build(random_logs(4))
    test = LeaveOneOut().split(dataset).test
    ranks = target_ranks(np.zeros((len(test), dataset.n_items + 1)), test.histories, test.targets, mask_seen=False)
    np.testing.assert_array_equal(ranks, test.targets + 1)  # padding scores like the rest here, and comes first


@pytest.mark.parametrize(
    ("name", "ndcg", "hr"),
    [
        ("ml-1m", 0.1465, 0.2526),
        ("ml-100k", 0.1063, 0.1951),
        ("amazon-beauty-2014", 0.0516, 0.0807),
    ],
)
def test_published_floor(uniform_data, tmp_path, monkeypatch, name, ndcg, hr):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))
    dataset = find(str(uniform_data / name))
    split = LeaveOneOut().split(dataset)
    model = Transitions.fit(split.train, dataset.n_items, item_counts(split.test.histories.items, dataset.n_items))
    ranks = []
    for rows in np.array_split(np.arange(len(split.test)), -(-len(split.test) // 512)):
        part = split.test.take(rows)
        ranks.append(target_ranks(model.scores(part.histories), part.histories, part.targets))
    ranks = np.concatenate(ranks)
    hits = ranks <= 10
    assert hits.mean() == pytest.approx(hr, abs=5e-4)
    assert np.where(hits, 1 / np.log2(ranks + 1), 0).mean() == pytest.approx(ndcg, abs=5e-4)
