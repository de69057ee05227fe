"""The canonical dataset: validated tables of users, items and events, with a fingerprint."""

import difflib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from recjax.typing import InputError, shorten

UNSEEN = "items_without_events"
"""Key of a description's account of the catalog: items in the dataset that have no event."""

OF_EVENTS = "fingerprint_of_events"
"""Key of a description, where there are such items: the fingerprint of the dataset without them."""

EQUAL_TIMES = "events_of_equal_time"
"""Key of a description: of a log with times below a second, events whose whole time is that of the one before."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Events sorted stably by (user, time), and the catalog.

    Users are numbered from 0 and items from 1 in the order in which the file first mentions them (after the filters):
    score ties then go to the item that appears first, as in the published figures. Items without events come after
    them, in the order of the catalog. Item 0 is padding.

    Attributes:
        name: as the user calls it.
        user_ids: raw id of each user.
        item_ids: raw id of each item; `item_ids[0]` is "" (padding).
        offsets: int64 [users + 1]; user u's events are rows `offsets[u]` to `offsets[u + 1]`.
        items: int32 [interactions], ids from 1.
        timestamps: int64 [interactions], unix seconds.
        values: float32 [interactions] (ratings; NaN = not rated) or None.
        catalog: row i describes item i + 1; `item_id`, `title` and whatever text the source had.
        description: where the data come from, the options, and the counts after each step. JSON.
        fingerprint: sha256 of the content above but `name` and `description`; hex.
        left_out: items without events that `of_events` has taken out.
        whole: where it has, the fingerprint of the dataset with them; else "".
    """

    name: str
    user_ids: list[str]
    item_ids: list[str]
    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray | None
    catalog: pl.DataFrame
    description: dict[str, Any]
    fingerprint: str
    left_out: int = 0
    whole: str = ""

    def __repr__(self) -> str:
        return (
            f"<dataset {self.name!r}: {self.n_users:,} users, {self.n_items:,} items, {self.n_interactions:,} "
            f"interactions, fingerprint {self.fingerprint[:12]}>"
        )

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items of the catalog, padding not counted."""
        return len(self.item_ids) - 1

    @property
    def n_unseen(self) -> int:
        """Items without any event, the last ones."""
        return int(self.description.get("catalog", {}).get(UNSEEN, 0)) - self.left_out

    def of_events(self) -> "Dataset":
        """The dataset without the items that have no event, for models that know items by their events alone.

        It is the dataset that would have been prepared without those items, with its fingerprint.
        """
        if not (count := self.n_unseen):
            return self
        kept = self.n_items - count
        return replace(
            self,
            item_ids=self.item_ids[: kept + 1],
            catalog=self.catalog.head(kept),
            fingerprint=self.description[OF_EVENTS],
            left_out=count,
            whole=self.fingerprint,
        )

    @property
    def n_interactions(self) -> int:
        return len(self.items)

    @property
    def time_unit(self) -> str:
        """In which unit the log has most of its times; "" where that is not known."""
        return str(self.description.get("source", {}).get("timestamps", {}).get("unit", ""))

    @property
    def has_times(self) -> bool:
        """True if the timestamps are times; those of id sequences and order numbers are places in an order."""
        return not self.time_unit.startswith("place")

    def history(self, user: int) -> np.ndarray:
        """int32 [length]: the items of user number `user`, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @cached_property
    def _item_numbers(self) -> dict[str, int]:
        return {raw: number for number, raw in enumerate(self.item_ids) if number}

    @cached_property
    def _user_numbers(self) -> dict[str, int]:
        return {raw: number for number, raw in enumerate(self.user_ids)}

    def item_index(self, raw_ids: list[str]) -> np.ndarray:
        """Numbers of raw item ids, int32 [len(raw_ids)].

        Raises:
            InputError: names the ids that the catalog does not have, and the nearest ones that it has.
        """
        try:
            return _lookup(self._item_numbers, raw_ids, "item", self.name)
        except InputError as error:
            if not self.left_out:
                raise
            raise InputError(f"{error}; {self.left_out:,} items without events are unknown to a model of ids") from None

    def user_index(self, raw_ids: list[str]) -> np.ndarray:
        """Numbers of raw user ids, int32 [len(raw_ids)]. Raises InputError like `item_index`."""
        return _lookup(self._user_numbers, raw_ids, "user", self.name)


def _lookup(numbers: dict[str, int], raw_ids: list[str], kind: str, dataset: str) -> np.ndarray:
    unknown = list(dict.fromkeys(str(raw) for raw in raw_ids if str(raw) not in numbers))
    if unknown:
        shown = ", ".join(repr(shorten(raw)) for raw in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        near = difflib.get_close_matches(unknown[0], list(numbers)[:100_000], n=3)
        hint = f"; nearest to {shorten(unknown[0])!r}: {', '.join(map(repr, near))}" if near else ""
        noun = f"{kind} id" + ("s" if len(unknown) > 1 else "")
        raise InputError(f"dataset {dataset!r} has no {noun} {shown} ({len(unknown):,} unknown){hint}")
    return np.fromiter((numbers[str(raw)] for raw in raw_ids), np.int32, len(raw_ids))
