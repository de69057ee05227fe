"""The nearest items of each item, from similarities that are made a chunk of rows at a time."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy import sparse

from recjax.data.transitions import best_of_rows
from recjax.evaluate.host_ranking import CHUNK_SCORES

FEWEST_ROWS = 32
"""Of a chunk: in large catalogs few of the pairs have a similarity, and each chunk costs something."""


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
        near = (value > 0) & (value >= np.repeat(_largest(value, found.indptr, k), np.diff(found.indptr)))
        row, column, value = row[near], column[near], value[near]
        best = best_of_rows(row, column, value, k)
        parts.append((value[best], row[best], column[best]))
    values, row, column = (np.concatenate(each) for each in zip(*parts, strict=True))
    return sparse.csr_array((values, (row, column)), shape=(size, size))


def _largest(values: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """float64 [r]: the k-th largest value of each row, below which nothing need be sorted; 0 for shorter rows."""
    rows = [values[first:stop] for first, stop in pairwise(starts)]
    return np.array([np.partition(row, -k)[-k] if len(row) > k else 0.0 for row in rows])
