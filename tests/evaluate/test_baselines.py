"""Baselines that learn in seconds, against slow references; their ranks follow the rules of all others."""

import numpy as np
import pytest

from recjax.evaluate.ease import MOST_ITEMS, Ease
from recjax.evaluate.floors import check_baselines, rank_floors, scorers
from recjax.evaluate.host_ranking import Rules, rank_scored
from recjax.evaluate.item_knn import ItemNeighbours
from recjax.evaluate.metrics import MISS
from recjax.evaluate.protocol import Evaluate
from recjax.evaluate.session_knn import SessionNeighbours
from recjax.typing import InputError
from tests.evaluate import toy

DATA = toy.dataset()
SPLIT = toy.split(DATA)
HISTORIES = SPLIT.test.histories
SIZE = DATA.n_items + 1


def matrix(histories) -> np.ndarray:
    """float64 [n, v]: 1 where a history has an item."""
    found = np.zeros((len(histories), SIZE))
    for row in range(len(histories)):
        found[row, histories.history(row)] = 1
    return found


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(50, 100.0), (4, 0.0)])
def test_item_neighbours_equal_the_definition_written_out(neighbours, shrinkage):
    users = matrix(SPLIT.train)
    similarity = np.zeros((SIZE, SIZE))
    for item in range(1, SIZE):
        values = np.zeros(SIZE)
        for other in range(1, SIZE):
            together = users[:, item] @ users[:, other]
            if other != item and together:
                values[other] = together / (np.sqrt(users[:, item].sum() * users[:, other].sum()) + shrinkage)
        near = np.argsort(-values, kind="stable")[:neighbours]
        similarity[near, item] = values[near]
    found = ItemNeighbours.fit(SPLIT.train, DATA.n_items, neighbours=neighbours, shrinkage=shrinkage).scores(HISTORIES)
    np.testing.assert_allclose(found, matrix(HISTORIES) @ similarity, atol=1e-12)


@pytest.mark.parametrize("penalty", [500.0, 3.0])
def test_ease_is_the_closed_form(penalty):
    users = matrix(SPLIT.train)
    inverse = np.linalg.inv(users.T @ users + penalty * np.eye(SIZE))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    found = Ease.fit(SPLIT.train, DATA.n_items, penalty=penalty).scores(HISTORIES)
    np.testing.assert_allclose(found, matrix(HISTORIES) @ weights, atol=1e-5)


@pytest.mark.parametrize(("neighbours", "sample"), [(100, 1000), (5, 1000), (3, 8)])
def test_session_neighbours_equal_the_definition_written_out(neighbours, sample):
    found = SessionNeighbours.fit(SPLIT.train, DATA.n_items, neighbours=neighbours, sample=sample).scores(HISTORIES)
    train = SPLIT.train
    times = [train.timestamps[stop - 1] for stop in train.stops]
    latest_first = sorted(range(len(train)), key=lambda user: (-times[user], -user))
    sessions = {user: set(train.history(user).tolist()) for user in latest_first if len(train.history(user))}
    for row in range(len(HISTORIES)):
        history = HISTORIES.history(row).tolist()
        weight = {item: place + 1 for place, item in enumerate(history)}
        others = [user for user in sessions if train.users[user] != HISTORIES.users[row]]
        recent = [user for user in others if sessions[user] & set(history)][:sample]
        similar = {user: sum(weight[i] for i in sessions[user] & set(history)) for user in recent}
        near = sorted(recent, key=lambda user: (-similar[user], latest_first.index(user)))[:neighbours]
        expected = np.zeros(SIZE)
        for user in near:
            steps = next(step for step, item in enumerate(history[::-1], start=1) if item in sessions[user])
            expected[list(sessions[user])] += similar[user] / len(history) / len(weight) / steps
        np.testing.assert_allclose(found[row], expected, atol=1e-9)


@pytest.mark.parametrize("name", ["item_knn", "ease", "session_knn", "text_transition"])
def test_ranks_follow_the_rules_of_all_others(name):
    scores = scorers(DATA, SPLIT, "test")[name]()(HISTORIES)
    found = rank_floors(DATA, SPLIT, "test", SPLIT.test, Rules(), only=(name,))[name]
    for row, target in enumerate(SPLIT.test.targets):
        history = HISTORIES.history(row)
        left = [item for item in np.lexsort((np.arange(SIZE), -scores[row])) if item and item not in history]
        assert found.ranks[row] == (MISS if target in history else left.index(target) + 1)
        assert found.lists[row].tolist() == (left + [0] * 20)[:20]


def test_constant_scores_earn_nothing_beyond_the_order_of_ids():
    """Nobody shares an item with anybody here, so that all items tie."""
    alone = SPLIT.train.take(np.zeros(0, int))
    scores = [model.fit(alone, DATA.n_items).scores for model in (ItemNeighbours, Ease, SessionNeighbours)]
    for score in scores:
        ranks = rank_scored(score, SPLIT.test, DATA.n_items, Rules(mask_seen=False)).ranks
        np.testing.assert_array_equal(ranks, SPLIT.test.targets)


def test_what_cannot_be_fitted_is_refused_at_once():
    with pytest.raises(
        InputError, match=r"Evaluate\.baselines is \('item_knn', 'als'\), expected some of item_knn, ease"
    ):
        Evaluate(baselines=("item_knn", "als"))
    check_baselines(("ease",), MOST_ITEMS)
    with pytest.raises(InputError, match=r"20,001 items are too many"):
        check_baselines(("ease",), MOST_ITEMS + 1)
    check_baselines(("item_knn",), MOST_ITEMS + 1)
