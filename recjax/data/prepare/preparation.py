"""Steps from raw events to histories: filters, duplicates, k-core, and the counts of each step."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from recjax.limits import COUNT, at_least, require
from recjax.typing import InputError

Duplicates = Literal["keep", "consecutive", "pair"]
Unseen = Literal["auto", "keep", "drop"]
TIE_ORDER = "file"

OWN = ("table", "catalog", "frame")
"""Formats of a shop's own files, whose catalogs say what there is to recommend; publishers' say what was ever there."""


@dataclass(frozen=True)
class Preparation:
    """Options of preparing raw logs. Every option is recorded in the dataset's description.

    Events are sorted by (user, time) with a stable sort, so events of one user at the same time keep the order of the
    file; this is the only tie order, because any other one silently moves the held-out item of four users in ten. Times
    below a second count in the order, and are cut off after it.

    Attributes:
        k_core: users and items with fewer events than this are dropped, repeatedly until none is left; 0 = off.
        min_length: users with fewer events than this are dropped (together with the k-core, to a common fixed point).
        duplicates: "keep" leaves repeats alone; "consecutive" drops an event whose item is also the user's previous
            one; "pair" keeps only the earliest event of each user and item.
        min_rating: events rated below this, or not rated at all, are dropped; None = off.
        unseen: items of the catalog that have no event: "keep" puts them behind the items with events, so that models
            which read texts rank them; "drop" leaves them out; "auto" keeps those of a shop's own tables where no
            filter drops users, items or events, and else drops them.
    """

    k_core: int = 0
    min_length: int = 1
    duplicates: Duplicates = "keep"
    min_rating: float | None = None
    unseen: Unseen = "auto"

    def __post_init__(self) -> None:
        require(self, k_core=at_least(0), min_length=COUNT)

    @property
    def has_core(self) -> bool:
        """True if rare users or items are dropped."""
        return self.k_core > 1 or self.min_length > 1

    def keeps_unseen(self, notes: Mapping[str, Any]) -> bool:
        """True if items without events stay in a dataset; `notes` are the importer's.

        Not by themselves where most items of the log have no row: ids are then written in two ways, and items with and
        without events would be the same ones.
        """
        if self.unseen != "auto":
            return self.unseen == "keep"
        filtered = self.has_core or self.k_core > 0 or self.min_rating is not None
        return notes.get("format") in OWN and not filtered and "few_items_known" not in notes.get("catalog", {})

    def step(self, name: str) -> str:
        """Name in the account of the step that `name`, an option, asks for."""
        return {
            "min_rating": f"min_rating {self.min_rating:g}" if self.min_rating is not None else "",
            "duplicates": f"duplicates {self.duplicates}",
            "k_core": f"k_core {self.k_core}, min_length {self.min_length}",
        }[name]

    def to_json(self) -> dict[str, Any]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.unseen == "auto":  # descriptions from before there was the option lack it
            del found["unseen"]
        return found | {"tie_order": TIE_ORDER}


@dataclass(frozen=True)
class Events:
    """Events as columns, one row an event; `users` and `items` are dense codes from 0.

    Attributes:
        users: int32 [n].
        items: int32 [n].
        times: int64 [n], unix seconds.
        values: float32 [n] (NaN = not rated) or None.
        nanoseconds: int32 [n], what the times have below a second, which orders events and is stored nowhere; or None.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    values: np.ndarray | None
    nanoseconds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> "Events":
        """Rows chosen by index or by boolean mask."""
        values, finer = (None if column is None else column[rows] for column in (self.values, self.nanoseconds))
        return Events(self.users[rows], self.items[rows], self.times[rows], values, finer)

    def counts(self) -> dict[str, int]:
        return {
            "users": int(np.count_nonzero(np.bincount(self.users))),
            "items": int(np.count_nonzero(np.bincount(self.items))),
            "interactions": len(self),
        }


def sort(events: Events) -> Events:
    """Events by (user, time as the log has it); ties keep the order of the file (stable)."""
    user_step, time_step = np.diff(events.users), np.diff(events.times)
    finer = np.zeros(len(events), np.int32) if events.nanoseconds is None else events.nanoseconds
    later = (time_step > 0) | ((time_step == 0) & (np.diff(finer) >= 0))
    if bool(np.all((user_step > 0) | ((user_step == 0) & later))):
        return events
    return events.take(np.lexsort((finer, events.times, events.users)))


def ties(events: Events) -> int:
    """Number of sorted events with the same user and time, as the log has it, as the event before."""
    same = (np.diff(events.users) == 0) & (np.diff(events.times) == 0)
    return int((same if events.nanoseconds is None else same & (np.diff(events.nanoseconds) == 0)).sum())


def without_duplicates(events: Events, policy: Duplicates) -> Events:
    """Sorted events without those that `policy` calls repeats."""
    if policy == "keep" or not len(events):
        return events
    if policy == "consecutive":
        repeat = np.zeros(len(events), bool)
        repeat[1:] = (np.diff(events.users) == 0) & (np.diff(events.items) == 0)
        return events.take(~repeat)
    pairs = events.users.astype(np.int64) * (int(events.items.max()) + 1) + events.items
    _, first = np.unique(pairs, return_index=True)
    return events.take(np.sort(first))


def _core(events: Events, k_core: int, min_length: int) -> Events:
    """Drops rare users and items until every user has max(k_core, min_length) events and every item k_core."""
    least = max(k_core, min_length)
    while len(events):
        keep = (np.bincount(events.users) >= least)[events.users]
        keep &= (np.bincount(events.items) >= k_core)[events.items]
        if keep.all():
            break
        events = events.take(keep)
    return events


def check_rated(options: Preparation, rated: bool) -> None:
    """Raises InputError when a rating threshold is asked of data without ratings."""
    if options.min_rating is not None and not rated:
        raise InputError(f"ratings of {options.min_rating:g} or more are wanted, but the data have no rating column")


def check_steps(steps: list[dict[str, Any]]) -> None:
    """Raises InputError when nothing is left after the last of `steps`."""
    if steps[-1]["interactions"]:
        return
    if len(steps) == 1:
        raise InputError("the dataset has no interactions: nothing to prepare")
    trail = "; ".join(f"after {step['step']}: {step['interactions']:,} interactions" for step in steps)
    raise InputError(f"no interaction is left after {steps[-1]['step']} ({trail}); loosen the preparation's options")


def prepare(events: Events, options: Preparation) -> tuple[Events, list[dict[str, Any]]]:
    """Filters, sorts, removes duplicates and rare users and items.

    Args:
        events: in file order.
        options: what to do.

    Returns:
        Events sorted by (user, time) and one entry a step: its name and the users, items and interactions after it.

    Raises:
        InputError: nothing is left, or a rating threshold was asked of data without ratings.
    """
    steps = [{"step": "read"} | events.counts()]

    def record(step: str) -> None:
        steps.append({"step": step} | events.counts())
        check_steps(steps)

    check_steps(steps)
    if options.min_rating is not None:
        check_rated(options, events.values is not None)
        assert events.values is not None
        events = events.take(events.values >= options.min_rating)  # NaN compares false: unrated events go too
        record(options.step("min_rating"))
    events = sort(events)
    if options.duplicates != "keep":
        events = without_duplicates(events, options.duplicates)
        record(options.step("duplicates"))
    if options.has_core:
        size = -1
        while size != len(events):  # dropping an item can make its neighbours consecutive duplicates
            size = len(events)
            events = _core(events, options.k_core, options.min_length)
            events = without_duplicates(events, options.duplicates)
        record(options.step("k_core"))
    return events, steps
