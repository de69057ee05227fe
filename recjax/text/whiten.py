"""Whitening of text vectors: all directions count alike, and coordinates mean the same in every catalog."""

from dataclasses import dataclass

import numpy as np

from recjax.typing import InputError

SHRINKAGE = 0.03
"""Part of the largest deviation added to every direction's before dividing, so that noise directions stay small."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """The affine map that whitens the vectors of one catalog, and those of items that come later.

    Attributes:
        mean: float64 [d], of the rows it was fitted on.
        axes: float64 [d, d], symmetric: divides each singular direction and rotates back.
    """

    mean: np.ndarray
    axes: np.ndarray


def fit(vectors: np.ndarray, known: np.ndarray, shrinkage: float = SHRINKAGE) -> Whitening:
    """The whitening of a catalog's vectors.

    Singular directions are divided by (deviation + shrinkage x the largest) and rotated back to the encoder's own axes
    (ZCA; Bell & Sejnowski 1997), so that catalogs which are whitened apart still share their coordinates.

    Args:
        vectors: float [n, d].
        known: bool [n], rows that have a text; the others do not count.
        shrinkage: see above; 0 makes all directions equal.

    Raises:
        InputError: shapes do not fit, or a known row is not finite.
    """
    rows = _checked(vectors, known)[known]
    width = vectors.shape[1]
    if not len(rows):
        return Whitening(np.zeros(width), np.eye(width))
    mean = rows.mean(axis=0)
    rows = rows - mean
    # Eigenvectors of the d x d second moment are the right singular vectors, without a decomposition of n rows.
    variance, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    deviation = np.sqrt(np.maximum(variance, 0.0))
    # A direction in which nothing varies but rounding stays what it is, instead of blowing up when shrinkage is 0.
    floor = deviation.max() * 1e-7
    scale = np.where(deviation > floor, deviation, 0.0) + shrinkage * deviation.max()
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    return Whitening(mean, (directions * inverse) @ directions.T)


def apply(whitening: Whitening, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whitened vectors, float32 [n, d]: known rows of length 1, the others zeros.

    A known row that is the mean itself stays zeros, as it has no direction.
    """
    rows = (_checked(vectors, known)[known] - whitening.mean) @ whitening.axes
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    result = np.zeros(vectors.shape, np.float32)
    result[known] = rows / np.where(length > 0, length, 1.0)
    return result


def whitened(vectors: np.ndarray, known: np.ndarray, shrinkage: float = SHRINKAGE) -> np.ndarray:
    """`fit` and `apply` at once: float32 [n, d]."""
    return apply(fit(vectors, known, shrinkage), vectors, known)


def _checked(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The vectors in float64."""
    if vectors.ndim != 2 or known.shape != (len(vectors),) or known.dtype != np.bool_:
        raise InputError(
            f"whitening got vectors {vectors.shape} and known {known.dtype} {known.shape}, expected [n, d] and bool [n]"
        )
    if not np.isfinite(vectors[known]).all():
        bad = np.flatnonzero(known & ~np.isfinite(vectors).all(axis=1))
        raise InputError(f"{len(bad)} text vectors are not finite, the first in row {bad[0]}")
    return np.asarray(vectors, np.float64)
