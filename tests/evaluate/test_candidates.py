"""Sampled competitors: who may be drawn, and how often."""

import numpy as np

from recjax.evaluate.candidates import sample
from tests.evaluate import toy

DATA = toy.dataset(users=40, items=150)
EXAMPLES = toy.split(DATA).test
COUNTS = np.bincount(toy.split(DATA).train.items, minlength=DATA.n_items + 1)


def test_no_repeats_no_history_no_target_no_padding():
    for kind in ("uniform", "popularity"):
        drawn = sample(kind, EXAMPLES, COUNTS, seed=0)
        np.testing.assert_array_equal(drawn, sample(kind, EXAMPLES, COUNTS, seed=0))
        for row, items in enumerate(drawn):
            items = items[items > 0]
            assert len(np.unique(items)) == len(items)
            assert not set(items) & {*EXAMPLES.histories.history(row), EXAMPLES.targets[row]}
            if kind == "popularity":
                assert (COUNTS[items] > 0).all()
            else:
                open_ = DATA.n_items - len({*EXAMPLES.histories.history(row), EXAMPLES.targets[row]})
                assert len(items) == min(100, open_)


def test_draws_follow_the_weights():
    counts = np.array([0] + [1] * 300 + [50] * 30)
    popular = sample("popularity", EXAMPLES, counts, seed=0)
    uniform = sample("uniform", EXAMPLES, counts, seed=0)
    assert (popular > 300).sum() > 25 * len(EXAMPLES)  # nearly all of the 30 popular ones
    assert 5 * len(EXAMPLES) < (uniform > 300).sum() < 14 * len(EXAMPLES)  # about 100 x 30 / 330


def test_a_catalog_smaller_than_the_sample_is_padded():
    counts = np.array([0] + [1] * 60)
    data = toy.dataset(users=20, items=50)
    drawn = sample("uniform", toy.split(data).test, counts[: data.n_items + 1], seed=0)
    assert drawn.shape == (20, 100) and not drawn[:, data.n_items :].any()
