"""Collision policies and diagnostics against brute force."""

import itertools

import numpy as np
import pytest

from recjax.tokenizers.collisions import TRIES, resolve
from recjax.tokenizers.diagnostics import diagnose, groups_of
from recjax.tokenizers.fsq import FSQ, cheapest
from recjax.typing import InputError

SIZES = (4, 3)
CODES = np.array([[0, 0], [1, 1], [1, 1], [2, 0], [1, 1], [3, 2], [2, 0]])  # items 1, 2, 4 and 3, 6 collide
KNOWN = np.array([False] + [True] * 6)


def everything(items, codes=CODES):
    """All tuples for each item, from its own one onwards."""
    tuples = list(itertools.product(*map(range, SIZES)))
    return [iter(sorted(tuples, key=lambda row: np.abs(codes[item] - row).sum())) for item in items]


def test_diagnostics_of_a_small_catalog():
    groups = np.array([0, 1, 1, 2, 3, 4, 2])  # items 1 and 2 have one text, 3 and 6 another
    found = diagnose(CODES, SIZES, groups, KNOWN)
    assert (found.items, found.distinct, found.largest_bucket) == (6, 3, 3)
    assert (found.colliding, found.beyond_identical, found.identical_texts) == (5, 3, 4)
    assert (found.sizes, found.used) == ((4, 3), (3, 3))
    shares = [np.array([3, 2, 1]) / 6] * 2
    np.testing.assert_allclose(found.perplexity, [np.exp(-(p * np.log(p)).sum()) for p in shares])
    assert found.to_json()["used"] == [3, 3]
    assert ("items in a collision", "5 (83.33%)") in found.rows()


def test_groups_of_texts_and_of_vectors():
    for equal in (["a", "b", "a", None, ""], np.array([[0, 0], [1, 2], [3, 4], [1, 2], [0, 0], [-0.0, 0]])):
        groups = groups_of(equal)
        assert groups[0] == 0 and (groups[1:] > 0).all()
        assert (groups[1] == groups[3]) and (groups[4] == groups[5]) and len(set(groups[1:].tolist())) == 3


def test_none_changes_nothing():
    found = resolve(CODES, SIZES, "none", KNOWN, everything)
    np.testing.assert_array_equal(found.codes, CODES)
    assert found.sizes == SIZES and found.moved == 0


def test_suffix_numbers_the_items_of_a_tuple():
    found = resolve(CODES, SIZES, "suffix", KNOWN, everything)
    np.testing.assert_array_equal(found.codes[:, :2], CODES)
    assert found.codes[:, 2].tolist() == [0, 0, 1, 0, 2, 0, 1]
    assert found.sizes == (4, 3, 4)
    full = np.array([[0]] + [[1]] * 4)
    assert resolve(full, (2,), "suffix", np.arange(5) > 0, everything).sizes == (2, 8)  # room for a fifth


def test_suffixes_rank_by_popularity():
    found = resolve(CODES, SIZES, "suffix", KNOWN, everything, np.array([99, 2, 5, 1, 5, 0, 3]))
    by_id = resolve(CODES, SIZES, "suffix", KNOWN, everything)
    np.testing.assert_array_equal(found.codes[:, :2], CODES)
    assert by_id.codes[:, 2].tolist() == [0, 0, 1, 0, 2, 0, 1]
    assert found.codes[:, 2].tolist() == [0, 2, 0, 1, 1, 0, 0] and found.sizes == by_id.sizes  # 2 before 4: ties by id


def test_random_codes_are_distinct_and_say_nothing_of_the_text():
    found = resolve(CODES, SIZES, "random", KNOWN, everything)
    other = resolve(CODES[::-1].copy(), SIZES, "random", KNOWN, everything)
    np.testing.assert_array_equal(found.codes[1:], other.codes[1:])
    assert len({tuple(row) for row in found.codes[1:].tolist()}) == 6 and (found.codes < SIZES).all()
    assert found.moved == int((found.codes[1:] != CODES[1:]).any(axis=1).sum()) > 0 and found.sizes == SIZES


def test_nearest_free_moves_the_later_items_least():
    found = resolve(CODES, SIZES, "nearest-free", KNOWN, everything)
    assert found.moved == 3 and found.sizes == SIZES
    np.testing.assert_array_equal(found.codes[[1, 3, 5]], CODES[[1, 3, 5]])  # the first of each tuple stay
    assert diagnose(found.codes, SIZES).colliding == 0
    taken = {tuple(row) for row in CODES[1:].tolist()}
    for item in (2, 4, 6):  # in this order each has gone as near as was free
        free = set(itertools.product(range(4), range(3))) - taken
        row = tuple(found.codes[item].tolist())
        distances = {other: np.abs(CODES[item] - other).sum() for other in free}
        assert distances[row] == min(distances.values())
        taken.add(row)


def test_a_collapsed_tokenizer_is_still_resolved():
    """All items on one tuple, each with its own list: beyond the first tries they share one."""
    codes, sizes = np.zeros((401, 2), np.int32), (40, 30)
    looked = [0]

    def candidates(items):
        def counted():
            for row in itertools.product(range(40), range(30)):
                looked[0] += 1
                yield row

        return [counted() for _ in items]

    found = resolve(codes, sizes, "nearest-free", np.arange(401) > 0, candidates)
    assert diagnose(found.codes, sizes).colliding == 0
    assert looked[0] <= 400 * TRIES + 401


@pytest.mark.parametrize("policy", ["suffix", "nearest-free"])
def test_items_without_text_get_tuples_of_their_own(policy):
    codes, known = np.zeros((9, 2), np.int32), np.arange(9) % 2 == 1
    found = resolve(codes, SIZES, policy, known, lambda items: everything(items, codes))
    assert len(np.unique(found.codes[1:], axis=0)) == 8 and not found.codes[0].any()
    text = {tuple(row) for row in found.codes[known][:, :2].tolist()}
    assert not text & {tuple(row) for row in found.codes[2::2, :2].tolist()}
    again = resolve(codes, SIZES, policy, known, lambda items: everything(items, codes))
    np.testing.assert_array_equal(found.codes, again.codes)


def test_more_items_than_tuples():
    codes = np.zeros((6, 2), np.int32)
    with pytest.raises(InputError, match=r"5 items cannot have different codes: 2 slots of sizes 2, 2 make 4 tuples"):
        resolve(codes, (2, 2), "nearest-free", np.arange(6) > 0, everything)
    with pytest.raises(InputError, match="'drop', expected one of: none, suffix, nearest-free"):
        resolve(codes, (2, 2), "drop", np.arange(6) > 0, everything)  # type: ignore[arg-type]


def test_cheapest_choices_are_all_and_in_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        options = []
        for size in rng.integers(1, 5, 4):
            costs = np.sort(rng.choice([0.0, 0.25, 0.5, 1.5, 2.0, 3.25], size))
            options.append([(float(cost - costs[0]), int(value)) for value, cost in enumerate(costs)])
        found = list(cheapest(options))
        sums = [sum(options[place][value][0] for place, value in enumerate(row)) for row in found]
        assert sums == sorted(sums)
        assert sorted(found) == sorted(itertools.product(*(range(len(ways)) for ways in options)))


def test_fsq_candidates_go_outwards_from_the_activations():
    tokenizer = FSQ(slots=2, levels=(3, 2), heads=1)
    coordinates = np.array([[1.3, 0.4], [0.1, 0.9]])

    def distance(row):
        digits = np.array([[code % 3, code // 3] for code in row])
        return (((digits - coordinates) / [1, 1]) ** 2).sum()

    found = list(tokenizer._tuples(coordinates))
    assert found[0] == (1, 3) and len(set(found)) == 36
    distances = [distance(row) for row in found]
    np.testing.assert_allclose(distances, sorted(distances), atol=1e-12)


def test_an_item_without_text_shares_a_tuple_where_a_suffix_tells_them_apart_and_none_is_free():
    every = np.array([(0, 0), *itertools.product(*map(range, SIZES)), (0, 0), (0, 0)])
    known = np.array([False] + [True] * 12 + [False] * 2)
    found = resolve(every, SIZES, "suffix", known, everything)
    assert found.sizes == (4, 3, 4)
    assert len({tuple(row) for row in found.codes[1:].tolist()}) == 14
