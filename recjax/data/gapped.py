"""Histories some of whose middle events are left out, to be asked for: the task of infilling."""

from dataclasses import dataclass

import numpy as np

from recjax.data.batches.hash_random import draw
from recjax.data.batches.histories import Histories
from recjax.data.ranges import exclusive_sum, ranges

FEWEST, USUAL = 3, 5
"""Events of the shortest window that has a middle, and of the shortest that is drawn where a history has more."""


@dataclass(frozen=True, eq=False)
class Gapped:
    """Windows over the ends of histories, without some of their middle events.

    Attributes:
        kept: what is left of each window.
        whole: the last events of the same histories, as many as are left, none missing.
        rows: int64 [n], which of the histories each window is of.
        owner: int64 [m], window of each event left out, ascending.
        gaps: int32 [m], events of the window before it that are left.
        targets: int32 [m], the event left out.
    """

    kept: Histories
    whole: Histories
    rows: np.ndarray
    owner: np.ndarray
    gaps: np.ndarray
    targets: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """bool [n, most + 1], whether something is missing in a gap; the gap's number counts events before it."""
        found = np.zeros((len(self.kept), int(self.kept.lengths.max(initial=0)) + 1), bool)
        found[self.owner, self.gaps] = True
        return found


def gapped(histories: Histories, most: int, share: float, seed: int) -> Gapped:
    """The task for some histories; those of fewer than three events have no middle and are left out.

    The windows' lengths are drawn, so that a number of events does not say whether some are missing.

    Args:
        histories: of any lengths.
        most: events of the longest window.
        share: of a window's events that are left out, rounded, one at least; never its first and last.
        seed: of the lengths and of the choice.
    """
    rows = np.flatnonzero(histories.lengths >= FEWEST)
    longest = np.minimum(histories.lengths[rows], most)
    least = np.minimum(longest, USUAL)
    sizes = least + (draw(seed, 0, rows) % (longest - least + 1).astype(np.uint64)).astype(np.int64)
    counts = np.clip(np.round(share * sizes).astype(np.int64), 1, sizes - 2)
    window, place = np.repeat(np.arange(len(rows)), sizes), ranges(0, sizes)
    chance = draw(seed, 1, rows[window], place)
    inner = (place > 0) & (place < sizes[window] - 1)
    gone = np.zeros(len(window), bool)
    gone[np.lexsort((chance, ~inner, window))] = place < counts[window]
    stops, left = histories.stops[rows], sizes - counts
    read = ranges(stops - sizes, sizes)
    before = np.cumsum(~gone) - ~gone
    gaps = before - np.repeat(exclusive_sum(left)[:-1], sizes)
    owners, last = histories.users[rows], ranges(stops - left, left)
    kept = read[~gone]
    return Gapped(
        kept=Histories.concatenated(left, histories.items[kept], histories.timestamps[kept], owners),
        whole=Histories.concatenated(left, histories.items[last], histories.timestamps[last], owners),
        rows=rows,
        owner=window[gone],
        gaps=gaps[gone].astype(np.int32),
        targets=histories.items[read[gone]],
    )


def prefixes_of(histories: Histories, rows: np.ndarray, lengths: np.ndarray) -> Histories:
    """The first `lengths` events of some of the histories, as ranges of the same columns."""
    starts = histories.starts[rows]
    return Histories(starts, starts + lengths, histories.items, histories.timestamps, histories.users[rows])


def backwards(histories: Histories) -> Histories:
    """The histories from their last event to their first."""
    lengths = histories.lengths
    read = np.repeat(histories.stops - 1, lengths) - ranges(0, lengths)
    return Histories.concatenated(lengths, histories.items[read], histories.timestamps[read], histories.users)


def links(histories: Histories) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every two neighbours their history, the place of the second in it, and that item; int64, int64, int32 [m]."""
    counts = np.maximum(histories.lengths - 1, 0)
    rows, place = np.repeat(np.arange(len(histories)), counts), ranges(1, counts)
    return rows, place, histories.items[histories.starts[rows] + place]
