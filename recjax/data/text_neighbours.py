"""The nearest items of each item, and where its text points, from similarities made a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from recjax.data.transitions import best_of_rows
from recjax.late import sparse

CHUNK_SCORES = 2**20
"""Similarities held at a time (8 MB), but at least those of `FEWEST_ROWS` items."""

FEWEST_ROWS = 32
"""Of a chunk: in large catalogs few of the pairs have a similarity, and each chunk costs something."""

NEIGHBOURS = 100
"""Items that a text points to."""


def nearest(
    similarities: Callable[[np.ndarray], sparse.csr_array], rows: np.ndarray, size: int, k: int
) -> sparse.csr_array:
    """The k largest positive similarities of items to others, float64 [size, size] sparse; equal ones go by id.

    Args:
        similarities: items, int64 [r] -> similarity of each to all items, float [r, size] sparse; that of an item to
            itself does not count.
        rows: int64 [m], which items; the rows of others are empty.
        size: items, padding included.
        k: neighbours an item, at most.
    """
    step = max(FEWEST_ROWS, CHUNK_SCORES // size)
    parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        found = similarities(chunk)
        row, column, value = np.repeat(chunk, np.diff(found.indptr)), found.indices, found.data.astype(np.float64)
        value[row == column] = 0.0
        near = (value > 0) & (value >= np.repeat(kth_largest(value, found.indptr, k), np.diff(found.indptr)))
        row, column, value = row[near], column[near], value[near]
        best = best_of_rows(row, column, value, k)
        parts.append((value[best], row[best], column[best]))
    values, row, column = (np.concatenate(each) for each in zip(*parts, strict=True))
    return sparse.csr_array((values, (row, column)), shape=(size, size))


def kth_largest(values: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """float64 [r]: the k-th largest value of each row, below which nothing need be sorted; 0 for shorter rows."""
    rows = [values[first:stop] for first, stop in pairwise(starts)]
    return np.array([np.partition(row, -k)[-k] if len(row) > k else 0.0 for row in rows])


def text_prior(
    vectors: np.ndarray | sparse.csr_array, items: np.ndarray | None = None, neighbours: int = NEIGHBOURS
) -> sparse.csr_array:
    """Prior of each text: squared cosines with the nearest texts, divided by their sum; float64 [v, v] sparse.

    Args:
        vectors: float [v, d], dense or sparse, rows of length 1, or zeros where an item has no text.
        items: int64 [m], those that will be asked for; all by default.
        neighbours: of each item; of equally near ones the first.

    Returns:
        Rows that sum to 1, or are empty where no other text is near at all.
    """
    size = len(vectors) if isinstance(vectors, np.ndarray) else len(vectors.indptr) - 1
    rows = np.arange(size) if items is None else items
    found = nearest(_cosines(vectors, neighbours), rows, size, neighbours)
    found.data **= 2
    return scaled(found, found.sum(axis=1))


def _cosines(vectors: Any, neighbours: int) -> Callable[[np.ndarray], sparse.csr_array]:
    """Items -> their cosines with all; of dense vectors only those that can be among the nearest."""
    if sparse.issparse(vectors):
        columns = sparse.csr_array(vectors.T)
        return lambda rows: sparse.csr_array(vectors[rows] @ columns)

    def nearest_of_all(rows: np.ndarray) -> sparse.csr_array:
        found = vectors[rows] @ vectors.T
        place = max(found.shape[1] - neighbours - 1, 0)  # one more, as an item is its own nearest
        found[found < np.partition(found, place, axis=1)[:, [place]]] = 0.0
        return sparse.csr_array(found)

    return nearest_of_all


def scaled(matrix: sparse.csr_array, sums: np.ndarray) -> sparse.csr_array:
    """The rows of a matrix divided by `sums` [v]; rows whose sum is 0 stay as they are."""
    return sparse.csr_array(sparse.diags_array(1.0 / np.where(sums > 0, sums, 1.0)) @ matrix)
