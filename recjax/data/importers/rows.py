"""Rows of one file on their way to events: a lazy frame, and how to say on which line a row stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import timestamps
from recjax.data.importers.logs import ANONYMOUS, SHOWN, Options, Refusals
from recjax.typing import InputError

NOTHING = ("", "nan", "NaN", "null", "NULL", "None", "<NA>")
"""Text that stands for a missing value."""

_TIME, _RANGE, _RATING = "unreadable timestamp", "timestamp out of range (mixed units?)", "unreadable rating"
_NO_ITEM, _NO_TIME = "no item id", "no timestamp"


@dataclass(frozen=True)
class Rows:
    """One file's rows.

    Attributes:
        path: of the file.
        frame: the columns, in file order.
        lines: line numbers (from 1) of row numbers (from 0, ascending).
        unit: "line", or "row" for files that have no lines.
        refusals: rows that could not even be split into columns.
        again: the same file read carefully, for when collecting `frame` raises a Polars error.
        notes: what else there is to say about the reading.
    """

    path: Path
    frame: pl.LazyFrame
    lines: Callable[[Sequence[int]], list[int]]
    unit: str = "line"
    refusals: Refusals = field(default_factory=Refusals)
    again: Callable[[], "Rows"] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def mapped(self, change: Callable[[pl.LazyFrame], pl.LazyFrame]) -> "Rows":
        """These rows with other columns; `change` keeps their number and order."""
        again = self.again
        return replace(self, frame=change(self.frame), again=again and (lambda: again().mapped(change)))

    def sound(self, frame: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda frame: frame) -> tuple["Rows", pl.DataFrame]:
        """Collects `frame(self.frame)`; the rows are those read carefully where the fast way fails."""
        try:
            return self, frame(self.frame).collect()
        except (pl.exceptions.PolarsError, OSError) as error:  # an OSError where a gzip stream is cut or damaged
            if self.again is None:
                raise InputError(f"{self.path} cannot be read: {error}") from error
            rows = self.again()
            return rows, frame(rows.frame).collect()


def text(column: str) -> pl.Expr:
    """Stripped text of a column; null where there is none."""
    value = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(~value.is_in(NOTHING)).then(value).alias(column)


def identifier(column: str, dtype: pl.DataType) -> pl.Expr:
    """Ids as text; whole floats, which is what pandas makes of integers with gaps, as integers."""
    if dtype.is_nested() or dtype == pl.Binary:
        raise InputError(f"the column {column} holds {dtype}, expected ids (text or whole numbers)")
    if dtype.is_float():
        value = pl.col(column)
        whole = value.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(value.is_finite()).then(pl.when(value == value.floor()).then(whole).otherwise(value.cast(
            pl.String))).alias(column)  # fmt: skip
    return text(column)


def to_events(rows: Rows, options: Options, notes: dict[str, Any], names: dict[str, str]) -> pl.DataFrame:
    """Events from rows with the columns `user_id`, `item_id`, `timestamp` and perhaps `rating`, of any type.

    Adds `rows_read`, `rows_refused` and `timestamps` to `notes`.

    Args:
        rows: with our column names.
        options: how many rows may be refused.
        notes: extended in place.
        names: what the file calls the columns, for messages.

    Returns:
        See `RawLogs.interactions`.

    Raises:
        InputError: more rows are refused than `options.max_refused`, or none is left.
    """
    schema = rows.frame.collect_schema()
    assert {"user_id", "item_id", "timestamp"} <= set(schema)
    rated = "rating" in schema
    time_type = schema["timestamp"]
    if not (time_type.is_numeric() or time_type in (pl.String, pl.Date) or isinstance(time_type, pl.Datetime)):
        raise InputError(f"{rows.path}: the column {names['timestamp']} holds {time_type}; {timestamps.FIX}")
    wanted = [
        identifier("user_id", schema["user_id"]),
        identifier("item_id", schema["item_id"]),
        timestamps.as_whole("timestamp", time_type).alias("timestamp"),
        *(_rating(schema["rating"]) if rated else []),
    ]
    rows, events = rows.sound(lambda frame: frame.select(wanted))
    notes |= rows.notes
    seconds, reason, notes["timestamps"] = _seconds(events["timestamp"], rows.frame, time_type, names["timestamp"])
    events = events.with_columns(seconds.alias("timestamp"), reason.alias("reason")).with_columns(
        pl.when(pl.col("user_id").is_null()).then(pl.lit(ANONYMOUS))
        .when(pl.col("item_id").is_null()).then(pl.lit(_NO_ITEM))
        .when(pl.col("reason").is_not_null()).then(pl.col("reason"))
        .when(pl.col("unreadable") if rated else pl.lit(False)).then(pl.lit(_RATING))
        .alias("reason")
    )  # fmt: skip
    kept = events.filter(pl.col("reason").is_null()).select("user_id", "item_id", "timestamp", *["rating"] * rated)
    total = events.height + rows.refusals.total
    if kept.height < events.height:
        _refuse(rows, events["reason"], names)
    notes["rows_read"], notes["rows_refused"] = total, rows.refusals.to_json()
    rows.refusals.check(total, options.max_refused, rows.path, rows.unit)
    if rated:
        notes["unrated"] = kept["rating"].null_count()
    return kept


def _rating(dtype: pl.DataType) -> list[pl.Expr]:
    """Expressions `rating` (float32, null = not rated) and `unreadable` (bool)."""
    value = text("rating") if dtype == pl.String else pl.col("rating")
    number = value.cast(pl.Float32, strict=False)
    missing = value.is_null() if dtype == pl.String else number.is_nan().fill_null(True)
    return [
        pl.when(number.is_finite()).then(number).alias("rating"),
        (~missing & ~number.is_finite().fill_null(False)).alias("unreadable"),
    ]


def _seconds(
    numbers: pl.Series, frame: pl.LazyFrame, dtype: pl.DataType, name: str
) -> tuple[pl.Series, pl.Series, dict[str, Any]]:
    """Unix seconds; why there are none (null where there are); the note."""
    note: dict[str, Any] = {"column": name}
    iso = pl.Series([None], dtype=pl.Int64).new_from_index(0, numbers.len())
    given = numbers.is_not_null()
    if dtype == pl.String and numbers.null_count():
        # Only files with something else than whole numbers are read a second time, and only this column.
        rest = numbers.is_null().arg_true()
        texts = frame.select(text("timestamp")).collect()["timestamp"].gather(rest)
        fractions, parsed = timestamps.parse(texts)
        numbers, iso = numbers.scatter(rest, fractions), iso.scatter(rest, parsed)
        given = given.scatter(rest, texts.is_not_null())
        note["from_text"] = parsed.len() - parsed.null_count()
    if isinstance(dtype, pl.Datetime | pl.Date):
        seconds, note["unit"] = numbers, str(dtype)
    else:
        seconds, unit = timestamps.to_seconds(numbers)
        note |= unit
    unreadable = numbers.is_null() & iso.is_null()
    out = numbers.is_not_null() & seconds.is_null()
    reason = pl.select(
        pl.when(~given).then(pl.lit(_NO_TIME)).when(unreadable).then(pl.lit(_TIME)).when(out).then(pl.lit(_RANGE))
    ).to_series()
    return iso.fill_null(seconds) if note.get("from_text") else seconds, reason, note


def _refuse(rows: Rows, reason: pl.Series, names: dict[str, str]) -> None:
    """Adds the rows that have a reason to `rows.refusals`, quoting the first of them."""
    counts = reason.drop_nulls().value_counts()
    bad = reason.is_not_null().arg_true()
    # Anonymous events are quoted only when there is nothing worse to show.
    worse = (reason.is_not_null() & (reason != ANONYMOUS)).arg_true()
    first = sorted((worse if len(worse) else bad).head(SHOWN).to_list())
    quoted = rows.frame.with_row_index("row").filter(pl.col("row").is_in(first)).collect()
    column = {ANONYMOUS: "user_id", _NO_ITEM: "item_id", _RATING: "rating"}
    details = []
    for number, line, row in zip(first, rows.lines(first), quoted.iter_rows(named=True), strict=True):
        key = column.get(reason[number], "timestamp")
        why = f"{reason[number]} (column {names.get(key, key)})"
        details.append({"line": line, "reason": why, "found": "" if row[key] is None else str(row[key])})
    by_reason = dict(zip(*counts.to_dict(as_series=False).values(), strict=True))
    hint = f"Timestamps: {timestamps.FIX}" if _TIME in by_reason else ""
    rows.refusals.add_many(by_reason, details, hint)
