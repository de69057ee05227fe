"""Tables of other libraries on their way in: polars and pandas frames, and whatever speaks Arrow."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from recjax.typing import InputError


def is_frame(value: Any) -> bool:
    """True if a value is a table that `polars_frame` takes; a single column is none."""
    if isinstance(value, pl.DataFrame | pl.LazyFrame) or _is_pandas(value):
        return True
    return hasattr(value, "__arrow_c_stream__") and not hasattr(value, "to_list")


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def polars_frame(value: Any, what: str) -> pl.DataFrame:
    """A table as a polars frame; the index of a pandas one is left out unless it has a name.

    Args:
        value: the table.
        what: it is, for messages.

    Raises:
        InputError: it is no table, or has a column that Arrow cannot hold.
    """
    if not is_frame(value):
        raise InputError(f"{what} is {type(value).__name__}, expected a polars or a pandas frame")
    try:
        if isinstance(value, pl.LazyFrame):
            return value.collect()
        if not _is_pandas(value):
            return pl.DataFrame(value)
        if any(name is not None for name in value.index.names):
            value = value.reset_index()
        return pl.DataFrame([_series(value, name) for name in value.columns])
    except Exception as error:  # of Arrow and of pandas, whatever the columns make of them
        raise InputError(f"{what} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _series(frame: Any, name: Any) -> pl.Series:
    """A column of a pandas frame; one of values of several types (1 and "b") as their texts."""
    column = frame[name].reset_index(drop=True)
    try:
        found: pl.Series = pl.from_pandas(column)  # pyright: ignore[reportAssignmentType]
        return found.alias(str(name))
    except Exception:  # of Arrow, which has one type a column
        texts = [None if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]
        return pl.Series(str(name), texts, dtype=pl.String)


@contextmanager
def as_file(value: Any, name: str, folder: Path | None = None) -> Iterator[Path]:
    """A table as a parquet file that goes with the block, for what reads files.

    Args:
        value: the table.
        name: of the file, without its ending.
        folder: that it is written to, and goes by itself; None for one of its own.

    Raises:
        InputError: see `polars_frame`; and what the block raises, with "the frame of NAME" in the place of the path.
    """
    what = f"the frame of {name}"
    frame = polars_frame(value, what)
    with tempfile.TemporaryDirectory(prefix="recjax-") as own:
        path = (folder or Path(own)) / f"{name}.parquet"
        frame.write_parquet(path)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), what)) from None
