"""Whitening: decorrelated and rotated back; similarities against a singular value decomposition."""

import numpy as np
import pytest

from recjax.text.whiten import apply, fit, whitened
from recjax.typing import InputError

RNG = np.random.default_rng(0)
KNOWN = RNG.random(400) < 0.9
VECTORS = (RNG.normal(size=(400, 6)) @ RNG.normal(size=(6, 6)) * [9, 3, 1, 1, 0.3, 0.1] + 2).astype(np.float32)


def test_similarities_are_those_of_scaled_singular_directions():
    rows = VECTORS[KNOWN].astype(np.float64)
    centred = rows - rows.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    deviation = singular / np.sqrt(len(centred))
    expected = centred @ directions.T / (deviation + 0.03 * deviation[0])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = whitened(np.where(KNOWN[:, None], VECTORS, 0), KNOWN)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[KNOWN] @ found[KNOWN].T, expected @ expected.T, atol=1e-5)
    assert not found[~KNOWN].any()


def test_axes_are_those_of_the_encoder():
    found = fit(VECTORS, KNOWN, shrinkage=0.0)
    np.testing.assert_allclose(found.axes, found.axes.T, atol=1e-9)
    assert np.linalg.eigvalsh(found.axes).min() > 0  # symmetric and positive: stretched, never turned
    white = (VECTORS[KNOWN].astype(np.float64) - found.mean) @ found.axes
    np.testing.assert_allclose(white.T @ white / KNOWN.sum(), np.eye(6), atol=1e-6)


def test_unknown_rows_do_not_count_and_new_rows_can_follow():
    spoilt = np.where(KNOWN[:, None], VECTORS, np.nan)
    np.testing.assert_array_equal(whitened(spoilt, KNOWN), whitened(VECTORS, KNOWN))
    found = fit(VECTORS[:300], KNOWN[:300])
    np.testing.assert_allclose(apply(found, VECTORS, KNOWN)[:300], whitened(VECTORS[:300], KNOWN[:300]), atol=1e-6)


def test_degenerate_catalogs_stay_finite():
    assert not whitened(VECTORS, np.zeros(400, bool)).any()
    assert not whitened(np.ones((5, 3), np.float32), np.ones(5, bool)).any()
    flat = np.zeros((50, 4), np.float32)
    flat[:, 0] = np.arange(50)
    assert np.isfinite(whitened(flat, np.ones(50, bool), 0.0)).all()


def test_bad_vectors():
    with pytest.raises(InputError, match="1 text vectors are not finite, the first in row 2"):
        fit(np.where(np.arange(4)[:, None] == 2, np.inf, np.ones((4, 3))), np.ones(4, bool))
    with pytest.raises(InputError, match="expected"):
        fit(VECTORS, KNOWN[:5])
