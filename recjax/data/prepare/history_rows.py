"""A user between two pipelines, as a row of a table: what the pipelines do to one user at a time."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from recjax.data.prepare.preparation import Events, Preparation, sort, without_duplicates
from recjax.data.store import records

Row = dict[str, Any]

SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("place", pa.int64()),
        ("items", pa.binary()),
        ("times", pa.binary()),
        ("values", pa.binary()),
    ]
)
"""Id, place of the user's first event in the log before any filter, and columns of events; items are numbers in the
order of the log, before the filters."""


def first_steps(options: Preparation) -> list[str]:
    """The steps that need one user at a time, by their options."""
    wanted = {"read": True, "min_rating": options.min_rating is not None, "duplicates": options.duplicates != "keep"}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def gathered(
    chunks: Iterable[tuple[list[int], list[str], list[int], Any, Any]], codes: dict[str, int]
) -> tuple[int, Events]:
    """All events of a user in the order of the log, from those of each file; and the place of the first.

    Args:
        chunks: places, items, times, ratings (or None) and nanoseconds (or None) of the events in a file.
        codes: number of each item.
    """
    chunks = sorted(chunks, key=lambda chunk: chunk[0][0])
    items = np.array([codes[item] for chunk in chunks for item in chunk[1]], np.int32)
    times = np.array([time for chunk in chunks for time in chunk[2]], np.int64)
    rated = chunks[0][3] is not None
    values = np.array([value for chunk in chunks for value in chunk[3]], np.float32) if rated else None
    finer = None
    if any(chunk[4] is not None for chunk in chunks):
        parts = [np.zeros(len(chunk[2]), np.int32) if chunk[4] is None else chunk[4] for chunk in chunks]
        finer = np.concatenate(parts).astype(np.int32)
    return chunks[0][0][0], Events(np.zeros(len(items), np.int32), items, times, values, finer)


def stepped(events: Events, options: Preparation) -> Iterator[Events]:
    """A user's events after each of `first_steps`."""
    for name in first_steps(options):
        if name == "min_rating":
            assert events.values is not None
            events = events.take(events.values >= options.min_rating)
        if name == "duplicates":
            events = without_duplicates(sort(events), options.duplicates)
        yield events


def to_row(user: str, place: int, events: Events) -> Row:
    """The row of a user with sorted events."""
    values = None if events.values is None else events.values.tobytes()
    columns = {"items": events.items.tobytes(), "times": events.times.tobytes(), "values": values}
    return {"user": user, "place": place} | columns


def to_events(row: Row) -> Events:
    """The events of a row."""
    items, times = np.frombuffer(row["items"], np.int32), np.frombuffer(row["times"], np.int64)
    values = None if row["values"] is None else np.frombuffer(row["values"], np.float32)
    return Events(np.zeros(len(items), np.int32), items, times, values)


def length(row: Row) -> int:
    """Events of a row."""
    return len(row["items"]) // 4


def item_counts(row: Row) -> Iterator[tuple[int, int]]:
    """The items of a row, and how often each is there."""
    items, counts = np.unique(np.frombuffer(row["items"], np.int32), return_counts=True)
    return zip(items.tolist(), counts.tolist(), strict=True)


def items(row: Row) -> list[int]:
    """The items of a row, each once."""
    return np.unique(np.frombuffer(row["items"], np.int32)).tolist()


def without(row: Row, dropped: list[int]) -> Row:
    """The row without some items."""
    events = to_events(row)
    keep = ~np.isin(events.items, dropped)
    return row if keep.all() else to_row(row["user"], row["place"], events.take(keep))


def deduplicated(row: Row, options: Preparation) -> Row:
    """The row without repeats."""
    return to_row(row["user"], row["place"], without_duplicates(to_events(row), options.duplicates))


def repeats(row: Row, options: Preparation) -> int:
    """Number of events that `deduplicated` would drop."""
    return length(row) - len(without_duplicates(to_events(row), options.duplicates))


def renumbered(row: Row, kept: list[int]) -> Row:
    """The row with the items' numbers in the dataset: places in the ascending `kept`, from 1."""
    numbers = np.searchsorted(np.asarray(kept, np.int32), np.frombuffer(row["items"], np.int32)) + 1
    return row | {"items": numbers.astype(np.int32).tobytes()}


def serialized(row: Row) -> bytes:
    """The record of a renumbered row."""
    events = to_events(row)
    return records.serialize(row["user"], events.items, events.times, events.values)
