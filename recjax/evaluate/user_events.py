"""Events of users to recommend for, with raw ids: typed, of a table's file, or of users of a dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.data.dataset import Dataset
from recjax.data.importers import time_columns
from recjax.data.ranges import ranges
from recjax.evaluate.user_file import read_users
from recjax.typing import InputError, shorten

SHOWN = 5
"""Users that a note names."""


@dataclass(frozen=True, eq=False)
class UserEvents:
    """Events of some users, each user's oldest first.

    Attributes:
        users: int64 [m], number of the user (place in `names`), ascending.
        items: [m], raw item ids, or int32 item numbers once they are known.
        times: int64 [m], unix seconds; 0 where there are none.
        names: of the users; those without events are among them.
        notes: what was left out on the way, in words.
    """

    users: np.ndarray
    items: Any
    times: np.ndarray
    names: list[str]
    notes: tuple[str, ...] = ()


def raw_id(value: Any) -> str:
    """A raw id as a text; a whole float, which is what pandas makes of numbers where some are missing, as in files."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value) if whole else value)


def typed(histories: Sequence[Any] | Mapping[Any, Sequence[Any]]) -> UserEvents:
    """Events of histories that are given as they are.

    Args:
        histories: raw item ids of each user, oldest first; of a mapping the keys are the users' names, else they are
            called "1", "2", ... A sequence of ids is the history of one user.

    Raises:
        InputError: it is neither.
    """
    if hasattr(histories, "to_list"):  # a column of a frame
        histories = histories.to_list()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(histories, str | bytes) or not isinstance(histories, Mapping | Sequence | np.ndarray):
        raise InputError(
            f"histories are {shorten(repr(histories))}, expected lists of item ids, one a user, a mapping of users to "
            "such lists, or a table"
        )
    named = histories if isinstance(histories, Mapping) else None
    rows = list(histories.values()) if isinstance(histories, Mapping) else list(histories)
    plain = [isinstance(row, str | int | float | np.number) for row in rows]
    if rows and all(plain) and named is None:
        rows, plain = [rows], [False]
    for number, (row, wrong) in enumerate(zip(rows, plain, strict=True), 1):
        if wrong or not isinstance(row, Sequence | np.ndarray | pl.Series):
            raise InputError(f"history {number} is {shorten(repr(row))}, expected a list of item ids")
    names = [raw_id(user) for user in named] if named is not None else [str(row + 1) for row in range(len(rows))]
    items = [raw_id(item) for row in rows for item in row]
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return UserEvents(users, items, np.zeros(len(items), np.int64), names)


def of_file(path: Path, columns: Mapping[str, str] | None = None, what: str = "") -> UserEvents:
    """Events of a table's file, see `recjax.evaluate.user_file.read_users`.

    Args:
        path: of the file.
        columns: our column names to the file's.
        what: to call the file in notes; by default its path.
    """
    rows, names, notes = read_users(path, columns)
    notes = tuple(note.replace(str(path), what) for note in notes) if what else notes
    numbers = pl.DataFrame({"user_id": names}).with_row_index("user")
    rows = rows.join(numbers, on="user_id", maintain_order="left").sort(
        "user", *time_columns(rows), maintain_order=True
    )
    users = rows["user"].to_numpy().astype(np.int64)
    return UserEvents(users, rows["item_id"].to_list(), rows["timestamp"].to_numpy(), names.to_list(), notes)


def of_dataset(dataset: Dataset, users: Sequence[Any] | None = None) -> UserEvents:
    """All events of users of a dataset.

    Args:
        dataset: whose histories they are.
        users: raw ids; those that the dataset does not have are users without events, and named. None for all users.
    """
    everyone = users is None
    names = list(dataset.user_ids) if users is None else list(dict.fromkeys(map(raw_id, users)))
    notes: tuple[str, ...] = ()
    if everyone:
        rows = np.arange(len(names))
    else:
        known = {name: number for number, name in enumerate(dataset.user_ids)}
        rows = np.fromiter((known.get(name, -1) for name in names), np.int64, len(names))
        if unknown := [name for name, row in zip(names, rows.tolist(), strict=True) if row < 0]:
            shown = ", ".join(map(repr, unknown[:SHOWN])) + (", ..." if len(unknown) > SHOWN else "")
            noun = "users are" if len(unknown) > 1 else "user is"
            notes = (f"{len(unknown):,} {noun} not in dataset {dataset.name!r}: {shown}",)
    starts, stops = (np.where(rows >= 0, dataset.offsets[rows + end], 0) for end in (0, 1))
    lengths = stops - starts
    places = ranges(starts, lengths)
    ids = pl.Series(dataset.item_ids, dtype=pl.String)
    items = ids.gather(np.asarray(dataset.items[places])).to_list()
    times = np.asarray(dataset.timestamps[places])
    return UserEvents(np.repeat(np.arange(len(names)), lengths), items, times, names, notes)
