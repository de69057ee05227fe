"""Tables of other libraries on their way in: polars and pandas frames, and whatever speaks Arrow."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from recjax.typing import InputError


def is_frame(value: Any) -> bool:
    """Whether a value is a table that `polars_frame` takes."""
    return isinstance(value, pl.DataFrame | pl.LazyFrame) or _is_pandas(value) or hasattr(value, "__arrow_c_stream__")


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def polars_frame(value: Any, what: str) -> pl.DataFrame:
    """A table as a polars frame; the index of a pandas one is left out.

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
        return pl.from_pandas(value) if _is_pandas(value) else pl.DataFrame(value)
    except Exception as error:  # of Arrow and of pandas, whatever the columns make of them
        raise InputError(f"{what} cannot be read: {' '.join(str(error).split())[:300]}") from error


@contextmanager
def as_file(value: Any, name: str, what: str | None = None) -> Iterator[Path]:
    """A table as a parquet file in a folder that goes with the block, for what reads files.

    Args:
        value: the table.
        name: of the file, without its ending.
        what: it is, for messages; by default "the frame of NAME".

    Raises:
        InputError: see `polars_frame`; and what the block raises, with `what` in the place of the file's name.
    """
    what = what or f"the frame of {name}"
    frame = polars_frame(value, what)
    with tempfile.TemporaryDirectory(prefix="recjax-") as folder:
        path = Path(folder) / f"{name}.parquet"
        frame.write_parquet(path)
        try:
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), what)) from None
