"""Items that may be listed: given as raw ids, or in files of ids (what is in stock, a category, what is sold out)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from recjax.data.dataset import Dataset
from recjax.data.importers import table_files, tables
from recjax.data.importers.rows import identifier
from recjax.evaluate.user_events import raw_id
from recjax.typing import InputError, shorten

SHOWN = 5
"""Ids that a note names."""


def read_ids(path: Path, column: str = "item_id", columns: Mapping[str, str] | None = None) -> list[str]:
    """The ids of a file, each once, in its order.

    Args:
        path: text with an id a line (`.txt`), or a table (csv, tsv, parquet) with a column of ids: one of the usual
            names of `column`, or the only one.
        column: "item_id" or "user_id".
        columns: our column names to the file's.

    Raises:
        InputError: the file cannot be read, has no such column or no id.
    """
    if path.suffix.lower() == ".txt":
        found = _lines(path)
    elif table_files.suffix(path) is None:
        endings = ", ".join(table_files.SUFFIXES)
        raise InputError(f"{path}: a file of ids is .txt with an id a line, or a table ({endings})")
    elif not path.is_file():
        raise InputError(f"there is no file {path}")
    else:
        found = _column(path, column, columns or {})
    ids = list(dict.fromkeys(found))
    if not ids:
        raise InputError(f"{path} has no ids")
    return ids


def users_alone(path: Path, columns: Mapping[str, str] | None = None) -> list[str] | None:
    """The user ids of a file that has nothing else; None for a file with events.

    A table with more than one column is one of events: whether one of them is the items is for its reader to say.

    Args:
        path: text with an id a line (`.txt`), or a table with one column.
        columns: our column names to the file's.

    Raises:
        InputError: see `read_ids`.
    """
    if path.suffix.lower() != ".txt" and (
        table_files.suffix(path) is None or not path.is_file() or len(tables.names(path)) > 1
    ):
        return None
    return read_ids(path, "user_id", columns)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text, expected an id a line") from None
    found = pl.DataFrame({"id": lines}, schema={"id": pl.String})  # ids are read as those of tables are
    return found.select(identifier("id", pl.String()))["id"].drop_nulls().to_list()


def _column(path: Path, column: str, columns: Mapping[str, str]) -> list[str]:
    names = tables.names(path)
    given = {column: columns[column]} if columns.get(column) in names else {}
    only = {column: names[0]} if len(names) == 1 and not given else given
    mapping = tables.match(names, {column: tables.EVENT_COLUMNS[column]}, only, path, required=(column,))
    rows = tables.load(path, [mapping[column]])
    values = pl.col(mapping[column]).alias(column)
    frame = rows.collected(rows.frame.select(values))
    return frame.select(identifier(column, frame.schema[column]))[column].drop_nulls().to_list()


def item_mask(
    dataset: Dataset, candidates: Iterable[object] | None = None, exclude: Iterable[object] | None = None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The items that may be listed.

    Args:
        dataset: the catalog.
        candidates: raw ids of the only ones; None for all.
        exclude: raw ids of those that may not.

    Returns:
        bool [items + 1] by item number, or None for all of them; and the ids that the catalog does not have, in words.

    Raises:
        InputError: nothing is left.
    """
    if candidates is None and exclude is None:
        return None, ()
    mask, notes = np.ones(dataset.n_items + 1, bool), list[str]()
    numbers = {raw: number for number, raw in enumerate(dataset.item_ids) if number}
    for what, ids in (("candidates", candidates), ("excluded items", exclude)):
        if ids is None:
            continue
        if isinstance(ids, str | bytes):
            raise InputError(f"{what} are {shorten(repr(ids))}, expected a list of item ids")
        raw = list(dict.fromkeys(map(raw_id, ids)))
        known = np.array([numbers[item] for item in raw if item in numbers], np.int64)
        chosen = np.zeros_like(mask)
        chosen[known] = True
        mask &= chosen if what == "candidates" else ~chosen
        if unknown := [item for item in raw if item not in numbers]:
            shown = ", ".join(repr(shorten(item)) for item in unknown[:SHOWN]) + (
                ", ..." if len(unknown) > SHOWN else ""
            )
            notes.append(f"{len(unknown):,} of {len(raw):,} {what} are not in the catalog: {shown}")
    mask[0] = False
    if not mask.any():
        raise InputError("; ".join(["no item may be listed: none of the catalog is a candidate", *notes]))
    return mask, tuple(notes)
