"""Questions: which one is asked, what an answer leaves, and that asking well needs fewer of them."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from recjax.evaluate.questions import Asker, Asking, Attributes, Dialogue, rehearsed, updated
from recjax.typing import InputError
from tests.evaluate import toy

ITEMS, USERS, BITS = 64, 300, 6
RANDOM = np.random.default_rng(0)
CATALOG = pl.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)], "title": [f"thing {n}" for n in range(ITEMS)]})


def attributes(rows) -> Attributes:
    holds = np.concatenate([np.zeros((len(rows), 1), bool), np.asarray(rows, bool)], axis=1)
    return Attributes(CATALOG, [f"q{number}" for number in range(len(rows))], holds)


BINARY = attributes([(np.arange(ITEMS) >> bit) % 2 for bit in range(BITS)] + [np.arange(ITEMS) == n for n in range(9)])
"""Six questions that halve any set of all items, and nine that tell one item from the others."""


def known_users(wrong=0.0):
    """Beliefs of users, and targets that are drawn from them."""
    beliefs = RANDOM.dirichlet(np.full(ITEMS, 0.3), USERS)
    targets = np.array([RANDOM.choice(ITEMS, p=belief) for belief in beliefs]) + 1
    return np.concatenate([np.zeros((USERS, 1)), beliefs], axis=1), targets


def asker(asking: Asking, questions=BINARY) -> tuple[Asker, np.ndarray, np.ndarray]:
    beliefs, targets = known_users()
    half = USERS // 2
    return Asker.calibrated_on(beliefs[:half], targets[:half], questions, asking), beliefs[half:], targets[half:]


@pytest.mark.parametrize("choice", ["set", "entropy"])
def test_the_question_that_halves_the_set_comes_first(choice):
    found, *_ = asker(Asking(0.9, choice))
    belief = np.full(ITEMS + 1, 1 / ITEMS)
    belief[0] = 0
    assert found.next_question(belief, np.ones(15, bool), 0) < BITS
    decided = np.where(BINARY.holds[2], belief * 2, 0)  # the answer to the third is known
    assert found.next_question(decided, np.arange(15) == 2, 1) is None


@pytest.mark.parametrize("wrong", [0.0, 0.05])
def test_chosen_questions_are_fewer_than_random_ones_at_the_coverage_stated(wrong):
    found, beliefs, targets = asker(Asking(0.8, enough=3, wrong=wrong))
    chosen, anyhow = (rehearsed(found, beliefs, targets, choice) for choice in ("set", "random"))
    assert chosen["questions"].mean() < 0.75 * anyhow["questions"].mean()
    assert min(chosen["covers"].mean(), anyhow["covers"].mean()) > 0.8 - 0.12  # three standard errors
    assert (chosen["size"] <= chosen["first"]).mean() > 0.95


def test_a_dialogue_ends_with_a_small_set_of_what_agrees():
    found, beliefs, _ = asker(Asking(0.8, enough=2))
    talk = Dialogue(found, beliefs[0])
    first = talk.text
    talk.answer(None)
    assert talk.text != first and not talk.answered
    while (question := talk.question) is not None:
        talk.answer(True)
        assert BINARY.holds[question, talk.items].all()
    assert len(talk.items) <= 2 or not talk.answered
    assert talk.table.columns == ["rank", "item_id", "title", "probability"]
    with pytest.raises(InputError, match="no question"):
        talk.answer(True)


def test_an_answer_that_nothing_agrees_with_changes_nothing():
    belief = np.array([0.0, 0.4, 0.6])
    assert updated(belief, np.array([False, False, False]), True, 0.0).tolist() == belief.tolist()


def test_values_of_cells_that_are_lists_paths_or_titles():
    data = toy.dataset()
    half = data.n_items // 2
    paths = ["a|b"] * half + ["a|c d"] * (data.n_items - half - 1) + [None]
    lists = [["x", "y"] if row < 5 else ["x"] for row in range(data.n_items)]
    data = dataclasses.replace(
        data, catalog=data.catalog.with_columns(pl.Series("categories", paths), pl.Series("tags", lists))
    )
    found = Attributes.of(data)
    assert found.texts == ["categories: b", "categories: c d", "categories: a"]
    assert found.holds[0].tolist() == [False] + [True] * half + [False] * (data.n_items - half)
    assert Attributes.of(data, ["tags"]).texts == ["tags: y"]  # every item has x
    assert "title: lamp" in Attributes.of(data, ["title"]).texts
    assert len(Attributes.of(data, ["title"], most=3).texts) == 3
    with pytest.raises(InputError, match="no catalog column 'colour'; it has: item_id"):
        Attributes.of(data, ["colour"])
    same = dataclasses.replace(data, catalog=data.catalog.with_columns(brand=pl.lit("one")))
    with pytest.raises(InputError, match="nothing to ask about"):
        Attributes.of(same, ["brand"])
