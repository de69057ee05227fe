"""Small histories whose items say where they come from."""

import numpy as np

from recjax.data.splits import Histories


def histories(lengths) -> Histories:
    """Histories of the given lengths; items are 1, 2, ... over all of them, so that no two events are alike."""
    lengths = np.asarray(lengths, np.int64)
    items = np.arange(1, lengths.sum() + 1, dtype=np.int32)
    return Histories.concatenated(lengths, items, items.astype(np.int64) + 1000, np.arange(len(lengths)) + 7)


def samples(batch) -> list[tuple[np.ndarray, ...]]:
    """(items, positions, targets, weights) of every sample of a packed batch, checking that each is contiguous."""
    found = []
    for row in range(len(batch.items)):
        segments = np.asarray(batch.segments[row])
        for segment in range(1, segments.max() + 1):
            (columns,) = np.nonzero(segments == segment)
            assert len(columns) == columns[-1] - columns[0] + 1
            arrays = (batch.items, batch.positions, batch.targets, batch.weights)
            found.append(tuple(np.asarray(array)[row, columns] for array in arrays))
    return found
