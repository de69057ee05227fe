"""RecBole atomic files: `NAME.inter` and `NAME.item`, tab-separated, with types in the header (`user_id:token`).

Two shapes of `.inter` are known: one event a row (`user_id`, `item_id`, `timestamp`, perhaps `rating`), in one file or
several (`NAME.train.inter`, ...); and histories (`user_id`, `item_id_list`, `item_id`), where a row is what a user did
and what came next. From the latter the full sequences are put together again: the rows of a user overlap, also when
histories were cut to the most recent items. They have no times, so an event's timestamp is its place in the history.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import catalog, delimited, timestamps
from recjax.data.importers.delimited import Layout
from recjax.data.importers.logs import Options, RawLogs, files_note
from recjax.data.importers.rows import to_events
from recjax.data.importers.tables import joined, match, renamed
from recjax.typing import InputError, shorten

NAME = "recbole"
EXPECTED = "NAME.inter (or NAME.train.inter, NAME.valid.inter, NAME.test.inter) and perhaps NAME.item"

_LAYOUT = Layout("\t", quoted=False)
_TYPES = ("token", "token_seq", "float", "float_seq")
_EVENTS = {"user_id": ("user_id",), "item_id": ("item_id",), "timestamp": ("timestamp",), "rating": ("rating",)}
_ITEMS = {
    "item_id": ("item_id",),
    "title": ("title", "movie_title", "name"),
    "categories": ("categories", "category", "genres", "genre", "class"),
}
_PARTS = ("train", "valid", "test")


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The `.inter` files among `files`, those of one dataset together, in the order train, valid, test."""
    del sure
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if file.name.endswith(".inter"):
            groups[file.name.split(".")[0]].append(file)
    for name, group in groups.items():
        whole = [file for file in group if file.name == f"{name}.inter"]
        groups[name] = whole or sorted(group, key=_part)
    return [tuple(group) for group in groups.values()]


def _part(path: Path) -> tuple[int, str]:
    part = path.name.removesuffix(".inter").rpartition(".")[2]
    return (_PARTS.index(part) if part in _PARTS else len(_PARTS), path.name)


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads the events of the `.inter` files and the items beside them.

    Raises:
        InputError: the header is not typed, a column is missing, or see `recjax.data.importers.rows.to_events`.
    """
    name = paths[0].name.split(".")[0]
    items = paths[0].with_name(f"{name}.item")
    items = items if items.is_file() else None
    notes: dict[str, Any] = {"format": NAME, "files": files_note(*paths, items)}
    headers = [_header(path) for path in paths]
    if all("item_id_list" in header for header in headers):
        events = _from_histories(paths, headers, options, notes)
    else:
        parts, accounts = [], {}
        for path, header in zip(paths, headers, strict=True):
            part: dict[str, Any] = {}
            required = ("user_id", "item_id", "timestamp")
            names = match(list(header), _EVENTS, options.columns, path, required=required)
            rows = renamed(delimited.read(path, _LAYOUT), {ours: header[base] for ours, base in names.items()})
            parts.append(to_events(rows, options, part, names))
            accounts[path.name] = part
        notes |= next(iter(accounts.values())) if len(paths) == 1 else accounts
        if len(paths) > 1:
            notes["rows_read"] = sum(part["rows_read"] for part in accounts.values())
            notes["rows_refused"] = {name: part["rows_refused"] for name, part in accounts.items()}
        notes["timestamps"] = timestamps.merged([part["timestamps"] for part in accounts.values()], list(accounts))
        events = joined(parts)
    frame = _items(items, options, notes) if items else None
    return RawLogs(name, events, catalog.finish(frame, items, events, notes), notes)


def _header(path: Path) -> dict[str, str]:
    """Column names without their types, to the names as they stand in the header."""
    found = delimited.header(path, _LAYOUT)
    for name in found:
        base, colon, kind = name.rpartition(":")
        if not colon or not base or kind not in _TYPES:
            raise InputError(
                f"{path}: the header has {shorten(name)!r}, expected name:type with a type of {', '.join(_TYPES)}, "
                "as in user_id:token, separated by tabs"
            )
    return {name.rpartition(":")[0]: name for name in found}


def _items(path: Path, options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    header = _header(path)
    names = match(list(header), _ITEMS, {}, path, required=("item_id",), preferred=_ITEMS)
    mapping = {ours: header[base] for ours, base in names.items()}
    mapping |= {base: typed for base, typed in header.items() if base not in names.values() and base not in mapping}
    frame = catalog.collect(renamed(delimited.read(path, _LAYOUT), mapping), options, notes)
    if names.get("categories") in ("class", "genre", "genres") and mapping["categories"].endswith(":token_seq"):
        frame = frame.with_columns(pl.col("categories").str.replace_all(" ", "|"))  # one word each, by the format
    return frame


def _from_histories(
    paths: Sequence[Path], headers: Sequence[dict[str, str]], options: Options, notes: dict[str, Any]
) -> pl.DataFrame:
    """Full sequences from rows of histories and targets."""
    users: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
    usual = {"user_id": ("user_id",), "history": ("item_id_list",), "item_id": ("item_id",)}
    notes["rows_read"], refused = 0, {}
    for path, header in zip(paths, headers, strict=True):
        names = match(list(header), usual, {}, path, required=tuple(usual))
        read_rows = renamed(delimited.read(path, _LAYOUT), {ours: header[base] for ours, base in names.items()})
        rows, frame = read_rows.collect()
        total = frame.height + rows.refusals.total
        for number, (user, history, item) in enumerate(frame.select("user_id", "history", "item_id").iter_rows()):
            if user and item:
                users[user].append((str(history or "").split(), item))
            else:
                missing = "user" if not user else "item"
                rows.refusals.add(f"no {missing} id", rows.lines([number])[0], f"{user}\t{history}\t{item}")
        rows.refusals.check(total, options.max_refused, path)
        notes["rows_read"] += total
        refused[path.name] = rows.refusals.to_json()
    longest = max((len(history) for rows in users.values() for history, _ in rows), default=0)
    sequences = {user: _chain(rows, longest) for user, rows in users.items()}
    loose = sum(left for _, left in sequences.values())
    if loose > options.max_refused * notes["rows_read"]:
        raise InputError(
            f"{', '.join(path.name for path in paths)}: {loose:,} of {notes['rows_read']:,} histories do not continue "
            f"the same user's other histories; at most {options.max_refused:.1%} are tolerated"
        )
    notes["rows_refused"], notes["histories_that_do_not_continue"] = refused, loose
    notes["timestamps"] = {"unit": timestamps.PLACES}
    frame = pl.DataFrame(
        {"user_id": list(sequences), "item_id": [sequence for sequence, _ in sequences.values()]},
        schema={"user_id": pl.String, "item_id": pl.List(pl.String)},
    )
    frame = frame.with_columns(pl.int_ranges(pl.col("item_id").list.len(), dtype=pl.Int64).alias("timestamp"))
    return frame.explode("item_id", "timestamp")


def _chain(rows: list[tuple[list[str], str]], longest: int) -> tuple[list[str], int]:
    """One user's sequence, and how many rows do not fit in it.

    Args:
        rows: histories, oldest item first, each with the item that came next; in any order.
        longest: of all histories; those of this length may have been cut to their most recent items.
    """
    following: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for history, item in sorted(rows, key=lambda row: len(row[0]), reverse=True):
        following[tuple(history)].append(item)
    waiting = sorted(following, key=len)
    sequence = list(waiting[0])
    left = len(rows)
    while left:
        window = tuple(sequence[-longest:]) if longest else ()
        if items := following.get(window):
            sequence.append(items.pop())
        else:
            # A gap: some rows of the chain are not in the files, and a longer history tells what happened there.
            beyond = [entry for entry in waiting if following[entry] and len(entry) > len(sequence)]
            known = next((entry for entry in beyond if list(entry[: len(sequence)]) == sequence), None)
            if known is None:
                break
            sequence = list(known)
            continue
        left -= 1
    return sequence, left
