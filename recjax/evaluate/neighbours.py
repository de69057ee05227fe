"""The nearest items of each item, from similarities that are made a chunk of rows at a time."""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from recjax.evaluate.scored import CHUNK_SCORES, top_items


def nearest(similarities: Callable[[np.ndarray], np.ndarray], size: int, k: int) -> sparse.csr_array:
    """The k largest positive similarities of each item to others, float64 [size, size] sparse.

    Equal similarities go by id. Item 0 (padding) and an item itself are nobody's neighbours.

    Args:
        similarities: rows, int64 [r] -> similarity of these items to all, float [r, size], a fresh array.
        size: items, padding included.
        k: neighbours an item, at most.
    """
    step = max(1, CHUNK_SCORES // size)
    chunks = []
    for start in range(0, size, step):
        rows = np.arange(start, min(start + step, size))
        found = similarities(rows).astype(np.float64)
        found[np.arange(len(rows)), rows] = 0.0
        found[:, 0] = 0.0
        found[found <= 0] = -np.inf
        ids = top_items(found, k)
        values = np.where(ids > 0, np.take_along_axis(found, ids, axis=1), 0.0)
        row, place = np.nonzero(ids)
        chunks.append(sparse.csr_array((values[row, place], (row, ids[row, place])), shape=(len(rows), size)))
    return sparse.csr_array(sparse.vstack(chunks))
