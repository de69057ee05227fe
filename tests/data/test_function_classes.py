"""Functions that a history alone defines: a solver finds them, lookup does not, and a view asks for the answers."""

import itertools

import numpy as np
import pytest

from recjax.data.batches.derived import Every
from recjax.data.batches.loader import Loader
from recjax.data.batches.views import Shifted
from recjax.data.embedded.function_classes import TASKS, Functions, function_classes
from recjax.data.embedded.generate import NAMES
from recjax.data.prepare.build import build
from recjax.data.splits import ByUser
from recjax.typing import InputError


def pairs(name: str, task: Functions) -> list[np.ndarray]:
    """int64 [pairs, 2] of each user: x and y."""
    logs = function_classes(name, task=task)
    assert logs.interactions.equals(function_classes(name, task=task).interactions)
    rows = logs.interactions.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    assert all("".join(symbol[0] for symbol in row) == "xy" * (len(row) // 2) for row in rows)
    return [np.array([int(symbol[1:]) for symbol in row]).reshape(-1, 2) for row in rows]


def lookup(user: np.ndarray) -> int | None:
    """The y that came last with the x of the last pair."""
    found = np.flatnonzero(user[:-1, 0] == user[-1, 0])
    return int(user[found[-1], 1]) if len(found) else None


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_solver_knows_the_answer_after_as_many_independent_pairs_as_there_are_coefficients(window):
    task = Functions("linear", count=150, fewest=8, most=12, symbols=7, window=window)
    every = np.array(list(itertools.product(range(7), repeat=window)))
    unseen, hits = 0, []
    for user in pairs(f"window-{window}", task):
        x = np.pad(user[:, 0], (window - 1, 0))
        windows = np.stack([x[window - 1 - back : len(x) - back] for back in range(window)])
        agree = (every @ windows % 7 == user[:, 1])[:, :-1].all(axis=1)
        answers = set((every[agree] @ windows[:, -1] % 7).tolist())
        assert user[-1, 1] in answers
        hits.append(len(answers) == 1)
        unseen += lookup(user) is None
    assert np.mean(hits) > 0.97 and unseen > 20
    if window > 1:  # the x alone does not say it
        known = [found == user[-1, 1] for user in pairs("window-2", task) if (found := lookup(user)) is not None]
        assert np.mean(known) < 0.4


def test_permutations_are_looked_up_and_random_labels_are_not():
    task = Functions("permutation", count=400, fewest=8, most=20, symbols=8)
    users = pairs("permutations", task)
    assert all(found == user[-1, 1] for user in users if (found := lookup(user)) is not None)
    assert {len(user) for user in users} == set(range(8, 21))
    # A y that stands in the history is one whose x does.
    assert all((lookup(user) is not None) == (user[-1, 1] in user[:-1, 1]) for user in users)
    labels = pairs("random-labels", Functions("none", count=400, fewest=8, most=20, symbols=8))
    assert np.mean([lookup(user) == user[-1, 1] for user in labels if lookup(user) is not None]) < 0.25


def test_a_view_asks_for_the_answers_alone():
    dataset = build(function_classes("window-1", task=Functions("linear", count=60, fewest=2, most=6, symbols=5)))
    answers = np.flatnonzero([id.startswith("y") for id in dataset.item_ids])
    for packed in (True, False):
        view = Every(Shifted(max_length=11))
        batch = Loader(ByUser().split(dataset).train, view, 8, 24, 0, dataset.n_items, packed=packed).host_batch(0)
        np.testing.assert_array_equal(batch.weights > 0, np.isin(batch.targets, answers))
        assert (batch.weights > 0).any()


def test_what_cannot_be_made_is_refused():
    with pytest.raises(InputError, match="no embedded task named 'windows'"):
        function_classes("windows")
    with pytest.raises(InputError, match="fewest <= most"):
        function_classes("window-1", task=Functions("linear", fewest=9, most=5))
    with pytest.raises(InputError, match="step is 0"):
        Every(step=0)
    assert set(TASKS) <= set(NAMES)
