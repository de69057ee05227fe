"""Timestamps as files have them, to unix seconds and nanoseconds: numbers, calendar stamps, ISO-8601, tables' times.

The policy, recorded in the notes:

* numbers are unix seconds, milliseconds, microseconds or nanoseconds, each by its own size: no plausible time is read
  in a wrong unit, and a log that mixes units is converted and counted;
* numbers that mostly read as calendar stamps (20140723, 2014072310, 201407231000, 20140723100000, with milliseconds
  behind) are such stamps, in UTC;
* numbers too small for times (the median below 100 million, or all below 500 million) are places in an order;
* ISO-8601 text ("2014-07-23", "2014-07-23T10:00:00+02:00", "2014-07-23 10:00:00 UTC") is parsed and counted; without
  an offset it is UTC; text of another format is parsed where the user gives the format;
* fractions of a second order events and are stored nowhere;
* a time outside the years 1971 to 2099, and any other text, refuses its row.
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from recjax.data.importers.logs import Reading
from recjax.typing import InputError

FIX = "expected unix seconds or milliseconds, or ISO-8601 as in 2014-07-23 or 2014-07-23T10:00:00+02:00"
FORMAT = "%d/%m/%Y %H:%M"
"""Example of a format."""
NANOSECOND = "nanosecond"
"""Column of the part of a time below a second, int32; only in logs that have such parts."""

ORDER = "places in an order (numbers too small for times)"
PLACES = "place in the history (the source has no times)"
"""Units of logs whose timestamps are no times."""

RANGE = "timestamp outside the years 1971 to 2099"
FIRST, LAST = 31_536_000, 4_102_444_799

_UNITS = (("nanoseconds", 10**17, 10**9), ("microseconds", 10**14, 10**6), ("milliseconds", 10**11, 10**3),
          ("seconds", 0, 1))  # fmt: skip
# Thresholds between units: 1e11 s is the year 5138 and 1e11 ms is 1973, so no plausible time is read in a wrong unit.
_ZONE = re.compile(r"\s*(UTC|GMT)$")
_ORDER_MEDIAN, _ORDER_MOST = 10**8, 5 * 10**8  # 1973 and 1985 in seconds
_STAMPS = (
    ("calendar days (YYYYMMDD)", 8, 10**6),
    ("calendar hours (YYYYMMDDHH)", 10, 10**4),
    ("calendar minutes (YYYYMMDDHHMM)", 12, 10**2),
    ("calendar seconds (YYYYMMDDHHMMSS)", 14, 1),
    ("calendar milliseconds (YYYYMMDDHHMMSSmmm)", 17, 1),
)
"""Names of stamps, their digits, and what makes fourteen digits of those that have fewer."""


def expressions(column: str, dtype: pl.DataType) -> list[pl.Expr]:
    """Expressions of a time column of type `dtype`: `timestamp`, int64, and `below`, float64, the part below one.

    Null where there is no number. Of a table's times they are unix seconds; `below` is left out where it is always 0.
    """
    value = pl.col(column)
    if dtype == pl.Date:
        return [value.dt.epoch("s").cast(pl.Int64).alias("timestamp")]
    if isinstance(dtype, pl.Datetime):
        return [value.dt.epoch("s").cast(pl.Int64).alias("timestamp"), (value.dt.nanosecond() / 1e9).alias("below")]
    if dtype.is_float():
        value = pl.when(value.is_finite()).then(value)
    elif dtype == pl.String:
        value = value.str.strip_chars()
    if dtype.is_float() or dtype.is_decimal():
        whole = value.floor().cast(pl.Int64, strict=False)
        return [whole.alias("timestamp"), (value - value.floor()).cast(pl.Float64).alias("below")]
    return [value.cast(pl.Int64, strict=False).alias("timestamp")]


def advice(reading: Reading) -> str:
    """Accepted forms of times, for messages on others."""
    said = reading.option("time_format", FORMAT)
    return f"{FIX}; others by their format, {said}" if said else FIX


def formatted(column: str, format: str) -> pl.Expr:
    """Times of a format of the user's; null where the text is not of it."""
    value = pl.col(column).cast(pl.String).str.strip_chars()
    return value.str.to_datetime(format, time_unit="us", strict=False).alias(column)


def parse(texts: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Times that are no whole numbers.

    Args:
        texts: str.

    Returns:
        Columns `timestamp` (int64) and `below` (float64): of the fractions in whatever unit they are in, and of the
        ISO-8601 ones in unix seconds. Null elsewhere.
    """
    parts = texts.str.extract_groups(r"^\s*(\d+)\.(\d*)\s*$").struct.unnest()
    exact = parts.to_series(0).cast(pl.Int64, strict=False)
    floats = texts.cast(pl.Float64, strict=False)
    floats = floats.set(~floats.is_finite(), None)
    below = ("0." + parts.to_series(1)).cast(pl.Float64, strict=False).fill_null(floats - floats.floor())
    numbers = exact.fill_null(floats.floor().cast(pl.Int64, strict=False))
    distinct = texts.filter(numbers.is_null()).drop_nulls().unique()
    times = {text: time for text in distinct if (time := _iso(text)) is not None}
    schema = {"timestamp": pl.Int64, "below": pl.Float64}
    known = pl.DataFrame(list(times.values()), schema=schema, orient="row").insert_column(
        0, pl.Series("text", list(times), pl.String)
    )
    found = pl.DataFrame({"text": texts}).join(known, on="text", how="left", maintain_order="left")
    return pl.DataFrame({"timestamp": numbers, "below": below}), found.select(*schema)


def _iso(text: str) -> tuple[int, float] | None:
    """Unix seconds, and the part below a second."""
    try:
        time = datetime.fromisoformat(_ZONE.sub("+00:00", text.strip()))
        seconds = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() // 1)
    except (ValueError, OverflowError):
        return None
    fraction = re.search(r"[.,](\d+)", text)
    return seconds, float(f"0.{fraction.group(1)}") if fraction else 0.0


def to_seconds(numbers: pl.Series, below: pl.Series | None, order: bool = True) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Numbers in any of the units to unix seconds.

    Args:
        numbers: int64 with nulls.
        below: float64, what they have below one; None = nothing.
        order: whether they may be places in an order.

    Returns:
        Columns `timestamp`, int64 unix seconds, null where the number is no plausible time, and `below`, float64
        seconds; and the note: the unit of most numbers, and how many there are of each.
    """
    frame = pl.DataFrame({"n": numbers, "part": below if below is not None else pl.lit(0.0)})
    size = pl.col("n").abs()
    median, most = (float(found or 0) for found in frame.select(size.median(), size.max().alias("most")).row(0))
    stamp = _stamps_in_use(numbers)
    if stamp is None and order and numbers.count() and (median < _ORDER_MEDIAN or most < _ORDER_MOST):
        seconds = pl.when(size < _ORDER_MOST).then(pl.col("n")).alias("timestamp")
        return frame.select(seconds, pl.col("part").alias("below")), {"unit": ORDER}
    seconds, part, unit = pl.lit(None, pl.Int64), pl.lit(None, pl.Float64), pl.lit(None, pl.String)
    for name, least, divisor in _UNITS[::-1]:
        larger = size >= least
        seconds = pl.when(larger).then(pl.col("n") // divisor).otherwise(seconds)
        part = pl.when(larger).then((pl.col("n") % divisor + pl.col("part")) / divisor).otherwise(part)
        unit = pl.when(larger).then(pl.lit(name)).otherwise(unit)
    if stamp is not None:
        name, digits, factor = stamp
        inside = _inside(digits)
        seconds = pl.when(inside).then(_stamp_seconds(digits, factor)).otherwise(seconds)
        part = pl.when(inside).then(pl.col("n") % 1000 / 1000 if digits == 17 else pl.lit(0.0)).otherwise(part)
        unit = pl.when(inside).then(pl.lit(name)).otherwise(unit)
    frame = frame.select(seconds.alias("timestamp"), part.alias("below"), unit.alias("unit"))
    frame = frame.with_columns(pl.when(pl.col("timestamp").is_between(FIRST, LAST)).then(pl.col("timestamp")))
    counts = frame.filter(pl.col("timestamp").is_not_null())["unit"].value_counts(sort=True)
    units = dict(sorted(counts.iter_rows(), key=lambda entry: (-entry[1], entry[0])))
    return frame.drop("unit"), {"unit": next(iter(units), "seconds"), "units": units}


def _inside(digits: int) -> pl.Expr:
    """True if numbers have the size of stamps with so many digits, of the years 1971 to 2099."""
    return pl.col("n").is_between(1971 * 10 ** (digits - 4), 2100 * 10 ** (digits - 4), closed="left")


def _stamp_seconds(digits: int, factor: int) -> pl.Expr:
    """Unix seconds of calendar stamps; null where the digits are none."""
    whole = pl.col("n") // 1000 if digits == 17 else pl.col("n") * factor
    return whole.cast(pl.String).str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False).dt.epoch("s")


def _stamps_in_use(numbers: pl.Series) -> tuple[str, int, int] | None:
    """The kind of stamp as which more than half of the numbers read; as unix times they would lie far off."""
    frame = pl.DataFrame({"n": numbers.drop_nulls()})
    for stamp in _STAMPS:
        _, digits, factor = stamp
        inside = frame.filter(_inside(digits))
        if 2 * inside.height <= frame.height:
            continue
        read = inside.select(_stamp_seconds(digits, factor).count()).item()
        return stamp if 2 * read > frame.height else None
    return None


def merged(notes: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """One note of the times of several files, each with its name.

    Raises:
        InputError: some files have times, others have places in an order.
    """
    invented = [is_place(note["unit"]) for note in notes]
    if other := next((number for number, is_invented in enumerate(invented) if is_invented != invented[0]), 0):
        raise InputError(
            f"{names[0]} has its times in {notes[0]['unit']}, {names[other]} in {notes[other]['unit']}: convert one"
        )
    units: Counter[str] = Counter()
    for note in notes:
        units.update(note.get("units", {}))
    account = dict(notes[0])
    if units:
        account |= {"unit": units.most_common(1)[0][0], "units": dict(units.most_common())}
    if parsed := [note["from_text"] for note in notes if "from_text" in note]:
        account["from_text"] = sum(parsed)
    return account


def time_columns(events: pl.DataFrame) -> list[str]:
    """The columns that order events: `timestamp`, and what is below a second where there is such."""
    return [column for column in ("timestamp", NANOSECOND) if column in events.columns]


def is_place(unit: str) -> bool:
    """True if timestamps of this unit are places in an order, and no times."""
    return unit.startswith("place")
