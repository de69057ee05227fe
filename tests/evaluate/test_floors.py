"""The floors: published figures on real data, and slow references on a toy."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from recjax.data.importers import read
from recjax.data.prepare.build import build
from recjax.data.splits import GlobalTime, LeaveOneOut, few_shot
from recjax.data.text_neighbours import text_prior
from recjax.evaluate.floors import TextNeighbours, catalog_words, events_before, rank_floors, recency
from recjax.evaluate.host_ranking import Rules, rank_scored
from recjax.evaluate.metrics import MISS, mean_metrics
from recjax.evaluate.text_transition import TextTransitions
from recjax.text.whiten import whitened
from tests.evaluate import toy

# Popularity, then the transition floor: HR@10 and NDCG@10, full ranking, leave-one-out, history masked.
PUBLISHED = {
    "ml-1m": ((0.0364, 0.0179), (0.2526, 0.1465)),
    "amazon-beauty-2014": ((0.0135, 0.0061), (0.0807, 0.0517)),
    "online-retail": ((0.0219, 0.0121), (0.2193, 0.1567)),
}


def ranked(data, mask_seen=True, vectors=None):
    split = LeaveOneOut().split(data)
    return rank_floors(data, split, "test", split.test, Rules(mask_seen), vectors=vectors)


@cache
def opened(folder: Path):
    data = build(read(folder))
    return data, LeaveOneOut().split(data)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(uniform_data: Path, name: str):
    data, split = opened(uniform_data / name)
    found = rank_floors(data, split, "test", split.test, Rules(k=0), only=("popularity", "transition"))
    for floor, figures, tolerance in zip(("popularity", "transition"), PUBLISHED[name], (8e-4, 5e-4), strict=True):
        metrics = mean_metrics(found[floor].ranks)
        assert (metrics["hr@10"], metrics["ndcg@10"]) == pytest.approx(figures, abs=tolerance), floor


@pytest.mark.parametrize("name", ["amazon-beauty-2014"])
def test_smoothed_transitions_reach_what_was_measured_apart(uniform_data: Path, name: str):
    data, split = opened(uniform_data / name)
    prior = text_prior(catalog_words(data))
    for strength, figures in ((0.0, (0.0796, 0.0506)), (32.0, (0.1102, 0.0680))):
        model = TextTransitions.fit(split.train, data.n_items, prior, strength=strength, popular=0.0)
        metrics = mean_metrics(rank_scored(model.scores, split.test, data.n_items, Rules(k=0)).ranks)
        assert (metrics["hr@10"], metrics["ndcg@10"]) == pytest.approx(figures, abs=3e-4), strength


def test_transition_floor_equals_the_definition_written_out():
    data = toy.dataset()
    split = toy.split(data)
    size = data.n_items + 1
    counts = np.zeros((size, size))
    for user in range(len(split.train)):
        items = split.train.history(user)
        for gap in (1, 2, 3):
            for a, b in zip(items[:-gap], items[gap:], strict=True):
                if a != b:
                    counts[a, b] += 0.5 ** (gap - 1)
                    counts[b, a] += 0.5 ** (gap - 1) / 2
    trained = np.bincount(split.train.items, minlength=size)
    popular = trained + np.bincount(split.validation.targets, minlength=size)
    sums = counts.sum(axis=1, keepdims=True)
    weights = counts / np.sqrt(np.where(sums > 0, sums, 1)) * (trained + 1.0) ** -0.25
    found = ranked(data)["transition"].ranks
    for row, target in enumerate(split.test.targets):
        history = split.test.histories.history(row)
        scores = 1e-7 * popular
        for age, item in enumerate(history[::-1][:5]):
            scores = scores + 0.5**age * weights[item]
        open_ = np.setdiff1d(np.arange(1, size), history)
        # The sums are made in another order, so the last bits of equal scores differ.
        scores = np.round(scores, 12)
        ahead = sum(scores[i] > scores[target] or (scores[i] == scores[target] and i < target) for i in open_)
        assert found[row] == (MISS if target in history else 1 + ahead)


def test_popularity_counts_everything_before_the_test():
    split = toy.split(toy.dataset())
    everything = np.concatenate([split.train.items, split.validation.targets])
    np.testing.assert_array_equal(
        events_before(split, "test", toy.ITEMS), np.bincount(everything, minlength=toy.ITEMS + 1)
    )
    np.testing.assert_array_equal(
        events_before(split, "validation", toy.ITEMS), np.bincount(split.train.items, minlength=toy.ITEMS + 1)
    )


def test_popularity_counts_every_event_before_a_test_in_time():
    data = toy.dataset()
    cuts = np.quantile(data.timestamps, [0.5, 0.75], method="higher").astype(int).tolist()
    split = GlobalTime(*cuts).split(data)
    before = data.items[data.timestamps < cuts[1]]
    assert len(before) > len(split.train.items) + len(split.validation)
    np.testing.assert_array_equal(events_before(split, "test", toy.ITEMS), np.bincount(before, minlength=toy.ITEMS + 1))
    few = few_shot(split, 0.2)
    owner = np.repeat(np.arange(data.n_users), np.diff(data.offsets))
    before = data.items[(data.timestamps < cuts[1]) & np.isin(owner, few.train.users)]
    np.testing.assert_array_equal(events_before(few, "test", toy.ITEMS), np.bincount(before, minlength=toy.ITEMS + 1))


def test_repeat_last_lists_the_history_from_its_end_or_nothing():
    data = toy.dataset()
    examples = toy.split(data).test
    lists = ranked(data, mask_seen=False)["repeat_last"].lists
    for row, items in enumerate(lists):
        newest_first = list(dict.fromkeys(examples.histories.history(row)[::-1].tolist()))
        assert items[items > 0].tolist() == newest_first[:20]
    masked = ranked(data)["repeat_last"]
    assert (masked.ranks == MISS).all() and not masked.lists.any()
    assert recency(examples.histories, data.n_items).max() == examples.histories.lengths.max()


def test_text_floor_recommends_what_reads_alike():
    vectors = np.zeros((7, 3))
    vectors[1:] = [[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1], [0, 0, 1], [0, 0.1, 1]]
    white = whitened(vectors, vectors.any(axis=1))
    similar = white @ white.T
    np.fill_diagonal(similar, -np.inf)
    assert similar[1:, 1:].argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4]


def test_text_floor_weights_the_last_ten_items():
    data = toy.dataset()
    histories = toy.split(data).test.histories
    vectors = np.random.default_rng(0).normal(size=(data.n_items + 1, 4)).astype(np.float32)
    found = TextNeighbours(vectors).scores(histories)
    for row in range(len(histories)):
        recent = histories.history(row)[::-1][:10]
        profile = sum(0.5**age * vectors[item] for age, item in enumerate(recent))
        np.testing.assert_allclose(found[row], vectors @ profile, rtol=1e-4, atol=1e-4)


def test_a_catalog_without_text_has_no_text_floor():
    data = toy.dataset()
    bare = type(data)(**{**data.__dict__, "catalog": data.catalog.select("item_id")})
    assert ranked(bare)["text_knn"] is None
    assert ranked(data)["text_knn"] is not None
