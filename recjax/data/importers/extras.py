"""Columns of a table of events beside user, item and time: ratings, weights of kinds, order in one time, quantities."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recjax.data.importers.conditions import left_out
from recjax.data.importers.logs import NO_ID, Reading
from recjax.typing import InputError

EXTRA = "extra "
"""Before the names of columns that conditions and weights read."""


def rated(schema: pl.Schema, reading: Reading) -> Sequence[pl.Expr]:
    """Expressions `rating` (float32, null = not rated) and `unreadable` (bool), of ratings or of weights; or none."""
    if reading.kinds is not None:
        weight = reading.kinds.weight(EXTRA + reading.kinds.column).cast(pl.Float32)
        return [weight.alias("rating"), pl.lit(False).alias("unreadable")]
    return _rating(schema["rating"]) if "rating" in schema else []


def _rating(dtype: pl.DataType) -> list[pl.Expr]:
    """The same of a column of ratings."""
    value = pl.col("rating")
    if dtype == pl.String:
        value = value.str.strip_chars()
        value = pl.when(~value.str.to_lowercase().is_in(NO_ID)).then(value)
    number = value.cast(pl.Float32, strict=False)
    missing = value.is_null() if dtype == pl.String else number.is_nan().fill_null(True)
    return [
        pl.when(number.is_finite()).then(number).alias("rating"),
        (~missing & ~number.is_finite().fill_null(False)).alias("unreadable"),
    ]


def extra(path: Path, schema: pl.Schema, names: dict[str, str], reading: Reading) -> list[pl.Expr]:
    """Expressions `left`, the condition by which a row does not count, and `order` and `quantity` of columns so called.

    `unreadable order` and `unreadable quantity` (bool) say where those hold something else than a number.

    Raises:
        InputError: they hold what can be no number.
    """
    rules = [
        (found.text, found.holds(EXTRA + found.column, schema[EXTRA + found.column])) for found in reading.conditions
    ]
    if reading.kinds is not None:
        weight = reading.kinds.weight(EXTRA + reading.kinds.column)
        rules.append((f"no weight for this kind of {reading.kinds.column}", weight.is_not_null()))
    numbers = []
    for column in ("order", "quantity"):
        if column not in schema:
            continue
        value, dtype = pl.col(column), schema[column]
        if dtype.is_temporal() and column == "order":
            value = value.to_physical()
        elif not (dtype.is_numeric() or dtype in (pl.String, pl.Null)):
            if column == "quantity" and reading.returns == "keep":
                continue
            raise InputError(f"{path}: the column {names[column]} holds {dtype}, expected numbers")
        number = value.cast(pl.Float64, strict=False)
        missing = value.is_null() | value.cast(pl.String).str.strip_chars().str.to_lowercase().is_in(NO_ID)
        numbers += [number.alias(column), (number.is_null() & ~missing).alias(f"unreadable {column}")]
        if column == "quantity" and reading.returns == "drop":
            rules.append((f"{names[column]} below 0", ~(number < 0).fill_null(False)))
    return [left_out(rules).alias("left"), *numbers]


def unreadable_number(events: pl.DataFrame, reading: Reading) -> tuple[str, int] | None:
    """The column of numbers that holds something else, and the first row; of quantities where they are of use."""
    for column in ("order", *["quantity"] * (reading.returns != "keep")):
        label = f"unreadable {column}"
        if label in events.columns and events[label].any():
            return column, int(events[label].arg_max() or 0)
    return None
