import gzip

import numpy as np
import pytest

from recjax.data.batches.packing import pack, plan
from recjax.typing import InputError


def contents(packed):
    """Members of each row."""
    return np.split(packed.members, packed.offsets[1:-1])


def best_fit_decreasing(lengths, row_length):
    """Rows that the textbook algorithm needs, one history at a time."""
    spaces = []
    for length in sorted(lengths, reverse=True):
        fits = [place for place, space in enumerate(spaces) if space >= length]
        if fits:
            spaces[min(fits, key=lambda place: spaces[place])] -= length
        else:
            spaces.append(row_length - length)
    return len(spaces)


@pytest.mark.parametrize("seed", range(8))
def test_every_history_once_no_row_overfull_and_as_tight_as_best_fit(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 31, rng.integers(1, 400))
    packed = plan(lengths, 30, seed=seed)
    assert sorted(packed.members) == np.flatnonzero(lengths).tolist()
    assert all(0 < lengths[row].sum() <= 30 for row in contents(packed))
    assert packed.rows == best_fit_decreasing(lengths[lengths > 0], 30)


def test_a_plan_is_a_function_of_seed_and_epoch_and_shuffles():
    lengths = np.random.default_rng(0).integers(1, 20, 500)
    first, again = plan(lengths, 20, seed=1, epoch=4), plan(lengths, 20, seed=1, epoch=4)
    assert (first.members == again.members).all() and (first.offsets == again.offsets).all()
    for other in (plan(lengths, 20, seed=2, epoch=4), plan(lengths, 20, seed=1, epoch=5)):
        assert other.rows == first.rows
        assert (other.members != first.members).mean() > 0.8
        together = {frozenset(row) for row in contents(first) if len(row) > 1}
        assert len(together & {frozenset(row) for row in contents(other)}) < len(together) / 2


def test_rows_of_long_and_of_short_histories_are_mixed():
    lengths = np.repeat([19, 4], [1000, 5000])  # a thousand rows of each kind
    packed = plan(lengths, 20)
    half = packed.offsets[packed.rows // 2]
    assert (lengths[packed.members[:half]] == 19).sum() == pytest.approx(500, abs=60)


def test_packing_says_how_much_is_padding():
    packing = pack(np.array([10, 6, 4, 3, 0]), 10)
    assert (packing.rows, packing.tokens) == (3, 23)
    assert packing.padding == pytest.approx(7 / 30)


def test_nothing_to_pack():
    assert plan(np.zeros(3, int), 10).rows == 0
    assert plan(np.zeros(0, int), 10).rows == 0


def test_a_history_longer_than_a_row_is_an_error():
    with pytest.raises(InputError, match="12 tokens, more than row_length = 10"):
        pack(np.array([3, 12]), 10)


@pytest.mark.parametrize(
    ("name", "max_length"), [("ml-1m", 200), ("amazon-beauty-2014", 50), ("amazon-sports-2014", 50)]
)
def test_padding_is_under_three_percent_on_real_lengths(uniform_data, name, max_length):
    with gzip.open(uniform_data / name / "interactions.csv.gz", "rt") as lines:
        next(lines)
        users = np.array([line.split(",", 1)[0] for line in lines])
    events = np.unique(users, return_counts=True)[1]
    shifted = np.clip(events - 3, 0, max_length)  # leave-one-out training, next-item targets
    cloze = np.minimum(events - 2, max_length)
    assert pack(shifted, max_length).padding < 0.01
    assert pack(cloze, max_length).padding < 0.03
