"""Evidence that grows: events counted one by one into the features of `recjax.data.features.evidence`.

What a user has had is counted as preparing the log anew would count it. Only which links are the strongest is not
decided anew for items that the events say nothing of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recjax.data.batches.histories import Histories
from recjax.data.features.evidence import (
    EVENTS,
    FOLLOWED,
    POPULARITY,
    PRECEDED,
    SHARE,
    TOGETHER,
    TOTALS,
    TRUST,
    USERS,
    foreseen,
    recent_items,
    trust,
)
from recjax.data.transitions import GAPS, item_counts, transition_counts

LINKED = "following", "preceding", "together"
"""Relations whose counts grow."""

Counts = tuple[np.ndarray, np.ndarray]
"""Counts of an item with others: int32 [m] these, ascending, and float64 [m]."""


@dataclass(frozen=True)
class Links:
    """Links of some items in one relation, the strongest first.

    Attributes:
        rows: int32 [m], items.
        ids: int32 [m, k], linked items, 0-padded.
        values: float32 [m, k], counts.
    """

    rows: np.ndarray
    ids: np.ndarray
    values: np.ndarray


class Counting:
    """Counts of a catalog's log, to which events are added.

    Args:
        train: the log so far.
        n_items: of the catalog.
        text: int32 [v, k], text neighbours of each item, 0-padded.
        widths: links of an item, by relation.

    Attributes:
        totals: float64 [v, 7], see `recjax.data.features.evidence.Totals`.
    """

    def __init__(self, train: Histories, n_items: int, text: np.ndarray, widths: dict[str, int]):
        train = train.compact()
        following = transition_counts(train, n_items, backward=0.0)
        users = recent_items(train, n_items)
        items, preceding = sparse.csr_array(users.T), sparse.csr_array(following.T)
        self._widths, self._text = widths, text
        self._sources: dict[str, Callable[[int], sparse.csr_array]] = {
            "following": lambda item: sparse.csr_array(following[item : item + 1]),
            "preceding": lambda item: sparse.csr_array(preceding[item : item + 1]),
            "together": lambda item: sparse.csr_array(items[item : item + 1] @ users),
        }
        self._rows: dict[str, dict[int, Counts]] = {name: {} for name in LINKED}
        self._foreseen, self._counted = foreseen(following, text), float(following.sum())
        self.totals = np.zeros((n_items + 1, len(TOTALS)))
        self.totals[:, EVENTS] = item_counts(np.asarray(train.items), n_items)
        self.totals[:, FOLLOWED], self.totals[:, PRECEDED] = following.sum(axis=1), following.sum(axis=0)
        self.totals[:, USERS] = users.sum(axis=0)
        self._rescale()

    def add(self, before: Sequence[int], events: Sequence[int]) -> dict[str, Links]:
        """Counts events of one user; returns the links that have changed, by relation.

        Args:
            before: the user's last items before them, oldest first; of a new user none. The last 50 count.
            events: items, oldest first.
        """
        window, changed = list(before)[-TOGETHER:], {name: set[int]() for name in LINKED}
        for item in events:
            self._follow(window, item, changed)
            later = [*window, item][-TOGETHER:]
            self._belong(set(window), set(later), changed)
            window = later
        self._rescale()
        return {name: self._links(name, sorted(rows)) for name, rows in changed.items() if rows}

    def _follow(self, window: list[int], item: int, changed: dict[str, set[int]]) -> None:
        self.totals[item, EVENTS] += 1
        for weight, earlier in zip(GAPS, reversed(window), strict=False):
            if earlier == item:
                continue
            self._more("following", earlier, item, weight, changed)
            self._more("preceding", item, earlier, weight, changed)
            self.totals[earlier, FOLLOWED] += weight
            self.totals[item, PRECEDED] += weight
            self._counted += weight
            self._foreseen += weight * bool((self._text[earlier] == item).any())

    def _belong(self, before: set[int], after: set[int], changed: dict[str, set[int]]) -> None:
        """Counts who has come among a user's last items, and takes out who has left them."""
        for sign, items, others in ((1.0, after - before, after), (-1.0, before - after, before)):
            for item in items:
                self.totals[item, USERS] += sign
                for other in others - {item}:
                    self._more("together", item, other, sign, changed)
                    self._more("together", other, item, sign, changed)

    def _more(self, name: str, item: int, other: int, weight: float, changed: dict[str, set[int]]) -> None:
        others, counts = self._counts(name, item)
        place = int(np.searchsorted(others, other))
        if place == len(others) or others[place] != other:
            others, counts = np.insert(others, place, other), np.insert(counts, place, 0.0)
            self._rows[name][item] = others, counts
        counts[place] += weight
        changed[name].add(item)

    def _counts(self, name: str, item: int) -> Counts:
        rows = self._rows[name]
        if item not in rows:
            found = self._sources[name](item)
            order = np.argsort(found.indices)
            order = order[found.indices[order] != item]
            rows[item] = found.indices[order].astype(np.int32), found.data[order].astype(np.float64)
        return rows[item]

    def _links(self, name: str, items: list[int]) -> Links:
        width = self._widths[name]
        ids, values = np.zeros((len(items), width), np.int32), np.zeros((len(items), width), np.float32)
        for place, item in enumerate(items):
            others, counts = self._counts(name, item)
            strength = counts
            if name == "together":
                strength = counts / np.sqrt(np.maximum(self.totals[others, USERS], 1))
            best = np.argsort(-strength, kind="stable")[:width]
            best = best[counts[best] > 0]
            ids[place, : len(best)], values[place, : len(best)] = others[best], counts[best]
        return Links(np.array(items, np.int32), ids, values)

    def _rescale(self) -> None:
        """Sets what depends on all counts."""
        events = self.totals[:, EVENTS]
        self.totals[:, SHARE] = events / max(events.sum(), 1.0)
        self.totals[:, POPULARITY] = np.log1p(events) / max(np.log1p(events.max()), 1.0)
        self.totals[:, TRUST] = trust(self._foreseen, self._counted)
