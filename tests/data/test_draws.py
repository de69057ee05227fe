import numpy as np

from recjax.data.batches.hash_random import draw, permutation, threshold


def test_the_stream_of_a_seed_never_changes():
    # These numbers are what training runs of earlier versions saw.
    assert [hex(word) for word in draw(0, 0, np.arange(2))] == ["0x238275bc38fcbe91", "0x2f32a78496c67c60"]
    assert [hex(word) for word in draw(7, 3, np.arange(2))] == ["0x9c1b0b5b3e06cf11", "0x10490351134c1271"]
    assert permutation(10, 0, 0).tolist() == [0, 9, 1, 6, 3, 5, 4, 2, 8, 7]


def test_counters_broadcast_and_order_matters():
    grid = draw(1, np.arange(3)[:, None], np.arange(4)[None])
    assert grid.shape == (3, 4)
    assert grid[2, 1] == draw(1, 2, 1)[0] != draw(1, 1, 2)[0]
    assert len(np.unique(grid)) == 12


def test_draws_are_uniform_and_independent_across_neighbouring_counters():
    uniform = draw(3, np.arange(300)[:, None], np.arange(300)[None]) / 2.0**64
    counts = np.histogram(uniform, bins=50, range=(0, 1))[0]
    expected = uniform.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < 90  # chi-square, 49 degrees: p = 0.0003
    for other in (uniform[1:], uniform[:, 1:]):
        mine = uniform[: other.shape[0], : other.shape[1]]
        assert abs(np.corrcoef(mine.ravel(), other.ravel())[0, 1]) < 0.02


def test_permutation_is_one_and_depends_on_the_seed():
    assert sorted(permutation(1000, 5, 2)) == list(range(1000))
    assert (permutation(1000, 5, 2) != permutation(1000, 5, 3)).mean() > 0.9


def test_threshold_is_the_probability():
    drawn = draw(0, np.arange(100_000))
    for probability in (0.01, 0.2, 0.9):
        assert abs((drawn < threshold(probability)).mean() - probability) < 0.005
    assert (drawn < threshold(1.0)).all()
