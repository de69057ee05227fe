"""JSON lines, plain, gzipped or zst: Polars, streaming; line by line where it stops, and for Python's own notation."""

import ast
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers.delimited import UNREADABLE, encoding, first_line, open_binary
from recjax.data.importers.logs import Refusals
from recjax.data.importers.rows import Rows
from recjax.data.store.remote import Place
from recjax.typing import InputError, shorten


def read(path: Path, keys: Sequence[str]) -> Rows:
    """Rows of a file with one JSON object a line; the columns `keys` as text, lists and objects as JSON.

    Lines that are no JSON but a Python dict (the metadata of 2014) are parsed as literals, never evaluated, and counted
    in `Rows.notes["python_lines"]`. Other lines are refused.
    """
    frame = pl.scan_ndjson(path, schema=dict.fromkeys(keys, pl.String))
    return Rows(path, frame, partial(_locate, path), again=partial(_careful, path, list(keys)))


def first_keys(path: Place, lines: int = 100) -> list[str]:
    """The keys of the objects in the first few lines, in order; empty when the first is no object."""
    keys: dict[str, None] = {}
    try:
        with open_binary(path) as stream:
            filled = (line for line in stream if line.strip())
            for number, line in zip(range(lines), filled, strict=False):
                entry = _parse(line.decode("utf-8-sig", "replace"))[0]
                if entry is None and number == 0:
                    return []
                keys |= dict.fromkeys(key for key in entry or {} if isinstance(key, str))
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return list(keys)


def header(path: Place) -> list[str]:
    """The keys of a table's objects, those of its first thousands of lines.

    Raises:
        InputError: the first line is no object.
    """
    if keys := first_keys(path, 10_000):
        return keys
    line, start = first_line(path)
    if not line:
        raise InputError(f"{path} is empty, expected JSON lines")
    raise InputError(f"{path}, line {line}: expected an object a line, found {shorten(start)!r}")


def _parse(line: str) -> tuple[dict[str, Any] | None, bool]:
    """The object in a line, None when there is none; and whether it is in Python's notation."""
    try:
        entry, loose = json.loads(line), False
    except (ValueError, RecursionError):
        try:
            entry, loose = ast.literal_eval(line.strip()), True
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return None, False
    return (entry, loose) if isinstance(entry, dict) else (None, False)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        # Python's notation has more than JSON: keys that are tuples, whole numbers of any length.
        value = json.dumps(value, ensure_ascii=False, default=str)
    return value.encode("utf-8", "replace").decode()  # half a surrogate pair is no text


def _locate(path: Path, rows: Sequence[int]) -> list[int]:
    """Line numbers of ascending row numbers; blank lines are no rows."""
    wanted, lines, row = set(rows), [], 0
    with open_binary(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            if row in wanted:
                lines.append(number)
                if len(lines) == len(wanted):
                    break
            row += 1
    return lines


def _careful(path: Path, keys: list[str]) -> Rows:
    refusals, lines, loose = Refusals(), [], 0
    columns: dict[str, list[str | None]] = {key: [] for key in keys}
    encoding(path, latin=False)
    with open_binary(path) as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.decode("utf-8-sig")
            if not line.strip():
                continue
            entry, is_loose = _parse(line)
            if entry is None:
                refusals.add("not a JSON object", number, shorten(line))
                continue
            try:
                texts = [_text(entry.get(key)) for key in columns]
            except (ValueError, TypeError, RecursionError):
                refusals.add("a value that JSON does not have", number, shorten(line))
                continue
            loose += is_loose
            lines.append(number)
            for column, text in zip(columns.values(), texts, strict=True):
                column.append(text)
    frame = pl.DataFrame(columns, schema=dict.fromkeys(keys, pl.String))
    notes = {"python_lines": loose} if loose else {}
    return Rows(path, frame.lazy(), lambda rows: [lines[row] for row in rows], refusals=refusals, notes=notes)
