"""Events of the users in a table file, for recommendations; users of whom no row can be used are among the users."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import open_table, read, tables
from recjax.data.importers.logs import ANONYMOUS, Options, RawLogs
from recjax.data.importers.rows import identifier, text
from recjax.data.store.remote import fetched
from recjax.typing import InputError


def read_users(path: Path, columns: Mapping[str, str] | None = None) -> tuple[pl.DataFrame, pl.Series, tuple[str, ...]]:
    """The events of a table file.

    Args:
        path: csv, tsv or parquet with user, item and time.
        columns: our column names to the file's, where it calls them otherwise.

    A row with a user alone, without item and time, is that of a user without events, and does not count as damaged.

    Returns:
        Events with `user_id`, `item_id` and `timestamp` (unix seconds) in file order; the users of the file, each once,
        in the order of their first rows, with those of whom no row could be used; and what was left out, in words.

    Raises:
        InputError: the file cannot be read, or too many of its rows cannot be used.
    """
    try:
        logs = read(path, "table", columns)
    except InputError as error:
        logs = _with_bare_users(path, columns, error)
    accounts = _accounts(logs)
    users = _users(path, columns)["user_id"].drop_nulls() if accounts else logs.interactions["user_id"]
    notes = tuple(_line(path, account) for account in accounts)
    return logs.interactions, users.unique(maintain_order=True), notes


def _with_bare_users(path: Path, columns: Mapping[str, str] | None, error: InputError) -> RawLogs:
    """The logs of a file that was refused, if for its rows of users without an event alone; else raises `error`."""
    users = _users(path, columns)
    bare = int(users["bare"].sum())
    if not bare:
        raise error
    logs = read(path, "table", columns, max_refused=1.0)
    damaged = sum(account["total"] - account["reasons"].get(ANONYMOUS, 0) for account in _accounts(logs)) - bare
    if damaged > Options().max_refused * (users.height - bare):
        raise error
    return logs


def _accounts(logs: RawLogs) -> list[dict[str, Any]]:
    """The refused rows of each file that has some."""
    refused = logs.notes["rows_refused"]
    return [account for account in ([refused] if "total" in refused else refused.values()) if account["total"]]


def _users(path: Path, columns: Mapping[str, str] | None) -> pl.DataFrame:
    """Of each row its user, and whether that is `bare`, without an item and a time."""
    log, found = open_table(path, "table", columns), []
    assert log is not None
    wanted = {ours: theirs for ours, theirs in log.mapping.items() if ours != "rating"}
    for part in log.parts:
        with fetched(part) as file:
            rows = tables.renamed(tables.load(file, list(wanted.values())), wanted)
            schema = rows.frame.collect_schema()
            user = identifier("user_id", schema["user_id"])
            item, time = identifier("item_id", schema["item_id"]), text("timestamp")
            bare = user.is_not_null() & item.is_null() & time.is_null()
            found.append(rows.collect(lambda frame, user=user, bare=bare: frame.select(user, bare.alias("bare")))[1])
    return pl.concat(found)


def _line(path: Path, account: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in account["reasons"].items())
    first = account["first"][0]
    quoted = f"; the first in {account.get('unit', 'line')} {first['line']}, found {first['found']!r}"
    return f"{account['total']:,} rows of {path} left out ({reasons}){quoted}"
