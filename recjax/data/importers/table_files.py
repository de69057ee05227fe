"""Files of tables: which files are parts of one log or catalog, their columns, and reading them.

A log or a catalog in several files is `interactions-*` or `items-*`, a folder called `interactions` or `items`, or what
Spark, Hive and warehouses write: `part-00000...`, files whose names differ in numbers alone, and folders such as
`day=2024-01-31`, whose values are a column `day`. Names that begin with `_` or a dot (`_SUCCESS`) are no data.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from recjax.data.importers import delimited, json_lines
from recjax.data.importers.logs import Refusals
from recjax.data.importers.rows import ENGINE_ERRORS, Rows, unreadable
from recjax.data.store.remote import Place, size

_JSON = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".parquet", *(kind + packed for kind in (".csv", ".tsv", *_JSON) for packed in ("", ".gz", ".zst")))

LOG, CATALOG = "interactions", "items"
"""Names of files and folders that say what they hold."""

_PART = re.compile(r"part-|\d+(_|$)")
_BARE = re.compile(r"part-[\w-]+|\d+_\d+")
"""Names of Hadoop's text files, which have no suffix."""

MOST_KEYS = 200
"""Keys of an object that is a row."""

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def suffix(path: Place) -> str | None:
    """The one of `SUFFIXES` that a file has."""
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix)), None)


def stem(path: Place) -> str:
    return path.name.removesuffix(suffix(path) or "")


def is_table(path: Place) -> bool:
    """True if a file is called as tables are."""
    return suffix(path) is not None or _BARE.fullmatch(path.name) is not None


def is_json(path: Place) -> bool:
    return str(suffix(path)).startswith(_JSON)


def files_of(folder: Place) -> list[Place]:
    """The files of a folder and of its folders `day=1`, `interactions` and `items`, by name, 2 before 10."""
    found: list[Place] = []
    for entry in folder.iterdir():
        if entry.name.startswith(("_", ".")):
            continue
        if entry.is_file():
            found.append(entry)
        elif "=" in entry.name or entry.name in (LOG, CATALOG):
            found += files_of(entry)
    return sorted(found, key=_natural)


def _natural(path: Place) -> list[tuple[int, str]]:
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if number % 2 else (0, word) for number, word in enumerate(words)]


def partition(path: Place) -> dict[str, str | None]:
    """The columns that the folders `day=2024-01-31` above a file say, the outermost first."""
    found: dict[str, str | None] = {}
    folder = path.parent
    while "=" in folder.name:
        name, _, value = folder.name.partition("=")
        found = {unquote(name): None if value == _NO_VALUE else unquote(value), **found}
        folder = folder.parent
    return found


def root(path: Place) -> Place:
    """The folder of the whole dataset, of which a file is a part."""
    folder = path.parent
    while "=" in folder.name:
        folder = folder.parent
    return folder.parent if folder.name in (LOG, CATALOG) and _is_part(path) else folder


def label(path: Place) -> str:
    """A file's name, with those of the folders that tell it from other parts."""
    folders = [f"{name}={value}" for name, value in partition(path).items()]
    return "/".join([*folders, path.name])


def _is_part(path: Place) -> bool:
    return _PART.match(path.name) is not None or bool(partition(path))


def kind(path: Place) -> str:
    """`LOG` or `CATALOG` where the name of a file, or of its folder, says it is such; else ""."""
    whole = stem(path)
    for name in (LOG, CATALOG):
        if whole == name or whole.startswith(f"{name}-"):
            return name
    folder = path.parent
    while "=" in folder.name:
        folder = folder.parent
    return folder.name if folder.name in (LOG, CATALOG) and _is_part(path) else ""


def grouped(files: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Files that are parts of one table together: those whose names differ in numbers alone, and Spark's."""
    files = [file for file in files if is_table(file) and not (is_json(file) and _is_document(file))]
    if any(not is_json(file) for file in files):  # beside tables, JSON files mostly are descriptions
        files = [file for file in files if not is_json(file)]
    shapes = {re.sub(r"\d+", "#", file.name) for file in files}
    spark = all(file.name.startswith("part-") for file in files)
    parts = len(files) > 1 and (spark or len(shapes) == 1 or all(partition(file) for file in files))
    return [_filled(files)] if parts else [(file,) for file in files]


def _is_document(path: Path) -> bool:
    """True if a JSON file is no table of an object a line, but one object of all that it holds, or none."""
    return not 0 < len(json_lines.first_keys(path, 1)) <= MOST_KEYS


def parts_of(files: Sequence[Any], name: str) -> list[tuple[Any, ...]]:
    """The table called `name` among files: each file of that very name is one, the others are its parts."""
    named = [file for file in files if is_table(file) and kind(file) == name]
    whole = [(file,) for file in named if stem(file) == name]
    parts = [file for file in named if stem(file) != name]
    return [*([_filled(parts)] if parts else []), *whole]


def _filled(parts: Sequence[Any]) -> tuple[Any, ...]:
    """Parts in the order of their names, without empty files, of which Spark writes some."""
    parts = sorted(parts, key=_natural)
    return tuple(file for file in parts if size(file)) or tuple(parts[:1])


def names(path: Place, header: Sequence[str] = ()) -> list[str]:
    """Column names of a table: the file's, and those that its folders say.

    Args:
        path: of the file.
        header: names of the columns of delimited text that has no line with them.
    """
    found = _own_names(path, header)
    return [*found, *(name for name in partition(path) if name not in found)]


def _own_names(path: Place, header: Sequence[str]) -> list[str]:
    if path.name.endswith(".parquet"):
        try:
            if isinstance(path, Path):
                return pl.scan_parquet(path, hive_partitioning=False).collect_schema().names()
            stream: Any = path.open("rb")
            with stream:
                return list(pl.read_parquet_schema(stream))
        except ENGINE_ERRORS as error:
            raise unreadable(path, error, "is not a readable parquet file") from error
    return json_lines.header(path) if is_json(path) else delimited.header(path, layout(path, header))


def layout(path: Place, header: Sequence[str] = ()) -> delimited.Layout:
    """Tabs in `.tsv`, and else what the first line has most of: commas, semicolons, tabs or bars."""
    if ".tsv" in path.name:
        return delimited.Layout("\t", header=tuple(header) or None)
    line = delimited.first_line(path)[1]
    return delimited.Layout(max(",;\t|", key=line.count), header=tuple(header) or None)


def load(path: Path, columns: Sequence[str], header: Sequence[str] = ()) -> Rows:
    """Rows of a table with the columns `columns` (of the file, or of its folders)."""
    columns = list(dict.fromkeys(columns))
    folders = partition(path)
    outside = [name for name in columns if name in folders and name not in _own_names(path, header)] if folders else []
    own = [name for name in columns if name not in outside]
    if path.name.endswith(".parquet"):
        frame = pl.scan_parquet(path, hive_partitioning=False).select(own)
        rows = Rows(path, frame, lambda rows: [row + 1 for row in rows], Refusals("row"))
    elif is_json(path):
        rows = json_lines.read(path, own)
    else:
        rows = delimited.read(path, layout(path, header), own)
    if not outside:
        return rows
    values = [pl.lit(folders[name], pl.String).alias(name) for name in outside]
    return rows.mapped(lambda frame: frame.with_columns(values).select(columns))


def renamed(rows: Rows, mapping: Mapping[str, str]) -> Rows:
    """Rows with our column names instead of the file's."""
    chosen = [pl.col(theirs).alias(ours) for ours, theirs in mapping.items()]
    return rows.mapped(lambda frame: frame.select(chosen))


def tables_in(place: Place) -> Iterator[Place]:
    """A table's file, or the parts of one in a folder."""
    if place.is_file():
        yield place
    else:
        yield from (file for file in files_of(place) if is_table(file))
