"""Small raw logs made by hand or at random, for the tests of this folder."""

from typing import Any

import numpy as np
import polars as pl

from recjax.data.importers import RawLogs


def logs(rows: list[tuple[Any, ...]], catalog: pl.DataFrame | None = None, name: str = "sample") -> RawLogs:
    """Raw logs from rows (user, item, time) or (user, item, time, rating); by default every item has a title."""
    columns = ["user_id", "item_id", "timestamp", "rating"][: len(rows[0]) if rows else 3]
    types = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    frame = pl.DataFrame(rows, schema={column: types[column] for column in columns}, orient="row")
    if catalog is None:
        items = frame["item_id"].drop_nulls().unique().sort()
        catalog = pl.DataFrame({"item_id": items, "title": [f"the {item}" for item in items]})
    return RawLogs(name=name, interactions=frame, catalog=catalog, notes={"format": "test"})


def random_logs(seed: int, users: int = 30, items: int = 20, events: int = 300, span: int = 50) -> RawLogs:
    """Random events in no order, with many ties and repeats."""
    rng = np.random.default_rng(seed)
    columns = (rng.integers(0, users, events), rng.integers(0, items, events), rng.integers(0, span, events))
    rows = [(f"u{user}", f"i{item}", int(time)) for user, item, time in zip(*columns, strict=True)]
    return logs(rows)
