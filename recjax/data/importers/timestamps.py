"""Timestamps as files have them, to unix seconds: whole numbers in four units, fractions, ISO-8601 text, tables' times.

The policy, recorded in the notes:

* numbers are unix seconds, milliseconds, microseconds or nanoseconds; which, the median decides for the whole file;
* numbers that all read as calendar days (20140723) are days, at midnight UTC;
* ISO-8601 text ("2014-07-23", "2014-07-23T10:00:00+02:00") is parsed and counted; without an offset it is UTC;
* fractions of a second are cut off;
* a time outside the years 1 to 9999 in that unit, and any other text, refuses its row.
"""

from datetime import UTC, datetime
from typing import Any

import polars as pl

FIX = "expected unix seconds or milliseconds, or ISO-8601 as in 2014-07-23 or 2014-07-23T10:00:00+02:00"

_UNITS = ((10**17, "nanoseconds", 10**9), (10**14, "microseconds", 10**6), (10**11, "milliseconds", 10**3))
# Thresholds between units: 1e11 s is the year 5138 and 1e11 ms is 1973, so no plausible time is read in a wrong unit.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799  # the years 1 to 9999, what datetime can print


def as_whole(column: str, dtype: pl.DataType) -> pl.Expr:
    """Expression of int64 for a timestamp column of type `dtype`; null where there is no number."""
    value = pl.col(column)
    if isinstance(dtype, pl.Datetime | pl.Date):
        return value.dt.epoch("s").cast(pl.Int64)
    if dtype.is_float():
        return pl.when(value.is_finite()).then(value.floor().cast(pl.Int64, strict=False))
    value = value.str.strip_chars() if dtype == pl.String else value
    return value.cast(pl.Int64, strict=False)


def parse(texts: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Times that are no whole numbers.

    Args:
        texts: str.

    Returns:
        int64 of the fractions in whatever unit they are in (cut), null elsewhere; and int64 unix seconds of the
        ISO-8601 ones, null elsewhere.
    """
    numbers = texts.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite(), None).floor().cast(pl.Int64, strict=False)
    distinct = texts.filter(numbers.is_null()).drop_nulls().unique()
    times = {text: time for text in distinct if (time := _iso(text)) is not None}
    return numbers, texts.replace_strict(
        list(times), pl.Series(list(times.values()), dtype=pl.Int64), default=None, return_dtype=pl.Int64
    )


def _iso(text: str) -> int | None:
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() // 1)


def to_seconds(numbers: pl.Series) -> tuple[pl.Series, dict[str, Any]]:
    """Numbers in one of the units to unix seconds.

    Args:
        numbers: int64 with nulls.

    Returns:
        int64 unix seconds, null where the time is outside the years 1 to 9999; and the note that says the unit.
    """
    unit, seconds = "seconds", numbers
    median = numbers.abs().median()
    size = float(median) if isinstance(median, int | float) else 0.0
    for threshold, name, divisor in _UNITS:
        if size >= threshold:
            unit, seconds = name, numbers // divisor
            break
    else:
        if (days := _calendar_days(numbers)) is not None:
            unit, seconds = "calendar days (YYYYMMDD)", days
    return seconds.set(~seconds.is_between(_FIRST, _LAST), None), {"unit": unit}


def _calendar_days(numbers: pl.Series) -> pl.Series | None:
    """Midnight of each day when every number reads as one; as unix seconds they would all lie in August 1970."""
    if not numbers.len() or numbers.null_count() == numbers.len():
        return None
    if not numbers.drop_nulls().is_between(19500101, 20991231).all():
        return None
    days = numbers.cast(pl.String).str.to_date("%Y%m%d", strict=False)
    return days.dt.epoch("s").cast(pl.Int64) if days.null_count() == numbers.null_count() else None
