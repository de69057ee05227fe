"""Rows of one file on their way to events: a lazy frame, and how to say on which line a row stands."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import timestamps
from recjax.data.importers.extras import extra, rated, unreadable_number
from recjax.data.importers.logs import ANONYMOUS, NO_ID, NOTHING, SHOWN, Options, Reading, Refusals
from recjax.data.importers.timestamps import NANOSECOND
from recjax.typing import InputError, shorten

WRITTEN = "timestamp as written"
"""Column of times whose format the user gives, before they are read."""

_LEFT = "left out"
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
    """True if a column of this type is text, or categories, which are."""
    return dtype in _TEXTS


_TEXTS = (pl.String, pl.Categorical, pl.Enum)


def to_events(
    rows: Rows, options: Options, notes: dict[str, Any], names: dict[str, str], may_be_empty: bool = False
) -> pl.DataFrame:
    """Events from rows with the columns `user_id`, `item_id`, `timestamp` and perhaps `rating`, of any type.

    Adds `rows_read`, `rows_refused` and `timestamps` to `notes`, and `rows_left_out` where conditions leave rows out.

    Args:
        rows: with our column names; those that conditions read are called `EXTRA` and the file's name.
        options: how many rows may be refused.
        notes: extended in place.
        names: what the file calls the columns, for messages.
        may_be_empty: whether no row at all, or none that counts, is well.

    Returns:
        See `RawLogs.interactions`; with the columns `order` and `quantity`, float64, of rows that have them.

    Raises:
        InputError: more rows are refused than `options.max_refused`, or none is left.
    """
    rows, schema = _plain(rows, names, options.reading)
    ratings = rated(schema, options.reading)
    wanted = [
        identifier("user_id", schema["user_id"]),
        identifier("item_id", schema["item_id"]),
        *timestamps.expressions("timestamp", schema["timestamp"]),
        *ratings,
        *extra(rows.path, schema, names, options.reading),
        *(count for column in ("user_id", "item_id") for count in _float_counts(column, schema[column])),
    ]
    rows, events = rows.collect(lambda frame: frame.select(wanted))
    notes |= rows.notes
    _note_floats(events, notes, names)
    if (found := unreadable_number(events, options.reading)) is not None:
        raise _no_number(rows, *found, names)
    times, reason, notes["timestamps"] = _times(events, rows, schema["timestamp"], names["timestamp"])
    nanosecond = (times["below"] * 1e9).round().cast(pl.Int32).fill_null(0)
    finer = [nanosecond.alias(NANOSECOND)] if (nanosecond > 0).any() else []
    events = events.with_columns(times["timestamp"], reason.alias("reason"), *finer).with_columns(
        pl.when(pl.col("left").is_not_null()).then(pl.lit(_LEFT))
        .when(pl.col("user_id").is_null()).then(pl.lit(ANONYMOUS))
        .when(pl.col("item_id").is_null()).then(pl.lit(_NO_ITEM))
        .when(pl.col("reason").is_not_null()).then(pl.col("reason"))
        .when(pl.col("unreadable") if ratings else pl.lit(False)).then(pl.lit(_RATING))
        .alias("reason")
    )  # fmt: skip
    finer = [NANOSECOND] if finer else []
    more = ["rating"] if ratings else []
    more += [*finer, *(column for column in ("order", "quantity") if column in events.columns)]
    kept = events.filter(pl.col("reason").is_null()).select("user_id", "item_id", "timestamp", *more)
    if "quantity" in kept.columns and (negative := int((kept["quantity"] < 0).sum())):
        notes["negative_quantities"] = negative
    if ratings:
        notes["unrated"] = kept["rating"].null_count()
    _account(rows, events, kept.height, options, notes, names, may_be_empty)
    return kept


def _account(
    rows: Rows,
    events: pl.DataFrame,
    kept: int,
    options: Options,
    notes: dict[str, Any],
    names: dict[str, str],
    may_be_empty: bool,
) -> None:
    """Adds to the notes how many rows were read, left out and refused; InputError where too many were."""
    left = int((events["reason"] == _LEFT).sum())
    total = events.height - left + rows.refusals.total
    if left:
        notes["rows_left_out"] = dict(events["left"].drop_nulls().value_counts(sort=True).iter_rows())
    if kept + left < events.height:
        _refuse(rows, events["reason"].replace(_LEFT, None), names, options.reading)
    notes["rows_read"], notes["rows_refused"] = total, rows.refusals.to_json()
    if total or not may_be_empty:
        rows.refusals.check(total, options.max_refused, rows.path)


def _no_number(rows: Rows, column: str, row: int, names: dict[str, str]) -> InputError:
    """The error for a column of numbers that holds something else, first in row number `row`."""
    found = rows.collected(rows.frame.select(pl.col(column).slice(row, 1))).item()
    place = f"{rows.refusals.unit} {rows.lines([row])[0]}"
    return InputError(
        f"{rows.path}, {place}: the column {names[column]} holds {shorten(str(found))!r}, expected a number"
    )


def _plain(rows: Rows, names: dict[str, str], reading: Reading) -> tuple[Rows, pl.Schema]:
    """Rows with categories as text and times of a known format as times, and the types of their columns.

    Raises:
        InputError: a column holds what it cannot hold.
    """
    schema = rows.schema()
    categories = [column for column, dtype in schema.items() if dtype != pl.String and has_text(dtype)]
    if categories:
        rows = rows.mapped(lambda frame: frame.with_columns(pl.col(categories).cast(pl.String)))
        schema = rows.schema()
    if reading.time_format is not None:
        rows = _with_times(rows, reading.time_format)
        schema = rows.schema()
    time, rating = schema["timestamp"], schema.get("rating", pl.Null())
    if not (time.is_numeric() or time in (pl.String, pl.Date) or isinstance(time, pl.Datetime)):
        fix = timestamps.advice(reading)
        raise InputError(f"{rows.path}: the column {names['timestamp']} holds {time}; {fix}")
    if reading.kinds is None and not (rating.is_numeric() or rating in (pl.String, pl.Boolean, pl.Null)):
        advice = f"; if it is no rating: {said}" if (said := reading.column("rating", "")) else ""
        raise InputError(f"{rows.path}: the column {names['rating']} holds {rating}, expected numbers{advice}")
    for column in ("user_id", "item_id"):
        try:
            identifier(column, schema[column])
        except InputError as error:
            raise InputError(f"{rows.path}: {error}") from None
    return rows, schema


def _with_times(rows: Rows, format: str) -> Rows:
    """Rows whose times, texts of a format, are times; the texts are in `WRITTEN`."""
    times = timestamps.formatted("timestamp", format)
    if "%" not in format:
        raise InputError(f"time_format {format!r} is no format of times, expected one such as {timestamps.FORMAT}")
    try:
        pl.DataFrame({"timestamp": ["x"]}).select(times)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"time_format {format!r} is no format of times: {reason}") from None
    return rows.mapped(lambda frame: frame.with_columns(pl.col("timestamp").alias(WRITTEN), times))


def _note_floats(events: pl.DataFrame, notes: dict[str, Any], names: dict[str, str]) -> None:
    """Adds to the notes how many ids are floats, and how many of those too large for all their digits, by column."""
    if not events.height:
        return
    for key, label in (("ids_written_as_floats", "floats of"), ("ids_without_all_digits", "lost in")):
        counts = {names[column]: int(events[f"{label} {column}"][0] or 0) for column in ("user_id", "item_id")}
        if any(counts.values()):
            notes[key] = {column: count for column, count in counts.items() if count}


def _times(
    events: pl.DataFrame, rows: Rows, dtype: pl.DataType, name: str
) -> tuple[pl.DataFrame, pl.Series, dict[str, Any]]:
    """Columns `timestamp` (unix seconds) and `below` (the rest, in seconds); why there are none; the note."""
    note: dict[str, Any] = {"column": name}
    written = rows.frame.collect_schema().names()
    found = events.select("timestamp", "below" if "below" in events.columns else pl.lit(0.0).alias("below"))
    iso = pl.DataFrame(schema=found.schema)
    given = found["timestamp"].is_not_null()
    if WRITTEN in written:
        given = rows.collected(rows.frame.select(_time_text(WRITTEN))).to_series().is_not_null()
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
        unit = "calendar dates" if isinstance(dtype, pl.Date) else "calendar times"
        note |= {"unit": unit, "units": {unit: int(there.sum())}}
    else:
        found, units = timestamps.to_seconds(found["timestamp"], found["below"], not note.get("from_text"))
        note |= units
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


def _time_text(column: str = "timestamp") -> pl.Expr:
    value = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(~value.str.to_lowercase().is_in(NO_ID)).then(value)


def _scattered(frame: pl.DataFrame, rows: pl.Series, values: pl.DataFrame) -> pl.DataFrame:
    """A frame with other values in some of its rows."""
    return frame.with_columns(frame[column].scatter(rows, values[column]) for column in frame.columns)


def _refuse(rows: Rows, reason: pl.Series, names: dict[str, str], reading: Reading) -> None:
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
        found = row[WRITTEN if key == "timestamp" and WRITTEN in row else key]
        details.append({"line": line, "reason": why, "found": "" if found is None else str(found)})
    by_reason = dict(zip(*counts.to_dict(as_series=False).values(), strict=True))
    hint = f"Timestamps: {timestamps.advice(reading)}" if _TIME in by_reason else ""
    if _RATING in by_reason and reading.column("rating", ""):
        hint = f"{hint}{'. ' * bool(hint)}If {names['rating']} is no rating: {reading.column('rating', '')}"
    rows.refusals.add_many(by_reason, details, hint)
