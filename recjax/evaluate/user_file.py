"""Events of the users in a table file, for recommendations; users of whom no row can be used are among the users."""

from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import open_table, read, tables
from recjax.data.importers.rows import identifier
from recjax.data.remote import fetched


def read_users(path: Path) -> tuple[pl.DataFrame, pl.Series, tuple[str, ...]]:
    """The events of a table file.

    Args:
        path: csv, tsv or parquet with user, item and time.

    Returns:
        Events with `user_id`, `item_id` and `timestamp` (unix seconds) in file order; the users of the file, each once,
        in the order of their first rows, with those of whom no row could be used; and what was left out, in words.

    Raises:
        InputError: the file cannot be read, or too many of its rows cannot be used.
    """
    logs = read(path, "table")
    refused = logs.notes["rows_refused"]
    accounts = [refused] if "total" in refused else list(refused.values())  # one, or one a file
    users, events = logs.interactions["user_id"], logs.interactions
    if any(account["total"] for account in accounts):
        users = _every_user(path)
    notes = tuple(_line(path, account) for account in accounts if account["total"])
    return events, users.unique(maintain_order=True), notes


def _every_user(path: Path) -> pl.Series:
    """The user of each row that has one."""
    log = open_table(path, "table")
    assert log is not None
    column, found = log.mapping["user_id"], []
    for part in log.parts:
        with fetched(part) as file:
            rows = tables.renamed(tables.load(file, [column]), {"user_id": column})
            dtype = rows.frame.collect_schema()["user_id"]
            found.append(rows.sound(lambda frame, dtype=dtype: frame.select(identifier("user_id", dtype)))[1])
    return pl.concat(found)["user_id"].drop_nulls()


def _line(path: Path, account: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in account["reasons"].items())
    first = account["first"][0]
    quoted = f"; the first in line {first['line']}, found {first['found']!r}"
    return f"{account['total']:,} rows of {path} left out ({reasons}){quoted}"
