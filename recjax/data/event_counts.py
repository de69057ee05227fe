"""Evidence that grows event by event: the counts of a log and one more event, without counting the log again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.features.evidence import FADING, TOGETHER, following_counts, together_counts
from recjax.data.transitions import item_counts
from recjax.late import sparse
from recjax.typing import InputError

Linked = Literal["following", "preceding", "together"]
"""Relation to an item: what users had after it, before it, or with it."""

Changes = dict[int, dict[int, float]]
"""Row -> column -> what has been added to it."""

NOTHING = np.zeros(0, np.int32)


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
        transitions = following_counts(histories, n_items)
        together = together_counts(histories, n_items)
        self._counted: dict[Linked, sparse.csr_array] = {
            "following": transitions,
            "preceding": sparse.csr_array(transitions.T),
            "together": together,
        }
        self._more: dict[Linked, Changes] = {name: defaultdict(lambda: defaultdict(float)) for name in self._counted}
        self._histories = histories

    @cached_property
    def _recent(self) -> dict[int, np.ndarray]:
        """The last events of each user, made for `add` alone: those who know them call `after`."""
        recent = self._histories.take(np.arange(len(self._histories)), last=TOGETHER)
        return {int(user): np.asarray(recent.history(row)) for row, user in enumerate(recent.users)}

    def add(self, user: int, item: int) -> None:
        """Counts one more event of a user, known or new, after all events of that user so far.

        Raises:
            InputError: there is no such item.
        """
        self._recent[user] = self.after(self._recent.get(user, NOTHING), item)

    def after(self, before: np.ndarray, item: int) -> np.ndarray:
        """Counts one more event of a user with the items `before`; gives the user's last 50 after it. Both int32 [m].

        Raises:
            InputError: there is no such item.
        """
        if not 1 <= item <= self.n_items:
            raise InputError(f"there is no item {item}, expected 1 to {self.n_items}")
        for weight, earlier in zip(FADING, before[::-1].tolist(), strict=False):
            if earlier != item:
                self._more["following"][earlier][item] += weight
                self._more["preceding"][item][earlier] += weight
        after = np.append(before, np.int32(item))[-TOGETHER:]
        had, has = set(before.tolist()), set(after.tolist())
        for gone in had - has:
            self._pair(gone, had, -1.0)
            had = had - {gone}
        for new in has - had:
            self._pair(new, had | {new}, 1.0)
            had = had | {new}
        self.events[item] += 1
        return after

    def _pair(self, item: int, others: Iterable[int], change: float) -> None:
        for other in others:
            self._more["together"][item][other] += change
            if other != item:
                self._more["together"][other][item] += change

    @property
    def transitions(self) -> sparse.csr_array:
        """Counts equal to `following_counts` of the whole log; float64 [v, v] sparse."""
        return _joined(self._counted["following"], self._more["following"])

    @property
    def together(self) -> sparse.csr_array:
        """Counts equal to `together_counts` of the whole log; float64 [v, v] sparse."""
        return _joined(self._counted["together"], self._more["together"])

    def following(self, item: int) -> dict[int, float]:
        """Counts of what users had after one item, by item; only that row is read."""
        others, counts = self.row("following", item)
        return dict(zip(others.tolist(), counts.tolist(), strict=True))

    def row(self, name: Linked, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Items with counts beside one item, ascending and without itself, int32 [m]; and the counts, float64 [m].

        Args:
            name: the relation.
            item: the row that is read.
        """
        counted, changes = self._counted[name], self._more[name].get(item, {})
        first, stop = counted.indptr[item : item + 2]
        ids = np.concatenate([counted.indices[first:stop], np.fromiter(changes, np.int32, len(changes))])
        found = np.concatenate([counted.data[first:stop], np.fromiter(changes.values(), float, len(changes))])
        others, place = np.unique(ids, return_inverse=True)
        counts = np.bincount(place, found, len(others))
        there = (counts > 0) & (others != item)
        return others[there], counts[there]


def _joined(counts: sparse.csr_array, changes: Changes) -> sparse.csr_array:
    entries = [(row, column, value) for row, found in changes.items() for column, value in found.items()]
    if not entries:
        return counts
    rows, columns, values = (np.array(each) for each in zip(*entries, strict=True))
    found = sparse.csr_array(counts + sparse.csr_array((values, (rows, columns)), shape=counts.shape))
    found.eliminate_zeros()
    return found
