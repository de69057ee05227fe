"""EASE^R: the linear item-item model of least squares without self-similarity, in closed form (Steck, WWW 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recjax.data.splits import Histories
from recjax.data.transitions import user_items
from recjax.late import lapack
from recjax.typing import InputError

PENALTY = 500.0
"""λ of the paper on ML-20M."""

MOST_ITEMS = 20_000
"""Its matrix [items, items] in float32 then takes 1.6 GB, and the inverse some minutes of a core."""


def check_size(n_items: int) -> None:
    """Refuses catalogs whose matrix would not fit.

    Raises:
        InputError: more than `MOST_ITEMS` items.
    """
    if n_items > MOST_ITEMS:
        raise InputError(
            f"baseline ease inverts a matrix of items x items: {n_items:,} items are too many (at most {MOST_ITEMS:,})"
        )


@dataclass(frozen=True, eq=False)
class Ease:
    """Item-item weights B that minimise ||X - XB||² + λ ||B||² with a diagonal of zeros.

    Attributes:
        weights: float32 [v, v], B.
    """

    weights: np.ndarray

    @classmethod
    def fit(cls, train: Histories, n_items: int, *, penalty: float = PENALTY) -> Ease:
        """P = (XᵀX + λI)⁻¹, B_ab = -P_ab / P_bb, B_bb = 0.

        Args:
            train: training histories; X is 1 where a user had an item.
            n_items: size of the catalog.
            penalty: λ.

        Raises:
            InputError: the catalog has too many items.
        """
        check_size(n_items)
        users = user_items(train, n_items)
        gram = (users.T @ users).toarray().astype(np.float32, order="F")
        gram[np.diag_indices_from(gram)] += penalty
        factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)  # pyright: ignore[reportAttributeAccessIssue]
        if not failed:
            gram, failed = lapack.spotri(factor, lower=1, overwrite_c=1)  # pyright: ignore[reportAttributeAccessIssue]
        if failed:
            raise InputError(f"baseline ease: penalty {penalty} leaves the matrix of {n_items:,} items singular")
        weights = gram.T  # in rows, as the product with histories wants it; symmetric, but LAPACK filled one half only
        for row in range(1, len(weights)):
            weights[row, :row] = weights[:row, row]
        weights /= -np.diag(weights).copy()
        weights[np.diag_indices_from(weights)] = 0.0
        return cls(weights)

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 [n, v]: sum of the weights from the items of the history."""
        users = user_items(histories, len(self.weights) - 1).astype(np.float32)
        return (users @ self.weights).astype(np.float64)
