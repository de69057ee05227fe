"""An order of catalogs by their texts: its score in closed form, and the same whatever they are called."""

from itertools import permutations

import numpy as np
import pytest

from recjax.text.catalog_order import advised_order, distances, order_score, relative, spread
from recjax.typing import InputError


def clouds() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    centres = np.eye(6)[[0, 1, 2, 2]] + 0.2 * np.eye(6)[3]
    noise = random.normal(size=(4, 200, 6)) * np.array([0.1, 0.5, 0.3, 0.9])[:, None, None]
    found = list(centres[:, None] + noise)
    return [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in found]


def test_distances_and_spread_say_what_they_should():
    one = clouds()[0]
    assert spread(np.tile(one[:1], (9, 1))) == pytest.approx(0.0, abs=1e-6)
    assert spread(one) < spread(clouds()[2]) < spread(clouds()[3])
    between = distances([one, one[::-1], one + 3.0])
    assert between[0, 1] == pytest.approx(0.0, abs=1e-12) and between[0, 2] == pytest.approx(between[2, 0])
    assert between[0, 2] > 1.0


def test_the_score_of_three_catalogs_is_its_closed_form():
    random = np.random.default_rng(1)
    d, s = random.random((3, 3)), random.random(3)
    np.fill_diagonal(d, 0.0)
    for a, b, c in permutations(range(3)):
        expected = 1 - s[a] + (1 - d[a, c]) + d[a, b] + (1 - max(d[b, a], d[b, c])) + d[b, c]
        assert order_score([a, b, c], d, s) == pytest.approx(expected)


def advised(catalogs: list[np.ndarray]) -> list[int]:
    return advised_order(relative(distances(catalogs)), [spread(vectors) for vectors in catalogs])


def test_names_do_not_matter():
    catalogs = clouds()
    best = advised(catalogs)
    moved = [2, 0, 3, 1]
    assert [moved[place] for place in advised([catalogs[place] for place in moved])] == best
    assert sorted(best) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="8 catalogs were given"):
        advised(catalogs * 2)
