"""What is done to raw events before they become histories: filters, duplicates, k-core, and the counts of each step."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from recjax.typing import InputError

Duplicates = Literal["keep", "consecutive", "pair"]
TIE_ORDER = "file"


@dataclass(frozen=True)
class Preparation:
    """How raw logs become a dataset. Every option is recorded in the dataset's description.

    Events are sorted by (user, time) with a stable sort, so events of one user at the same time keep the order of the
    file; this is the only tie order, because any other one silently moves the held-out item of four users in ten.

    Attributes:
        k_core: users and items with fewer events than this are dropped, repeatedly until none is left; 0 = off.
        min_length: users with fewer events than this are dropped (together with the k-core, to a common fixed point).
        duplicates: "keep" leaves repeats alone; "consecutive" drops an event whose item is also the user's previous
            one; "pair" keeps only the earliest event of each user and item.
        min_rating: events rated below this, or not rated at all, are dropped; None = off.
    """

    k_core: int = 0
    min_length: int = 1
    duplicates: Duplicates = "keep"
    min_rating: float | None = None

    def __post_init__(self) -> None:
        if self.k_core < 0:
            raise InputError(f"k_core is {self.k_core}, expected 0 (off) or more")
        if self.min_length < 1:
            raise InputError(f"min_length is {self.min_length}, expected 1 or more")
        if self.duplicates not in get_args(Duplicates):
            raise InputError(f"duplicates is {self.duplicates!r}, expected one of {', '.join(get_args(Duplicates))}")
        if self.min_rating is not None and not np.isfinite(self.min_rating):
            raise InputError(f"min_rating is {self.min_rating}, expected a finite number or None")

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"tie_order": TIE_ORDER}


@dataclass(frozen=True)
class Events:
    """Events as columns, one row an event; `users` and `items` are dense codes from 0.

    Attributes:
        users: int32 [n].
        items: int32 [n].
        times: int64 [n], unix seconds.
        values: float32 [n] (NaN = not rated) or None.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    values: np.ndarray | None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> "Events":
        """Rows chosen by index or by boolean mask."""
        values = None if self.values is None else self.values[rows]
        return Events(self.users[rows], self.items[rows], self.times[rows], values)

    def counts(self) -> dict[str, int]:
        return {
            "users": int(np.count_nonzero(np.bincount(self.users))),
            "items": int(np.count_nonzero(np.bincount(self.items))),
            "interactions": len(self),
        }


def sort(events: Events) -> Events:
    """Events by (user, time); ties keep the order of the file (stable)."""
    user_step, time_step = np.diff(events.users), np.diff(events.times)
    if bool(np.all((user_step > 0) | ((user_step == 0) & (time_step >= 0)))):
        return events
    return events.take(np.lexsort((events.times, events.users)))


def _without_duplicates(events: Events, policy: Duplicates) -> Events:
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
        if not len(events):
            trail = "; ".join(f"after {s['step']}: {s['interactions']:,} interactions" for s in steps)
            raise InputError(f"no interaction is left after {step} ({trail}); loosen the preparation's options")

    if not len(events):
        raise InputError("the dataset has no interactions: nothing to prepare")
    if options.min_rating is not None:
        if events.values is None:
            raise InputError(f"min_rating={options.min_rating:g} was asked, but the data have no rating column")
        events = events.take(events.values >= options.min_rating)  # NaN compares false: unrated events go too
        record(f"min_rating {options.min_rating:g}")
    events = sort(events)
    if options.duplicates != "keep":
        events = _without_duplicates(events, options.duplicates)
        record(f"duplicates {options.duplicates}")
    if options.k_core > 1 or options.min_length > 1:
        size = -1
        while size != len(events):  # dropping an item can make its neighbours consecutive duplicates
            size = len(events)
            events = _core(events, options.k_core, options.min_length)
            events = _without_duplicates(events, options.duplicates)
        record(f"k_core {options.k_core}, min_length {options.min_length}")
    return events, steps
