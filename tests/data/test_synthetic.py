"""The embedded datasets: determinism, shape, and that text and order say something, but not all."""

import numpy as np
import pytest

from recjax.data.embedded.synthetic import NAMES, synthetic
from recjax.data.prepare.audit import audit
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut
from recjax.data.transitions import Transitions, item_counts, target_ranks
from recjax.typing import InputError


@pytest.fixture(scope="module")
def dataset():
    return build(synthetic())


@pytest.fixture(scope="module")
def split(dataset):
    return LeaveOneOut().split(dataset)


def ndcg(scores, examples):
    ranks = target_ranks(scores, examples.histories, examples.targets)
    return float(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean())


def test_same_arguments_same_bits():
    first, second, other = (build(synthetic(seed=seed, users=50)).fingerprint for seed in (3, 3, 4))
    assert first == second != other


def test_the_quickstarts_data_stay_what_they_are(dataset):
    # A constant on purpose: the documented figures of the quickstart belong to these bits.
    assert dataset.fingerprint == "99182a8e90e87e2fb59037c42aaca47f9262bbdc9e604be17f9a8d1d764b0396"


@pytest.mark.parametrize("name", NAMES)
def test_every_domain_has_text_and_its_own_items(name):
    raw = synthetic(name, users=50)
    assert raw.name == name
    assert raw.catalog["item_id"].n_unique() == raw.catalog.height == 600
    assert raw.catalog["title"].null_count() == 0
    assert raw.catalog["title"].n_unique() > 0.9 * raw.catalog.height
    assert 0 < raw.catalog["description"].null_count() < 0.2 * raw.catalog.height
    assert set(raw.interactions["item_id"]) <= set(raw.catalog["item_id"])
    if name != "synthetic":
        assert not set(raw.catalog["item_id"]) & set(synthetic(users=1).catalog["item_id"])


def test_size_and_histories(dataset):
    lengths = np.diff(dataset.offsets)
    assert dataset.n_users == 4_000 and 580 <= dataset.n_items <= 600
    assert lengths.min() >= 5 and lengths.max() <= 100 and 12 < lengths.mean() < 30
    for user in range(0, dataset.n_users, 500):
        events = slice(dataset.offsets[user], dataset.offsets[user + 1])
        assert np.all(np.diff(dataset.timestamps[events]) >= 0)


def test_it_has_some_of_every_difficulty_and_not_much(dataset, split):
    found = audit(dataset, split)
    assert 0.02 < found.tied_events < 0.1
    assert 0.01 < found.repeat_targets < 0.15
    assert found.cold_targets < 0.02
    assert found.order_real > 1.3 * found.order_shuffled


def test_text_tells_more_than_chance_and_less_than_transitions(dataset, split):
    texts = [" ".join(str(cell or "") for cell in row[1:]) for row in dataset.catalog.rows()]
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import, for all workers

    vectors = TfidfVectorizer().fit_transform(texts)
    alike = np.zeros((dataset.n_items + 1, dataset.n_items + 1))
    alike[1:, 1:] = (vectors @ vectors.T).toarray()
    np.fill_diagonal(alike, 0)
    test = split.test.take(np.arange(0, len(split.test), 4))
    last = test.histories.take(np.arange(len(test)), last=3)
    row = np.repeat(np.arange(len(test)), last.lengths)
    near = np.zeros((len(test), dataset.n_items + 1))
    np.add.at(near, row, alike[last.items])
    near[:, 0] = -np.inf
    counts = item_counts(split.test.histories.items, dataset.n_items)
    popular = np.tile(counts.astype(float), (len(test), 1))
    transition = Transitions.fit(split.train, dataset.n_items, counts).scores(test.histories)
    by_text, by_popularity, by_transition = (ndcg(scores, test) for scores in (near, popular, transition))
    assert 1.3 * by_popularity < by_text < 0.7 * by_transition


def test_bad_arguments():
    with pytest.raises(InputError, match="no embedded dataset named 'synthetic-z'"):
        synthetic("synthetic-z")
    with pytest.raises(InputError, match="at least 1 user and 96 items"):
        synthetic(items=10)
