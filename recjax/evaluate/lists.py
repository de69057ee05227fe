"""Lists of recommendations in files, csv or parquet by the ending of the name, and on the console."""

import errno
import io
import itertools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import rich.box
from rich.markup import escape
from rich.table import Table

from recjax.files import replacing
from recjax.typing import InputError

ENDINGS = (".csv", ".parquet")


def check(path: Path) -> None:
    """Checks, before anything is computed, that lists can be written to a file.

    Raises:
        InputError: the ending is neither `.csv` nor `.parquet`, or nothing can be written there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: lists are written as {' or '.join(ENDINGS)}, by the ending of the name")
    check_writable(path)


def check_distinct(files: Mapping[str, Path | None]) -> None:
    """Raises InputError where two of a command's files are one, by whatever name.

    Args:
        files: option -> path, or None where it is not given.
    """
    given = [(option, path) for option, path in files.items() if path is not None]
    for (one, path), (other, same) in itertools.combinations(given, 2):
        if _same(path, same):
            raise InputError(f"{one} and {other} are the same file, {path}: it would be written over")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(one) == os.path.realpath(other)


def check_writable(path: Path) -> None:
    """Raises InputError where nothing can be written to a file, or to the folder in which its own is to be made."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(folder for folder in path.parents if os.path.lexists(folder))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> InputError:
    """The error for a file that cannot be written."""
    return InputError(f"cannot write {path}: {error.strerror or error}")


def write(table: pl.DataFrame, path: Path) -> None:
    """Writes lists, whole or not at all.

    Args:
        table: the columns of `recjax.evaluate.recommend.Recommendations`.
        path: of the file; see `check`.

    Raises:
        InputError: it cannot be written.
    """
    check(path)
    content = encoded(table, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            new.write_bytes(content)
    except OSError as error:
        raise unwritable(path, error) from error


def encoded(table: pl.DataFrame, path: Path) -> bytes:
    """The bytes of the file that `path` names."""
    content = io.BytesIO()
    if path.suffix.lower() == ".csv":
        table.write_csv(content)
    else:
        table.write_parquet(content)
    return content.getvalue()


def shown(table: pl.DataFrame, one_user: bool) -> Table:
    """Lists as a table for the console; without the user's name where there is one user."""
    result = Table(box=rich.box.SIMPLE_HEAD)
    names = [name for name in table.columns if name != "fallback" and not (one_user and name == "user_id")]
    for name in names:
        result.add_column(name, justify="right" if name in ("rank", "score") else "left", overflow="fold")
    for row in table.select(names).iter_rows():
        result.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else escape(str(cell or "")) for cell in row))
    return result
