"""Id sequences: `user item item ...`, one user a line, oldest item first (S3-Rec and those who share its files).

A user may stand on several lines, which are read one after another; so files with one `user item` pair a line
(SASRec's) are read as well. There are no times: an event's timestamp is its place in the history. The attributes of
S3-Rec (`NAME_item2attributes.json`) become the text column `attributes`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import catalog, delimited, timestamps
from recjax.data.importers.delimited import Layout
from recjax.data.importers.logs import SHOWN, Options, RawLogs, files_note
from recjax.data.importers.rows import Rows
from recjax.typing import InputError

NAME = "sequences"
EXPECTED = "a .txt file with lines of `user item item ...`, separated by spaces"


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The `.txt` files among `files` that begin with a line of numbers; `sure` = the user says they are sequences."""
    texts = [file for file in files if file.suffix == ".txt" or file.name.endswith(".txt.gz")]
    if sure:
        return [(file,) for file in texts or files]
    return [(file,) for file in texts if _numbers(delimited.first_line(file)[1].split())]


def _numbers(words: list[str]) -> bool:
    return len(words) > 1 and all(word.isdigit() for word in words)


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads sequences, and the attributes beside them.

    Raises:
        InputError: more than the tolerated share of lines has no items, or the file is empty or not UTF-8.
    """
    (path,) = paths
    attributes = path.with_name(f"{path.name.split('.')[0]}_item2attributes.json")
    attributes = attributes if attributes.is_file() else None
    notes: dict[str, Any] = {"format": NAME, "files": files_note(path, attributes)}
    if not delimited.first_line(path)[1]:
        raise InputError(f"{path} is empty, expected lines of `user item item ...`")
    rows, frame = _words(path)
    sizes = frame["words"].list.len()
    for row in (sizes == 1).arg_true().to_list():
        line = rows.lines([row])[0] if rows.refusals.total < SHOWN else 0
        rows.refusals.add("a user without items", line, frame["words"][row][0])
    notes["rows_read"], notes["rows_refused"] = int((sizes > 0).sum()), rows.refusals.to_json()
    rows.refusals.check(notes["rows_read"], options.max_refused, path)
    notes["timestamps"] = {"unit": timestamps.PLACES}
    events = (
        frame.filter(sizes > 1)
        .select(pl.col("words").list.first().alias("user_id"), pl.col("words").list.slice(1).alias("item_id"))
        .explode("item_id")
        .with_columns(pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("timestamp"))
    )
    items = _attributes(attributes) if attributes else None
    return RawLogs(path.name.split(".")[0], events, catalog.finish(items, attributes, events, notes), notes)


def _words(path: Path) -> tuple[Rows, pl.DataFrame]:
    rows = delimited.read(path, Layout("\x01", quoted=False, header=("line",)))
    words = pl.col("line").str.extract_all(r"\S+").alias("words")
    return rows.collect(lambda frame: frame.select(words))


def _attributes(path: Path) -> pl.DataFrame:
    """Columns `item_id` and `attributes`, separated by `|`."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        columns = {"item_id": list(entries), "attributes": ["|".join(map(str, values)) for values in entries.values()]}
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise InputError(f"{path} is not a JSON object of lists, one per item id: {error}") from error
    return pl.DataFrame(columns, schema={"item_id": pl.String, "attributes": pl.String})
