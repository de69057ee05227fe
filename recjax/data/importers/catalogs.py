"""A catalog alone: `items.csv` or the like without a log, a dataset of items that a model of texts can rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import catalog, tables, timestamps
from recjax.data.importers.logs import Options, RawLogs, files_note
from recjax.data.importers.table_files import CATALOG, grouped, parts_of

NAME = "catalog"
EXPECTED = "a table called items (items.csv, items.parquet, ...) with a column for the item, without a log"


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The tables called `items` among `files`; any where the user is `sure` that they are catalogs."""
    return parts_of(files, CATALOG) or (grouped(files) if sure else [])


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads a catalog.

    Raises:
        InputError: there is no column of ids, no row, or too many rows cannot be used.
    """
    notes: dict[str, Any] = {"format": NAME, "files": files_note(*paths), "rows_read": 0}
    notes["timestamps"] = {"unit": timestamps.PLACES}
    items = tables.read_catalog(paths, options, notes)
    events = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
    return RawLogs(paths[0].parent.name, events, catalog.finish(items, paths[0], events, notes), notes)
