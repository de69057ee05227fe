"""Groups of users whose figures are reported apart.

| slice  | users whose target ...                                                                      |
|--------|---------------------------------------------------------------------------------------------|
| novel  | does not stand in their history                                                             |
| repeat | stands in their history (with `mask_seen="history"` a miss, since masking removes it)       |
| cold   | occurs in no training event                                                                 |
| head   | is one of the fifth of the items with the most training events (ties: smaller id); items    |
|        | that have no event at all are not counted                                                   |
| tail   | is one of the other four fifths, cold items included                                        |
"""

import numpy as np

from recjax.data.batches.histories import shared
from recjax.data.splits import Examples
from recjax.data.transitions import head_items

SLICES = ("novel", "repeat", "cold", "head", "tail")


def slices(examples: Examples, counts: np.ndarray, unseen: int = 0) -> dict[str, np.ndarray]:
    """Name of each slice -> bool [n], whether each example belongs to it.

    Args:
        examples: histories and targets.
        counts: int [v], training events of each item.
        unseen: items without any event.
    """
    repeat, head = examples.repeats(), head_items(counts, unseen=unseen)[examples.targets]
    return {
        "novel": ~repeat,
        "repeat": repeat,
        "cold": counts[examples.targets] == 0,
        "head": head,
        "tail": ~head,
    }


def gap_slices(examples: Examples) -> dict[str, np.ndarray]:
    """Name of each half -> bool [n]: users whose mean time between two events is up to the median, or above it.

    Users of one event have no such time and belong to neither.
    """
    histories = examples.histories
    several = histories.lengths > 1
    starts, stops = histories.starts[several], histories.stops[several]
    means = np.zeros(len(examples))
    first, last = (shared(histories.timestamps, places) for places in (starts, stops - 1))
    means[several] = (last - first) / (stops - starts - 1)
    above = means > (np.median(means[several]) if several.any() else 0.0)
    return {"short_gaps": several & ~above, "long_gaps": several & above}
