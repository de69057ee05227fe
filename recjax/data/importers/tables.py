"""Tables with named columns: csv, tsv (plain or gzipped) and parquet. recjax's own uniform form is one of them.

The uniform form is a folder with `interactions.csv.gz` (`user_id`, `item_id`, `timestamp` and perhaps `rating`) and
`items.csv.gz` (`item_id`, `title` and any further texts). A log in several files is `interactions-*.csv.gz` or the
like: they are read in the order of their names, as if they were one. Other tables need their columns named only where
the names are not among the usual ones:

    read(Path("online_retail.parquet"), columns={"item_id": "Description", "timestamp": "InvoiceDate"})
"""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import catalog, delimited, timestamps
from recjax.data.importers.logs import Options, RawLogs, Refusals, files_note
from recjax.data.importers.rows import ENGINE_ERRORS, Rows, to_events, unreadable
from recjax.data.importers.timestamps import NANOSECOND
from recjax.data.store.remote import Place, fetched
from recjax.typing import InputError, shorten

NAME = "table"
EXPECTED = "csv, tsv (or .gz) or parquet with columns for user, item and time; optionally items.csv or items.parquet"
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

EVENT_COLUMNS = {
    "user_id": ("user_id", "user", "uid", "userid", "customer_id", "reviewerid", "visitorid"),
    "item_id": ("item_id", "item", "iid", "itemid", "movie_id", "product_id", "parent_asin", "asin"),
    "timestamp": ("timestamp", "time", "ts", "unixreviewtime", "datetime", "date"),
    "rating": ("rating", "overall", "stars", "score"),
}
"""Our columns and the names, in order of preference, by which files call them; case, spaces, `_` and `-` aside."""

ITEM_COLUMNS = {
    "item_id": EVENT_COLUMNS["item_id"],
    "title": ("title", "name", "movie_title", "product_name"),
    "categories": ("categories", "category", "genres", "genre"),
}


def suffix(path: Place) -> str | None:
    """The one of `SUFFIXES` that a file has."""
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix)), None)


def stem(path: Place) -> str:
    return path.name.removesuffix(suffix(path) or "")


@dataclass(frozen=True)
class Log:
    """A table of events that is opened but not read, in one file or in several that are read apart.

    Attributes:
        parts: its files; events of equal time keep this order, then that of the rows.
        items: the table of the catalog beside them.
        mapping: our columns of events to the files'.
        texts: further columns, which become texts of the items.
        options: what the user says.
        notes: what is known so far.
    """

    parts: tuple[Place, ...]
    items: Place | None
    mapping: Mapping[str, str]
    texts: Mapping[str, str]
    options: Options
    notes: Mapping[str, Any]


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The tables of events in a folder: `interactions.*`, `interactions-*`, or else any but `items.*`."""
    del sure
    tables = [file for file in files if suffix(file)]
    parts = tuple(file for file in tables if stem(file).startswith("interactions-"))
    if parts:
        return [parts, *((file,) for file in tables if stem(file) == "interactions")]
    others = [file for file in tables if stem(file) != "items"]
    return [(file,) for file in [file for file in tables if stem(file) == "interactions"] or others]


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads a table of events, and the table `items.*` beside it when the events are called `interactions`.

    Raises:
        InputError: a column is missing, or see `recjax.data.importers.rows.to_events`.
    """
    log = open_log(paths, options)
    events, notes = zip(*(read_part(log, number) for number in range(len(log.parts))), strict=True)
    return finish(log, stem(log.parts[0]), joined(events), merged(log, notes))


def open_log(paths: Sequence[Place], options: Options) -> Log:
    """Finds the columns and the catalog of a table of events.

    Raises:
        InputError: a column is missing, the parts differ in their columns, or there are several catalogs.
    """
    path, items = paths[0], None
    if stem(path).partition("-")[0] == "interactions":
        beside = [file for file in sorted(path.parent.iterdir()) if suffix(file) and stem(file) == "items"]
        if len(beside) > 1:
            raise InputError(f"{path.parent} has several catalogs: {', '.join(file.name for file in beside)}; keep one")
        items = beside[0] if beside else None
    mapping: dict[str, str] = {}
    for part in paths:
        found = names(part)
        other = match(found, EVENT_COLUMNS, options.columns, part, required=("user_id", "item_id", "timestamp"))
        mapping = mapping or other
        if other != mapping:
            shown = " and ".join(", ".join(sorted(columns.values())) for columns in (mapping, other))
            raise InputError(f"{path.name} and {part.name} are parts of one log but differ in their columns: {shown}")
    texts = {ours: theirs for ours, theirs in options.columns.items() if ours not in EVENT_COLUMNS}
    found = names(path)
    if unknown := {ours: theirs for ours, theirs in texts.items() if theirs not in found}:
        raise missing(unknown, found, path)
    notes = {"format": NAME, "files": files_note(*paths, items), "columns": mapping | texts}
    return Log(tuple(paths), items, mapping, texts, options, notes)


def read_part(log: Log, number: int) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The events of file `number` of a log, and the account of reading them."""
    notes: dict[str, Any] = {}
    with fetched(log.parts[number]) as part:
        rows = renamed(load(part, list(log.mapping.values())), log.mapping)
        return to_events(rows, log.options, notes, dict(log.mapping)), notes


def merged(log: Log, notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One account of all files from one of each.

    Raises:
        InputError: some files have times, others have places in an order.
    """
    account = dict(log.notes) | notes[0]
    if len(notes) == 1:
        return account
    times = timestamps.merged([note["timestamps"] for note in notes], [part.name for part in log.parts])
    account["timestamps"] = times
    refused = {
        part.name: note["rows_refused"]
        for part, note in zip(log.parts, notes, strict=True)
        if note["rows_refused"]["total"]
    }
    account["rows_refused"] = refused or notes[0]["rows_refused"]
    for key in ("ids_written_as_floats", "ids_without_all_digits"):
        if counts := [note[key] for note in notes if key in note]:
            account[key] = dict(sum(map(Counter, counts), Counter()))
    return account | {key: sum(note[key] for note in notes) for key in ("rows_read", "unrated") if key in notes[0]}


def joined(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The events of several files, one after another."""
    events = pl.concat(parts, how="diagonal")
    return events.with_columns(pl.col(NANOSECOND).fill_null(0)) if NANOSECOND in events.columns else events


def finish(log: Log, name: str, events: pl.DataFrame, notes: dict[str, Any]) -> RawLogs:
    """The catalog of a log whose events are read.

    Args:
        log: the log.
        name: of the dataset.
        events: its events; for the catalog the column `item_id` is enough.
        notes: extended in place.
    """
    if log.items is not None:
        with fetched(log.items) as items:
            texts = read_items(items, log.options, notes)
    else:
        texts = _items_of_events(log) if log.texts else None
    return RawLogs(name, events, catalog.finish(texts, log.items or log.parts[0], events, notes), notes)


def _items_of_events(log: Log) -> pl.DataFrame:
    """A catalog from the text columns of a table of events."""
    item = log.mapping["item_id"]
    columns = [pl.col(item).alias("item_id"), *(pl.col(theirs).alias(ours) for ours, theirs in log.texts.items())]
    frames = []
    for place in log.parts:
        with fetched(place) as part:
            frames.append(load(part, [item, *log.texts.values()]).collect(lambda frame: frame.select(columns))[1])
    return catalog.from_events(pl.concat(frames))


def names(path: Place) -> list[str]:
    """Column names of a table."""
    if path.name.endswith(".parquet"):
        try:
            if isinstance(path, Path):
                return pl.scan_parquet(path).collect_schema().names()
            stream: Any = path.open("rb")
            with stream:
                return list(pl.read_parquet_schema(stream))
        except ENGINE_ERRORS as error:
            raise unreadable(path, error, "is not a readable parquet file") from error
    return delimited.header(path, layout(path))


def layout(path: Place) -> delimited.Layout:
    """Tabs in `.tsv`, and in `.csv` what the header has most of: commas, semicolons or tabs."""
    if ".tsv" in path.name:
        return delimited.Layout("\t")
    line = delimited.first_line(path)[1]
    return delimited.Layout(max(",;\t", key=line.count))


def load(path: Path, columns: Sequence[str]) -> Rows:
    """Rows of a table with the columns `columns` (of the file)."""
    columns = list(dict.fromkeys(columns))
    if path.name.endswith(".parquet"):
        frame = pl.scan_parquet(path).select(columns)
        return Rows(path, frame, lambda rows: [row + 1 for row in rows], Refusals("row"))
    return delimited.read(path, layout(path), columns)


def renamed(rows: Rows, mapping: Mapping[str, str]) -> Rows:
    """Rows with our column names instead of the file's."""
    chosen = [pl.col(theirs).alias(ours) for ours, theirs in mapping.items()]
    return rows.mapped(lambda frame: frame.select(chosen))


def read_items(path: Path, options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    """A catalog's table, `item_id` first, with the usual names for its title and categories and all other columns."""
    found = names(path)
    mapping = match(found, ITEM_COLUMNS, {}, path, required=("item_id",), preferred=("title", "categories"))
    others = [name for name in found if name not in mapping.values()]
    columns = [pl.col(theirs).alias(ours) for ours, theirs in mapping.items()]
    rows = load(path, found).mapped(lambda frame: frame.select(*columns, *others))
    return catalog.collect(rows, options, notes)


def match(
    found: Sequence[str],
    usual: Mapping[str, Sequence[str]],
    given: Mapping[str, str],
    path: Place,
    required: Sequence[str],
    preferred: Collection[str] = (),
) -> dict[str, str]:
    """Columns of a file by our names.

    A column that is called exactly as ours is that one, whatever looks like it. Otherwise there must be one column that
    goes by one of the usual names.

    Args:
        found: the file's columns.
        usual: our columns and how files call them.
        given: our columns to the file's, as the user says.
        path: for messages.
        required: our columns that must be there.
        preferred: our columns of which a file may have several, the first of the usual names being the better one.

    Raises:
        InputError: required or given columns are missing, all of them named, or several columns may be one of ours.
    """
    plain: dict[str, list[str]] = {}
    for name in found:
        plain.setdefault(_plain(name), []).append(name)
    mapping: dict[str, str] = {}
    absent: dict[str, str] = {}
    for ours, aliases in usual.items():
        theirs = given.get(ours)
        if theirs is not None and theirs not in found:
            absent[ours] = theirs
        elif theirs is not None or ours in found:
            mapping[ours] = theirs or ours
        elif candidates := _candidates(plain, aliases, ours in preferred):
            if len(candidates) > 1:
                shown = " and ".join(map(repr, candidates))
                raise InputError(f"{path}: {shown} may each be the column {ours}; {_advice(ours, candidates[0])}")
            mapping[ours] = candidates[0]
        elif ours in required:
            absent[ours] = ours
    if absent:
        raise missing(absent, found, path)
    for theirs in mapping.values():
        if len(users := [ours for ours, column in mapping.items() if column == theirs]) > 1:
            raise InputError(f"{path}: the column {theirs!r} is named as {' and as '.join(users)}; name another")
    return mapping


def _candidates(plain: Mapping[str, Sequence[str]], aliases: Sequence[str], first: bool) -> list[str]:
    """Columns that go by one of the names, by the first that any goes by if `first`; exact names before look-alikes."""
    candidates: list[str] = []
    for group in dict.fromkeys(_plain(alias) for alias in aliases):
        alike = plain.get(group, ())
        candidates += [name for name in alike if name in aliases] or alike
        if first and candidates:
            break
    return candidates


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _advice(ours: str, theirs: str) -> str:
    return f"call it {ours}, or prepare with --column {ours}={theirs}"


def missing(wanted: Mapping[str, str], found: Sequence[str], path: Place) -> InputError:
    """The error for columns that are not there: ours, and the file's that they should be."""
    hints = []
    for ours, column in wanted.items():
        near = difflib.get_close_matches(_plain(column), [_plain(name) for name in found], n=1, cutoff=0.7)
        if nearest := next((name for name in found if near and _plain(name) == near[0]), None):
            hints.append(f"; the nearest to {column!r} is {nearest!r}: if it is that one, {_advice(ours, nearest)}")
    noun = "column" if len(wanted) == 1 else "columns"
    there = shorten(", ".join(found), 500)
    return InputError(f"{path} has no {noun} {', '.join(map(repr, wanted.values()))}; found: {there}{''.join(hints)}")
