"""Tables with named columns: csv, tsv, JSON lines (plain, gzipped or zst) and parquet; the uniform form is one of them.

The uniform form is a folder with `interactions.csv.gz` (`user_id`, `item_id`, `timestamp` and perhaps `rating`) and
`items.csv.gz` (`item_id`, `title` and any further texts). Which files are parts of one table is said in `table_files`.
Other tables need their columns named only where the names are not among the usual ones:

    read(Path("online_retail.parquet"), columns={"item_id": "Description", "timestamp": "InvoiceDate"})
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import catalog, delimited, timestamps
from recjax.data.importers.conditions import cancelled
from recjax.data.importers.extras import EXTRA
from recjax.data.importers.logs import Options, RawLogs, Reading, files_note
from recjax.data.importers.matching import match
from recjax.data.importers.rows import to_events
from recjax.data.importers.table_files import (
    CATALOG,
    LOG,
    files_of,
    grouped,
    is_json,
    kind,
    label,
    load,
    names,
    parts_of,
    renamed,
    root,
    stem,
    tables_in,
)
from recjax.data.importers.timestamps import NANOSECOND
from recjax.data.store.remote import Place, fetched
from recjax.typing import COMMAND, InputError

__all__ = ["EVENT_COLUMNS", "ITEM_COLUMNS", "NAME", "Log", "load", "match", "names", "read", "renamed"]

NAME = "table"
EXPECTED = (
    "csv, tsv, JSON lines (or .gz, .zst) or parquet with columns for user, item and time, in one file or in parts; "
    "optionally items.csv or the like"
)

EVENT_COLUMNS = {
    "user_id": ("user_id", "user", "uid", "userid", "customer_id", "reviewerid", "visitorid"),
    "item_id": ("item_id", "item", "iid", "itemid", "movie_id", "product_id", "parent_asin", "asin"),
    "timestamp": ("timestamp", "time", "ts", "unixreviewtime", "datetime", "date"),
    "rating": ("rating", "overall", "stars", "score"),
}
"""Our columns and the names, in order of preference, by which files call them; case, spaces, `_` and `-` aside."""

EXTRA_COLUMNS = {"quantity": ("quantity", "qty"), "order": ()}
"""The same of columns that say more of an event: how many there were, and its place among those of one time."""

ITEM_COLUMNS = {
    "item_id": EVENT_COLUMNS["item_id"],
    "title": ("title", "name", "movie_title", "product_name"),
    "categories": ("categories", "category", "genres", "genre"),
}

TEXTS = ("", ".txt", ".dat", ".data", ".log", ".tab", ".psv")
"""Suffixes of tables that are taken for such where the user says so."""

OF_ITEMS = "items."
"""Before a column of ours that is named for the catalog alone."""


@dataclass(frozen=True)
class Log:
    """A table of events that is opened but not read, in one file or in several that are read apart.

    Attributes:
        parts: its files; events of equal time keep this order, then that of the rows.
        items: the table of the catalog, in one file or several; none where there is no catalog.
        mapping: our columns of events to the files'.
        texts: further columns, which become texts of the items.
        options: what the user says.
        notes: what is known so far.
    """

    parts: tuple[Place, ...]
    items: tuple[Place, ...]
    mapping: Mapping[str, str]
    texts: Mapping[str, str]
    options: Options
    notes: Mapping[str, Any]


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The tables of events: those called `interactions`, or else any that are not called `items`.

    One file of text alone is one whatever it is called, where the user is `sure`.
    """
    if sure and len(files) == 1 and files[0].suffix in TEXTS:
        return [tuple(files)]
    return parts_of(files, LOG) or grouped([file for file in files if kind(file) != CATALOG])


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads a table of events and the catalog that belongs to it.

    Raises:
        InputError: a column is missing, or see `recjax.data.importers.rows.to_events`.
    """
    log = open_log(paths, options)
    parts, notes = zip(*(read_part(log, number) for number in range(len(log.parts))), strict=True)
    account = merged(log, notes)
    events = arranged(joined(parts), options.reading, account)
    if not events.height:
        labels = {**account.get("rows_left_out", {}), **account.get("returns_cancelled", {})}
        shown = "".join(f"; {count:,} left out ({what})" for what, count in labels.items())
        raise InputError(f"{paths[0].parent if len(paths) > 1 else paths[0]} holds no rows that count{shown}")
    return finish(log, stem(log.parts[0]), events, account)


def open_log(paths: Sequence[Place], options: Options) -> Log:
    """Finds the columns and the catalog of a table of events.

    Raises:
        InputError: a column is missing, the parts differ in their columns, or there are several catalogs.
    """
    reading, items = options.reading, catalog_of(paths[0], options)
    further = {EXTRA + column: column for column in reading.columns}
    usual = EVENT_COLUMNS | EXTRA_COLUMNS
    given = {ours: theirs for ours, theirs in options.columns.items() if ours in usual}
    texts = {
        ours: theirs for ours, theirs in options.columns.items() if ours not in usual and not ours.startswith(OF_ITEMS)
    }
    if items:
        known = names(items[0])
        if given.get("item_id") in known and given["item_id"] not in names(paths[0], reading.header):
            del given["item_id"]
        texts = {}
    _check_log(paths, reading, options)
    mapping: dict[str, str] = {}
    for part in paths:
        other = match(
            names(part, reading.header),
            usual,
            given,
            part,
            required=("user_id", "item_id", "timestamp"),
            preferred=("quantity",),
            further=further | {f"text {ours}": theirs for ours, theirs in texts.items()},
        )
        other = {ours: theirs for ours, theirs in other.items() if not ours.startswith("text ")}
        mapping = mapping or other
        if other != mapping:
            shown = " and ".join(", ".join(sorted(columns.values())) for columns in (mapping, other))
            raise InputError(
                f"{label(paths[0])} and {label(part)} are parts of one log but differ in their columns: {shown}"
            )
    if reading.returns != "keep" and "quantity" not in mapping:
        raise InputError(
            f"{paths[0]} has no column of quantities, which tell returns: {reading.column('quantity', 'NAME')}"
        )
    columns = {ours: theirs for ours, theirs in mapping.items() if not ours.startswith(EXTRA)} | texts
    notes: dict[str, Any] = {"format": NAME, "files": files_note(*paths, *items), "columns": columns}
    said = {name: value for name, value in vars(reading).items() if name in _SAID and value != getattr(Reading, name)}
    return Log(tuple(paths), items, mapping, texts, options, notes | ({"reading": said} if said else {}))


def _check_log(paths: Sequence[Place], reading: Reading, options: Options) -> None:
    """Raises InputError where a table has no header, or is a catalog by all its columns."""
    try:
        found = names(paths[0], reading.header)
    except delimited.NoHeaderError as error:
        columns = ("user_id", "item_id", "timestamp")
        said = reading.option("header", columns)
        raise InputError(f"{error}; name its columns: {said}" if said else str(error)) from None
    users = match(found, {"user_id": EVENT_COLUMNS["user_id"]}, {}, paths[0], (), preferred=("user_id",))
    items = match(found, ITEM_COLUMNS, {}, paths[0], (), preferred=tuple(ITEM_COLUMNS))
    if not users and "user_id" not in options.columns and {"item_id", "title"} <= set(items):
        advice = _CATALOG_ADVICE.get(COMMAND.get(), _ELSEWHERE)
        raise InputError(f"{paths[0]} has no column of users, and looks like a catalog: {advice}")


_CATALOG_ADVICE = {"": 'read it with format="catalog"', "prepare": "give it as --items"}
_ELSEWHERE = "call it items.csv, or `recjax prepare NAME --items` it"

_SAID = ("header", "time_format", "where", "weights", "returns")
"""Attributes of `Reading` that a description of a dataset has."""


def catalog_of(path: Place, options: Options) -> tuple[Place, ...]:
    """The files of the catalog of a log: the one the user names, or the one beside the log.

    Raises:
        InputError: there are several, or the one that is named is not there.
    """
    if (given := options.reading.items) is not None:
        if not given.exists():
            raise InputError(f"there is no catalog {given}")
        if not (found := tuple(tables_in(given))):
            raise InputError(f"{given} holds no table: expected a catalog as {EXPECTED.partition(' with')[0]}")
        return found
    if not options.beside:
        return ()
    beside = parts_of(files_of(root(path)), CATALOG)
    if len(beside) > 1:
        shown = ", ".join(files[0].name for files in beside)
        raise InputError(f"{root(path)} has several catalogs: {shown}; keep one")
    return beside[0] if beside else ()


def read_part(log: Log, number: int) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The events of file `number` of a log, and the account of reading them."""
    notes: dict[str, Any] = {}
    with fetched(log.parts[number]) as part:
        rows = renamed(load(part, list(log.mapping.values()), log.options.reading.header), log.mapping)
        empty = len(log.parts) > 1 or bool(log.options.reading.columns)
        return to_events(rows, log.options, notes, dict(log.mapping), empty), notes


def merged(log: Log, notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One account of all files from one of each.

    Raises:
        InputError: some files have times, others have places in an order.
    """
    account = dict(log.notes) | notes[0]
    if len(notes) == 1:
        return account
    filled = [
        (note["timestamps"], label(part)) for note, part in zip(notes, log.parts, strict=True) if note["rows_read"]
    ]
    if filled:
        account["timestamps"] = timestamps.merged(*zip(*filled, strict=True))
    refused = {
        label(part): note["rows_refused"]
        for part, note in zip(log.parts, notes, strict=True)
        if note["rows_refused"]["total"]
    }
    account["rows_refused"] = refused or notes[0]["rows_refused"]
    for key in ("ids_written_as_floats", "ids_without_all_digits", "rows_left_out"):
        if counts := [note[key] for note in notes if key in note]:
            account[key] = dict(sum(map(Counter, counts), Counter()))
    summed = ("rows_read", "unrated", "negative_quantities")
    return account | {key: sum(note.get(key, 0) for note in notes) for key in summed if any(key in n for n in notes)}


def joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The events of several files, one after another."""
    events = pl.concat(parts, how="diagonal")
    return events.with_columns(pl.col(NANOSECOND).fill_null(0)) if NANOSECOND in events.columns else events


def arranged(events: pl.DataFrame, reading: Reading, notes: dict[str, Any]) -> pl.DataFrame:
    """The events of a whole log without its returns, where they cancel purchases, and ordered within one time.

    A column `order` becomes part of `nanosecond`: the place of (nanosecond, order) among all that there are.
    """
    keys = [column for column in (NANOSECOND, "order") if column in events.columns]
    if reading.returns == "cancel":
        events, notes["returns_cancelled"] = cancelled(events, ["timestamp", *keys])
    if "order" in keys:
        place = pl.struct(keys).rank("dense").cast(pl.Int32) - 1
        events = events.with_columns(place.alias(NANOSECOND))
    return events.drop("order", "quantity", strict=False)


def finish(log: Log, name: str, events: pl.DataFrame, notes: dict[str, Any]) -> RawLogs:
    """The catalog of a log whose events are read.

    Args:
        log: the log.
        name: of the dataset.
        events: its events; for the catalog the column `item_id` is enough.
        notes: extended in place.
    """
    texts = None
    if log.items:
        texts = read_catalog(log.items, log.options, notes)
    elif log.texts:
        texts = _items_of_events(log)
    return RawLogs(name, events, catalog.finish(texts, (*log.items, log.parts[0])[0], events, notes), notes)


def _items_of_events(log: Log) -> pl.DataFrame:
    """A catalog from the text columns of a table of events."""
    item = log.mapping["item_id"]
    columns = [pl.col(item).alias("item_id"), *(pl.col(theirs).alias(ours) for ours, theirs in log.texts.items())]
    frames = []
    for place in log.parts:
        with fetched(place) as part:
            rows = load(part, [item, *log.texts.values()], log.options.reading.header)
            frames.append(rows.collect(lambda frame: frame.select(columns))[1])
    return catalog.from_events(pl.concat(frames))


def read_catalog(places: Sequence[Place], options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    """The tables of a catalog, one after another; accounts of several files are told apart by their names."""
    frames, accounts = [], []
    for place in places:
        account: dict[str, Any] = {}
        with fetched(place) as file:
            frames.append(_read_items(file, options, account))
        accounts.append(account)
    notes |= accounts[0]
    if len(places) > 1:
        found = {label(place): account["catalog_rows_refused"] for place, account in zip(places, accounts, strict=True)}
        first = accounts[0]["catalog_rows_refused"]
        notes["catalog_rows_refused"] = {name: part for name, part in found.items() if part["total"]} or first
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{places[0].parent}: the parts of the catalog differ in their columns: {reason}") from error


def _of_catalog(options: Options, found: Sequence[str]) -> dict[str, str]:
    """Our columns of a catalog to those that the user says, of which `found` are there."""
    given = {}
    for ours, theirs in options.columns.items():
        if ours.startswith(OF_ITEMS):
            given[ours.removeprefix(OF_ITEMS)] = theirs
        elif ours not in EVENT_COLUMNS | EXTRA_COLUMNS or (ours == "item_id" and theirs in found):
            given.setdefault(ours, theirs)
    return given


def _read_items(path: Path, options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    """A catalog's table, `item_id` first, with the usual names for its title and categories and all other columns."""
    try:
        found = names(path)
    except delimited.NoHeaderError as error:
        raise InputError(f"{error} in a catalog: write a first line such as item_id,title") from None
    given = _of_catalog(options, found)
    usual = ITEM_COLUMNS | {ours: () for ours in given if ours not in ITEM_COLUMNS}
    mapping = match(found, usual, given, path, required=("item_id",), preferred=("title", "categories"))
    others = [name for name in found if name not in mapping.values()]
    if twice := [name for name in others if name in mapping]:
        others.remove(twice[0])  # the user calls another column so
    columns = [pl.col(theirs).alias(ours) for ours, theirs in mapping.items()]
    rows = load(path, found).mapped(lambda frame: frame.select(*columns, *others))
    frame = catalog.collect(rows, options, notes)
    if not is_json(path):
        return frame
    texts = [name for name in frame.columns if name != "item_id"]
    return frame.with_columns(
        catalog.joined_lists(pl.col(name), "|" if name == "categories" else " ").alias(name) for name in texts
    )
