"""The floor of smoothed transitions: its formula written out in dense float64, its limits, and what it may not see."""

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from recjax.data.text_neighbours import nearest, text_prior
from recjax.data.transitions import recency_weights, transition_counts
from recjax.evaluate.floors import catalog_words, of_length_one, rank_floors, scorers
from recjax.evaluate.host_ranking import Rules
from recjax.evaluate.text_transition import TextTransitions
from tests.evaluate import toy

DATA = toy.dataset()
SPLIT = toy.split(DATA)
WORDS = catalog_words(DATA)
PRIOR = text_prior(WORDS)
HISTORIES = SPLIT.test.histories


def fitted(**settings) -> TextTransitions:
    return TextTransitions.fit(SPLIT.train, DATA.n_items, PRIOR, **settings)


def dense_counts() -> np.ndarray:
    counts = np.zeros((DATA.n_items + 1, DATA.n_items + 1))
    for row in range(len(SPLIT.train)):
        history = SPLIT.train.history(row)
        for place, item in enumerate(history):
            for gap, weight in ((1, 1.0), (2, 0.5), (3, 0.25)):
                if place + gap < len(history) and history[place + gap] != item:
                    counts[item, history[place + gap]] += weight
    return counts


def test_scores_equal_the_formula_written_out():
    cosine = (WORDS @ WORDS.T).toarray().astype(np.float64)
    np.fill_diagonal(cosine, 0)
    text = cosine**2
    texts = text.sum(axis=1, keepdims=True)
    text /= np.where(texts > 0, texts, 1)
    popularity = np.bincount(SPLIT.train.items, minlength=DATA.n_items + 1) / len(SPLIT.train.items)
    prior = np.where(texts > 0, 0.5 * text + 0.5 * popularity, popularity)
    counts = dense_counts()
    following = (counts + 32 * prior) / (counts.sum(axis=1, keepdims=True) + 32)
    found = scorers(DATA, SPLIT, "test")["text_transition"]()(HISTORIES)
    assert (HISTORIES.lengths > 12).any() and (texts[1:] == 0).any()
    for row in range(len(HISTORIES)):
        recent = HISTORIES.history(row)[::-1][:12]
        expected = sum(0.5**age * following[item] for age, item in enumerate(recent))
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-9)


def test_what_follows_an_item_sums_to_one():
    model = fitted()
    np.testing.assert_allclose(model.weights.sum(axis=1) + model.share, 1.0, rtol=1e-6)


def test_a_strong_prior_is_the_text_and_none_is_counting():
    query = recency_weights(HISTORIES, DATA.n_items + 1, 12)
    np.testing.assert_allclose(
        fitted(strength=1e12, popular=0.0).scores(HISTORIES)[:, 1:],
        ((query @ PRIOR).toarray() + np.outer(query @ (PRIOR.sum(axis=1) == 0), fitted().popularity))[:, 1:],
        atol=1e-9,
    )
    counts = dense_counts()
    sums = counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        fitted(strength=0.0).scores(HISTORIES), query @ (counts / np.where(sums > 0, sums, 1)), atol=1e-12
    )


def test_an_item_without_text_points_to_what_is_popular():
    model = fitted()
    untitled = np.flatnonzero(np.diff(WORDS.indptr) == 0)[1:]
    events = transition_counts(SPLIT.train, DATA.n_items, backward=0.0).sum(axis=1)
    np.testing.assert_allclose(model.share[untitled], 32 / (32 + events[untitled]))
    known = np.flatnonzero(PRIOR.sum(axis=1) > 0)
    np.testing.assert_allclose(model.share[known], 16 / (32 + events[known]))


def test_an_item_that_nobody_has_had_is_found_by_its_text():
    popularity = fitted().popularity
    cold = next(item for item in range(1, DATA.n_items + 1) if popularity[item] == 0 and PRIOR[:, [item]].nnz)
    assert fitted().scores(HISTORIES)[:, cold].max() > 0
    assert not fitted(strength=0.0).scores(HISTORIES)[:, cold].any()


@pytest.mark.parametrize("name", ["text_transition", "item_knn", "ease", "session_knn"])
def test_held_out_events_are_never_counted(name):
    items = DATA.items.copy()
    held_out = np.concatenate([DATA.offsets[1:] - 1, DATA.offsets[1:] - 2])
    items[held_out] = items[held_out] % DATA.n_items + 1
    tampered = dataclasses.replace(DATA, items=items)
    assert (toy.split(tampered).test.targets != SPLIT.test.targets).all()
    first, second = (scorers(data, toy.split(data), "test")[name]()(SPLIT.train) for data in (DATA, tampered))
    np.testing.assert_array_equal(first, second)


def test_a_catalog_without_text_has_no_such_floor():
    bare = dataclasses.replace(DATA, catalog=DATA.catalog.select("item_id"))
    found = rank_floors(bare, SPLIT, "test", SPLIT.test, Rules(), only=("text_knn", "text_transition"))
    assert found == {"text_knn": None, "text_transition": None}


@pytest.mark.parametrize("k", [1, 3, 40])
def test_neighbours_equal_a_full_sort_in_any_chunks(k, monkeypatch):
    rng = np.random.default_rng(0)
    similar = rng.integers(-1, 4, (25, 25)).astype(float)
    expected = np.zeros((25, 25))
    for row in range(1, 25):
        others = [item for item in np.argsort(-similar[row], kind="stable") if item not in (0, row)]
        for item in [item for item in others if similar[row, item] > 0][:k]:
            expected[row, item] = similar[row, item]
    monkeypatch.setattr("recjax.data.text_neighbours.FEWEST_ROWS", 4)
    monkeypatch.setattr("recjax.data.text_neighbours.CHUNK_SCORES", 100)
    similar[0] = similar[:, 0] = 0
    for rows in (np.arange(25), np.array([3, 4, 9]), np.zeros(0, int)):
        found = nearest(lambda rows: sparse.csr_array(similar[rows]), rows, 25, k)
        np.testing.assert_array_equal(found.toarray()[rows], expected[rows])
        assert found.nnz == np.count_nonzero(expected[rows])


@pytest.mark.parametrize("neighbours", [1, 4, 40])
def test_a_prior_of_vectors_equals_that_of_the_same_words(neighbours):
    dense = of_length_one(3.0 * WORDS.toarray())
    expected = text_prior(WORDS, neighbours=40).toarray()
    if neighbours < 40:
        cosine = np.round(dense @ dense.T, 5)
        np.fill_diagonal(cosine, 0)
        expected = np.zeros_like(cosine)
        for row, values in enumerate(cosine):
            near = np.argsort(-values, kind="stable")[:neighbours]
            expected[row, near] = values[near] ** 2 / max((values[near] ** 2).sum(), 1e-9)
    for vectors in (WORDS, dense):
        found = text_prior(vectors, neighbours=neighbours).toarray()
        # Equal cosines differ in their last bits, so only how much each row gives to how many can be compared.
        np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-4)
    some = np.array([2, 5, 7])
    np.testing.assert_array_equal(text_prior(WORDS, some).toarray()[some], text_prior(WORDS).toarray()[some])
