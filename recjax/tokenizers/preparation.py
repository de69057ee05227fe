"""Centring and scaling of item vectors before they are quantised.

A quantiser that bounds and rounds is sensitive to scale: text vectors have length 1, so each of their hundreds of
coordinates is near 0, and every item falls on the same code. Standardising the input is what makes such a quantiser
work. What is learned is part of the tokenizer's state, so a catalog that comes later is prepared as the first one was.
"""

from typing import Literal, get_args

import numpy as np

from recjax.typing import InputError

Preparation = Literal["standardise", "whiten", "none"]

SHRINKAGE = 0.03
"""Whitening adds this share of the largest deviation to every deviation, so that noise is not blown up."""

Prepare = dict[str, np.ndarray]
"""`mean` float32 [d] and `matrix` float32 [d, d]: a vector v becomes (v - mean) @ matrix."""


def check_enough(known: np.ndarray, clusters: int) -> None:
    """Raises InputError where fewer items have a vector (`known` bool [n + 1]) than a codebook has entries."""
    if (count := int(known[1:].sum())) < clusters:
        raise InputError(
            f"{count:,} items have a vector, fewer than tokenizer.clusters = {clusters}; "
            "lower that, or use a larger catalog"
        )


def fit_preparation(vectors: np.ndarray, kind: Preparation, seed: int = 0) -> Prepare:
    """Transformation of vectors [n, d], fitted on items that are known.

    Args:
        vectors: of the items with text only.
        kind: "standardise" rotates at random and scales each coordinate to deviation 1: the rotation spreads what
            vectors say evenly over sub-vectors, and leaves no coordinate without variance. "whiten" scales the
            principal directions to nearly equal deviation and keeps the encoder's axes (ZCA). "none" does nothing.
        seed: of the rotation.
    """
    if kind not in get_args(Preparation):
        raise InputError(f"prepare is {kind!r}, expected one of: {', '.join(get_args(Preparation))}")
    width = vectors.shape[1]
    if kind == "none":
        return {"mean": np.zeros(width, np.float32), "matrix": np.eye(width, dtype=np.float32)}
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = _covariance(vectors, mean)
    if kind == "standardise":
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
        deviation = np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", rotation, covariance, rotation, optimize=True), 0.0))
        matrix = rotation * _inverse(deviation)
    else:
        variance, directions = np.linalg.eigh(covariance)
        deviation = np.sqrt(np.maximum(variance, 0.0))
        matrix = (directions * _inverse(deviation + SHRINKAGE * deviation.max())) @ directions.T
        spread = np.einsum("ij,ik,kj->", matrix, covariance, matrix, optimize=True) / width
        matrix = matrix * _inverse(np.sqrt(spread))
    return {"mean": mean.astype(np.float32), "matrix": matrix.astype(np.float32)}


def prepared(state: Prepare, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Prepared vectors, float32 [n, d]; zeros, the mean of a catalog, where an item is not known."""
    return np.where(known[:, None], (vectors - state["mean"]) @ state["matrix"], np.float32(0)).astype(np.float32)


def _covariance(vectors: np.ndarray, mean: np.ndarray, rows: int = 65_536) -> np.ndarray:
    """float64 [d, d]; by blocks, so that no float64 copy of all vectors is made."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows] - mean
        total += block.T @ block
    return total / max(len(vectors), 1)


def _inverse(x: np.ndarray) -> np.ndarray:
    """1 / x, and 0 where a direction has no variance."""
    tiny = 1e-9 * max(float(np.max(x)), 1e-30)
    return np.where(x > tiny, 1.0 / np.maximum(x, tiny), 0.0)
