"""Evidence that grows event by event: the counts of a log and one more event, without counting the log again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.features.evidence import TOGETHER, together_counts
from recjax.data.transitions import GAPS, item_counts, transition_counts
from recjax.late import sparse
from recjax.typing import InputError

Changes = dict[int, dict[int, float]]
"""Row -> column -> what has been added to it."""


class EventCounts:
    """Counts of transitions, of items had together and of events, equal to those of the whole log at any time.

    An event costs the few pairs that it makes with its user's last 50. Memory is that of the counts, and 200 bytes a
    user.

    Args:
        histories: the log so far, a history a user.
        n_items: catalog size; ids are 1..n_items.
    """

    def __init__(self, histories: Histories, n_items: int):
        self.n_items = n_items
        self.events = item_counts(np.asarray(histories.compact().items), n_items)
        self._transitions = transition_counts(histories, n_items, backward=0.0)
        self._together = together_counts(histories, n_items)
        self._more: Changes = defaultdict(lambda: defaultdict(float))
        self._more_together: Changes = defaultdict(lambda: defaultdict(float))
        recent = histories.take(np.arange(len(histories)), last=TOGETHER)
        self._recent = {int(user): np.asarray(recent.history(row)) for row, user in enumerate(recent.users)}

    def add(self, user: int, item: int) -> None:
        """Counts one more event of a user, known or new, after all events of that user so far.

        Raises:
            InputError: there is no such item.
        """
        if not 1 <= item <= self.n_items:
            raise InputError(f"there is no item {item}, expected 1 to {self.n_items}")
        before = self._recent.get(user, np.zeros(0, np.int32))
        for weight, earlier in zip(GAPS, before[::-1].tolist(), strict=False):
            if earlier != item:
                self._more[earlier][item] += weight
        after = np.append(before, np.int32(item))[-TOGETHER:]
        had, has = set(before.tolist()), set(after.tolist())
        for gone in had - has:
            self._pair(gone, had, -1.0)
            had = had - {gone}
        for new in has - had:
            self._pair(new, had | {new}, 1.0)
            had = had | {new}
        self.events[item] += 1
        self._recent[user] = after

    def _pair(self, item: int, others: Iterable[int], change: float) -> None:
        for other in others:
            self._more_together[item][other] += change
            if other != item:
                self._more_together[other][item] += change

    @property
    def transitions(self) -> sparse.csr_array:
        """Counts equal to `transition_counts` of the whole log without its backward share; float64 [v, v] sparse."""
        return _joined(self._transitions, self._more)

    @property
    def together(self) -> sparse.csr_array:
        """Counts equal to `together_counts` of the whole log; float64 [v, v] sparse."""
        return _joined(self._together, self._more_together)

    def following(self, item: int) -> dict[int, float]:
        """Counts of what users had after one item, by item; only that row is read."""
        first, stop = self._transitions.indptr[item : item + 2]
        row = dict(
            zip(
                self._transitions.indices[first:stop].tolist(),
                self._transitions.data[first:stop].tolist(),
                strict=True,
            )
        )
        for other, change in self._more.get(item, {}).items():
            row[other] = row.get(other, 0.0) + change
        return row


def _joined(counts: sparse.csr_array, changes: Changes) -> sparse.csr_array:
    entries = [(row, column, value) for row, found in changes.items() for column, value in found.items()]
    if not entries:
        return counts
    rows, columns, values = (np.array(each) for each in zip(*entries, strict=True))
    found = sparse.csr_array(counts + sparse.csr_array((values, (rows, columns)), shape=counts.shape))
    found.eliminate_zeros()
    return found
