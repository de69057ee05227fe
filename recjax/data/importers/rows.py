"""Rows of one file on their way to events: a lazy frame, and how to say on which line a row stands."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import timestamps
from recjax.data.importers.logs import ANONYMOUS, SHOWN, Options, Refusals
from recjax.data.importers.timestamps import NANOSECOND
from recjax.typing import InputError, shorten

NOTHING = ("", "nan", "NaN", "null", "NULL", "None", "<NA>", "NA", "N/A", "\\N")
"""Text that stands for a missing value."""

NO_ID = ("", "nan", "null", "none", "<na>", "na", "n/a", "#n/a", "nat", "nil", "undefined", "\\n")
"""The same of ids, times and ratings, in small letters."""

_TIME, _RATING = "unreadable timestamp", "unreadable rating"
_NO_ITEM, _NO_TIME = "no item id", "no timestamp"
_FLOAT = r"^-?\d+\.0+$"
"""A whole number as text of a float, which is what pandas writes of whole numbers with gaps."""

_SCIENTIFIC = r"^-?\d(\.\d+)?[eE]\+\d+$"
"""A long number as spreadsheets write it."""

ENGINE_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""Errors of Polars on damaged files; a panic is no Exception to Python, and would pass by everything else."""


@dataclass(frozen=True)
class Rows:
    """One file's rows.

    Attributes:
        path: of the file.
        frame: the columns, in file order.
        lines: line numbers (from 1) of row numbers (from 0, ascending).
        refusals: rows that could not even be split into columns.
        again: the same file read carefully, for when collecting `frame` raises a Polars error.
        notes: what else there is to say about the reading.
    """

    path: Path
    frame: pl.LazyFrame
    lines: Callable[[Sequence[int]], list[int]]
    refusals: Refusals = field(default_factory=Refusals)
    again: Callable[[], "Rows"] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def mapped(self, change: Callable[[pl.LazyFrame], pl.LazyFrame]) -> "Rows":
        """These rows with other columns; `change` keeps their number and order."""
        again = self.again
        return replace(self, frame=change(self.frame), again=again and (lambda: again().mapped(change)))

    def collect(
        self, frame: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda frame: frame
    ) -> tuple["Rows", pl.DataFrame]:
        """Collects `frame(self.frame)`; the rows are those read carefully where the fast way fails."""
        try:
            return self, frame(self.frame).collect()
        except ENGINE_ERRORS as error:  # an OSError where a gzip stream is cut or damaged
            if self.again is None:
                raise unreadable(self.path, error) from error
            rows = self.again()
            return rows, rows.collected(frame(rows.frame))

    def schema(self) -> pl.Schema:
        """Names and types of the columns.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            return self.frame.collect_schema()
        except ENGINE_ERRORS as error:
            raise unreadable(self.path, error) from error

    def collected(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """`frame`, collected.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            return frame.collect()
        except ENGINE_ERRORS as error:
            raise unreadable(self.path, error) from error


def unreadable(path: object, error: BaseException, what: str = "cannot be read") -> InputError:
    """The error for a file that Polars cannot read, in one line and without its expressions."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, pl.exceptions.PanicException) or re.search(r"col\(|\.cast\(|unwrap|resolving", reason):
        reason = "it is damaged"
    return InputError(f"{path} {what}: {shorten(reason, 160)}")


def text(column: str, nothing: Sequence[str] = NOTHING) -> pl.Expr:
    """Stripped text of a column; null where there is none."""
    value = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(~value.is_in(nothing)).then(value).alias(column)


def identifier(column: str, dtype: pl.DataType) -> pl.Expr:
    """Ids as text; whole floats, which is what pandas makes of integers with gaps, as integers.

    Raises:
        InputError: the type is none of ids.
    """
    value = pl.col(column)
    if not (dtype.is_numeric() or dtype in (*_TEXTS, pl.Boolean, pl.Null) or dtype.is_temporal()):
        raise InputError(f"the column {column} holds {dtype}, expected ids (text or whole numbers)")
    if dtype == pl.Duration:
        raise InputError(f"the column {column} holds {dtype}, expected ids (text or whole numbers)")
    if dtype.is_float():
        whole = value.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(value.is_finite()).then(pl.when(value == value.floor()).then(whole).otherwise(value.cast(
            pl.String))).alias(column)  # fmt: skip
    value = value.cast(pl.String).str.strip_chars()
    value = pl.when(~value.str.to_lowercase().is_in(NO_ID)).then(value)
    return pl.when(value.str.contains(_FLOAT)).then(value.str.replace(r"\.0+$", "")).otherwise(value).alias(column)


def _float_counts(column: str, dtype: pl.DataType) -> list[pl.Expr]:
    """Counts of the ids of a column that are whole numbers written as floats, and of those that have lost digits."""
    value, lost = (pl.col(column) if dtype == pl.String else pl.lit("")).str.strip_chars(), pl.lit(0)
    if dtype == pl.String:
        lost = value.str.contains(_SCIENTIFIC).sum()
    elif dtype.is_float():
        lost = (pl.col(column).abs() > 2**53).sum()
    return [value.str.contains(_FLOAT).sum().alias(f"floats of {column}"), lost.alias(f"lost in {column}")]


def has_text(dtype: pl.DataType) -> bool:
    """Whether a column of this type is text, or categories, which are."""
    return dtype in _TEXTS


_TEXTS = (pl.String, pl.Categorical, pl.Enum)


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
    rows, schema = _plain(rows, names)
    rated = "rating" in schema
    wanted = [
        identifier("user_id", schema["user_id"]),
        identifier("item_id", schema["item_id"]),
        *timestamps.expressions("timestamp", schema["timestamp"]),
        *(_rating(schema["rating"]) if rated else []),
        *(count for column in ("user_id", "item_id") for count in _float_counts(column, schema[column])),
    ]
    rows, events = rows.collect(lambda frame: frame.select(wanted))
    notes |= rows.notes
    _note_floats(events, notes, names)
    times, reason, notes["timestamps"] = _times(events, rows, schema["timestamp"], names["timestamp"])
    nanosecond = (times["below"] * 1e9).round().cast(pl.Int32).fill_null(0)
    finer = [nanosecond.alias(NANOSECOND)] if (nanosecond > 0).any() else []
    events = events.with_columns(times["timestamp"], reason.alias("reason"), *finer).with_columns(
        pl.when(pl.col("user_id").is_null()).then(pl.lit(ANONYMOUS))
        .when(pl.col("item_id").is_null()).then(pl.lit(_NO_ITEM))
        .when(pl.col("reason").is_not_null()).then(pl.col("reason"))
        .when(pl.col("unreadable") if rated else pl.lit(False)).then(pl.lit(_RATING))
        .alias("reason")
    )  # fmt: skip
    columns = ["user_id", "item_id", "timestamp", *["rating"] * rated, *[NANOSECOND] * bool(finer)]
    kept = events.filter(pl.col("reason").is_null()).select(columns)
    total = events.height + rows.refusals.total
    if kept.height < events.height:
        _refuse(rows, events["reason"], names)
    notes["rows_read"], notes["rows_refused"] = total, rows.refusals.to_json()
    rows.refusals.check(total, options.max_refused, rows.path)
    if rated:
        notes["unrated"] = kept["rating"].null_count()
    return kept


def _plain(rows: Rows, names: dict[str, str]) -> tuple[Rows, pl.Schema]:
    """Rows with categories as text, and the types of their columns.

    Raises:
        InputError: a column holds what it cannot hold.
    """
    schema = rows.schema()
    categories = [column for column, dtype in schema.items() if dtype != pl.String and has_text(dtype)]
    if categories:
        rows = rows.mapped(lambda frame: frame.with_columns(pl.col(categories).cast(pl.String)))
        schema = rows.schema()
    time, rating = schema["timestamp"], schema.get("rating", pl.Null())
    if not (time.is_numeric() or time in (pl.String, pl.Date) or isinstance(time, pl.Datetime)):
        raise InputError(f"{rows.path}: the column {names['timestamp']} holds {time}; {timestamps.FIX}")
    if not (rating.is_numeric() or rating in (pl.String, pl.Boolean, pl.Null)):
        raise InputError(f"{rows.path}: the column {names['rating']} holds {rating}, expected numbers")
    for column in ("user_id", "item_id"):
        try:
            identifier(column, schema[column])
        except InputError as error:
            raise InputError(f"{rows.path}: {error}") from None
    return rows, schema


def _note_floats(events: pl.DataFrame, notes: dict[str, Any], names: dict[str, str]) -> None:
    """Adds to the notes how many ids are floats, and how many of those too large for all their digits, by column."""
    if not events.height:
        return
    for key, label in (("ids_written_as_floats", "floats of"), ("ids_without_all_digits", "lost in")):
        counts = {names[column]: int(events[f"{label} {column}"][0] or 0) for column in ("user_id", "item_id")}
        if any(counts.values()):
            notes[key] = {column: count for column, count in counts.items() if count}


def _rating(dtype: pl.DataType) -> list[pl.Expr]:
    """Expressions `rating` (float32, null = not rated) and `unreadable` (bool)."""
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


def _times(
    events: pl.DataFrame, rows: Rows, dtype: pl.DataType, name: str
) -> tuple[pl.DataFrame, pl.Series, dict[str, Any]]:
    """Columns `timestamp` (unix seconds) and `below` (the rest, in seconds); why there are none; the note."""
    note: dict[str, Any] = {"column": name}
    found = events.select("timestamp", "below" if "below" in events.columns else pl.lit(0.0).alias("below"))
    iso = pl.DataFrame(schema=found.schema)
    given = found["timestamp"].is_not_null()
    if dtype == pl.String and not given.all():
        # Only files with something else than whole numbers are read a second time, and only this column.
        rest = (~given).arg_true()
        texts = rows.collected(rows.frame.select(_time_text())).to_series().gather(rest)
        numbers, parsed = timestamps.parse(texts)
        found = _scattered(found, rest, numbers)
        iso = _scattered(found.clear().clear(found.height), rest, parsed)
        given = given.scatter(rest, texts.is_not_null())
        note["from_text"] = parsed.height - parsed["timestamp"].null_count()
    there = found["timestamp"].is_not_null()
    if isinstance(dtype, pl.Datetime | pl.Date):
        note |= {"unit": str(dtype), "units": {str(dtype): int(there.sum())}}
    else:
        found, unit = timestamps.to_seconds(found["timestamp"], found["below"], not note.get("from_text"))
        note |= unit
    if note.get("from_text"):
        there |= iso["timestamp"].is_not_null()
        found = found.select(
            pl.when(iso["timestamp"].is_not_null()).then(iso[column]).otherwise(pl.col(column)).alias(column)
            for column in found.columns
        )
    if note["unit"] != timestamps.ORDER:
        inside = pl.col("timestamp").is_between(timestamps.FIRST, timestamps.LAST)
        found = found.with_columns(pl.when(inside).then(pl.col("timestamp")))
    out = there & found["timestamp"].is_null()
    reason = pl.select(
        pl.when(~given).then(pl.lit(_NO_TIME)).when(~there).then(pl.lit(_TIME)).when(out).then(pl.lit(timestamps.RANGE))
    ).to_series()
    return found, reason, note


def _time_text() -> pl.Expr:
    value = pl.col("timestamp").str.strip_chars()
    return pl.when(~value.str.to_lowercase().is_in(NO_ID)).then(value)


def _scattered(frame: pl.DataFrame, rows: pl.Series, values: pl.DataFrame) -> pl.DataFrame:
    """A frame with other values in some of its rows."""
    return frame.with_columns(frame[column].scatter(rows, values[column]) for column in frame.columns)


def _refuse(rows: Rows, reason: pl.Series, names: dict[str, str]) -> None:
    """Adds the rows that have a reason to `rows.refusals`, quoting the first of them."""
    counts = reason.drop_nulls().value_counts()
    bad = reason.is_not_null().arg_true()
    # Anonymous events are quoted only when there is nothing worse to show.
    worse = (reason.is_not_null() & (reason != ANONYMOUS)).arg_true()
    first = sorted((worse if len(worse) else bad).head(SHOWN).to_list())
    quoted = rows.collected(rows.frame.with_row_index("row").filter(pl.col("row").is_in(first)))
    column = {ANONYMOUS: "user_id", _NO_ITEM: "item_id", _RATING: "rating"}
    details = []
    for number, line, row in zip(first, rows.lines(first), quoted.iter_rows(named=True), strict=True):
        key = column.get(reason[number], "timestamp")
        why = f"{reason[number]} (column {names.get(key, key)})"
        details.append({"line": line, "reason": why, "found": "" if row[key] is None else str(row[key])})
    by_reason = dict(zip(*counts.to_dict(as_series=False).values(), strict=True))
    hint = f"Timestamps: {timestamps.FIX}" if _TIME in by_reason else ""
    rows.refusals.add_many(by_reason, details, hint)
