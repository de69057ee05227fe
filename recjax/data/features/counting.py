"""Evidence that grows: events counted one by one into the features of `recjax.data.features.evidence`.

What a user has had is counted as preparing the log anew would count it. Only which links are the strongest is not
decided anew for items that the events say nothing of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.event_counts import EventCounts, Linked
from recjax.data.features.evidence import (
    EVENTS,
    FADING,
    FOLLOWED,
    POPULARITY,
    PRECEDED,
    SHARE,
    TOTALS,
    TRUST,
    USERS,
    foreseen,
    near_texts,
    trust,
)

LINKED: tuple[Linked, ...] = ("following", "preceding", "together")
"""Relations whose counts grow."""


@dataclass(frozen=True)
class ChangedLinks:
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
    """Totals and strongest links of a catalog's log, to which events are added.

    Args:
        train: the log so far.
        n_items: of the catalog.
        text: int32 [v, k], text neighbours of each item, 0-padded.
        widths: links of an item, by relation.

    Attributes:
        totals: float64 [v, 7], see `recjax.data.features.evidence.Totals`.
    """

    def __init__(self, train: Histories, n_items: int, text: np.ndarray, widths: dict[Linked, int]):
        self._counts = EventCounts(train, n_items)
        self._widths, self._text = widths, near_texts(text)
        following = self._counts.transitions
        self._foreseen, self._counted = foreseen(following, self._text), float(following.sum())
        self.totals = np.zeros((n_items + 1, len(TOTALS)))
        self.totals[:, FOLLOWED], self.totals[:, PRECEDED] = following.sum(axis=1), following.sum(axis=0)
        self.totals[:, USERS] = self._counts.together.diagonal()
        self._rescale()

    def add(self, before: np.ndarray, events: Sequence[int]) -> dict[Linked, ChangedLinks]:
        """Counts events of one user; gives the links that have changed, by relation.

        Args:
            before: int32 [m], the user's last 50 items before them, oldest first; of a new user none.
            events: items, oldest first.

        Raises:
            InputError: there is no such item.
        """
        changed: dict[Linked, set[int]] = {name: set() for name in LINKED}
        for item in events:
            after = self._counts.after(before, item)
            for weight, earlier in zip(FADING, before[::-1].tolist(), strict=False):
                if earlier != item:
                    self._follow(earlier, item, weight)
                    changed["following"].add(earlier)
                    changed["preceding"].add(item)
            had, has = set(before.tolist()), set(after.tolist())
            self.totals[list(has - had), USERS] += 1
            self.totals[list(had - has), USERS] -= 1
            changed["together"] |= had | has if had != has else set()
            before = after
        self._rescale()
        return {name: self._links(name, sorted(rows)) for name, rows in changed.items() if rows}

    def _follow(self, earlier: int, item: int, weight: float) -> None:
        self.totals[earlier, FOLLOWED] += weight
        self.totals[item, PRECEDED] += weight
        self._counted += weight
        self._foreseen += weight * bool((self._text[earlier] == item).any())

    def _links(self, name: Linked, items: list[int]) -> ChangedLinks:
        width = self._widths[name]
        ids, values = np.zeros((len(items), width), np.int32), np.zeros((len(items), width), np.float32)
        for place, item in enumerate(items):
            others, counts = self._counts.row(name, item)
            strength = counts
            if name == "together":
                strength = counts / np.sqrt(np.maximum(self.totals[others, USERS], 1))
            best = np.argsort(-strength, kind="stable")[:width]
            ids[place, : len(best)], values[place, : len(best)] = others[best], counts[best]
        return ChangedLinks(np.array(items, np.int32), ids, values)

    def _rescale(self) -> None:
        """Sets what depends on all counts."""
        events = self.totals[:, EVENTS] = self._counts.events
        self.totals[:, SHARE] = events / max(events.sum(), 1.0)
        self.totals[:, POPULARITY] = np.log1p(events) / max(np.log1p(events.max()), 1.0)
        self.totals[:, TRUST] = trust(self._foreseen, self._counted)
