"""Infilling by counts: popularity, and transitions from the events before a gap or from those on both sides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.gapped import Gapped, backwards, links, prefixes_of
from recjax.data.transitions import Transitions, item_counts, target_ranks
from recjax.evaluate.filling import Filled, by_surprise

BLOCK = 512
"""Queries at a time: their scores of all items are in memory."""

Scores = Callable[[Histories, Histories], np.ndarray]
"""Events before a gap, and those behind it from the last to the nearest -> float64 [n, v]."""


def counted(task: Gapped, train: Histories, n_items: int) -> dict[str, Filled]:
    """Floor -> its answers.

    Args:
        task: what is asked.
        train: histories to count in.
        n_items: catalog size.
    """
    train = train.compact()
    forth, back = Transitions.fit(train, n_items), Transitions.fit(backwards(train), n_items)
    popularity = item_counts(np.asarray(train.items), n_items).astype(np.float64)
    rows, place = task.owner, task.gaps.astype(np.int64)
    behind = backwards(task.kept)
    before, after = prefixes_of(task.kept, rows, place), prefixes_of(behind, rows, task.kept.lengths[rows] - place)

    def asked(score: Scores) -> np.ndarray:
        """Ranks in the gaps, the items of the window aside."""
        return _ranked(score, before, after, task.targets, prefixes_of(task.kept, rows, task.kept.lengths[rows]))

    return {
        "popularity": Filled(asked(lambda before, _: np.tile(popularity, (len(before), 1))), None, None),
        "transition_left": by_surprise(
            asked(lambda before, _: forth.scores(before)), task, *(_surprise(x, forth) for x in (task.kept, task.whole))
        ),
        "transition_both": by_surprise(
            asked(lambda before, after: forth.scores(before) + back.scores(after)),
            task,
            *(_surprise(x, forth) + _backward_surprise(x, back) for x in (task.kept, task.whole)),
        ),
    }


def _surprise(windows: Histories, counts: Transitions) -> np.ndarray:
    """log rank of each event after those before it."""
    rows, place, targets = links(windows)
    before = prefixes_of(windows, rows, place)
    return np.log(_ranked(lambda before, _: counts.scores(before), before, before, targets, None).astype(float))


def _backward_surprise(windows: Histories, counts: Transitions) -> np.ndarray:
    """log rank of each event before those behind it, of all but the last, in the order of the windows."""
    found = _surprise(backwards(windows), counts)
    rows, place, _ = links(windows)
    sizes = windows.lengths[rows] - 1
    first = np.arange(len(rows)) - (place - 1)
    return found[first + sizes - place]


def _ranked(
    score: Scores, before: Histories, after: Histories, targets: np.ndarray, seen: Histories | None
) -> np.ndarray:
    """int64 [n], rank of each target, the items of `seen` aside."""
    found = []
    for first in range(0, len(targets), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(targets)))
        scores = score(before.take(rows), after.take(rows))
        known = (seen or before).take(rows)
        found.append(target_ranks(scores, known, targets[rows], mask_seen=seen is not None))
    return np.concatenate(found)
