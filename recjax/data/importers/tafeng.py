"""Ta-Feng as next-basket recommendation has it: each customer's baskets in two files, in order and without times.

`*_history.csv` has the earlier baskets and `*_future.csv` the later ones, each numbered from 1. The later ones are
numbered on here, so that the number is the time of a basket.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recjax.data.importers import delimited, tables
from recjax.data.importers.logs import Options, RawLogs
from recjax.typing import InputError

NAME = "tafeng"
EXPECTED = "*_history.csv and *_future.csv with CUSTOMER_ID, ORDER_NUMBER and MATERIAL_NUMBER"

_COLUMNS = {"user_id": "CUSTOMER_ID", "item_id": "MATERIAL_NUMBER", "timestamp": "ORDER_NUMBER"}
_ENDINGS = ("_history.csv", "_future.csv")


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The pairs of files with one name before their endings."""
    del sure
    begins = [file.name.removesuffix(_ENDINGS[0]) for file in files if file.name.endswith(_ENDINGS[0])]
    pairs = [tuple(file for end in _ENDINGS for file in files if file.name == begin + end) for begin in begins]
    return [pair for pair in pairs if len(pair) == 2 and all(map(_is_of_baskets, pair))]


def _is_of_baskets(file: Path) -> bool:
    return set(_COLUMNS.values()) <= set(delimited.header(file, delimited.Layout()))


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads both files, the later after the earlier.

    Raises:
        InputError: order numbers that are none, or see `recjax.data.importers.rows.to_events`.
    """
    log = tables.open_log(paths, Options(_COLUMNS, options.max_refused))
    (earlier, later), notes = zip(*(tables.read_part(log, part) for part in (0, 1)), strict=True)
    for part, events in zip(log.parts, (earlier, later), strict=True):
        if (lowest := events["timestamp"].min()) is not None and lowest != 1:
            raise InputError(f"{part}: ORDER_NUMBER begins at {lowest}, expected baskets numbered from 1")
    before = earlier.group_by("user_id").agg(pl.col("timestamp").max().alias("before"))
    numbered = later.join(before, on="user_id", how="left", maintain_order="left").select(
        "user_id", "item_id", pl.col("timestamp") + pl.col("before").fill_null(0)
    )
    account = tables.merged(log, notes) | {"format": NAME}
    return tables.finish(log, paths[0].parent.name, tables.joined([earlier, numbered]), account)
