"""Concatenated index ranges: how ragged arrays are gathered and scattered without a loop over their rows."""

import numpy as np


def ranges(starts: np.ndarray | int, lengths: np.ndarray) -> np.ndarray:
    """int64 [lengths.sum()]: `starts[i], starts[i] + 1, ...`, `lengths[i]` of them for each i, one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def exclusive_sum(lengths: np.ndarray) -> np.ndarray:
    """int64 [n + 1]: 0 and the running sums, i.e. the offsets of a ragged array with rows of `lengths`."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
