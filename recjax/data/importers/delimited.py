"""Delimited text, with or without quotes, plain, gzipped or zst: Polars for sound files, line by line for the others.

Polars reads a sound file in a fraction of the time, but on a ragged row it stops, and it knows no line numbers. So a
file that it refuses is read again by Python, which refuses single rows and knows where they stand.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import polars as pl

from recjax.data.importers.logs import Refusals
from recjax.data.importers.rows import Rows
from recjax.data.store.remote import Place
from recjax.typing import InputError, shorten

LONGEST_HEADER, MOST_COLUMNS = 1 << 20, 10_000
"""Characters of a header line, and its names: what comes after looks at each name more than once."""

UNREADABLE = (EOFError, OSError, zlib.error)
"""Errors of reading a damaged file."""


@dataclass(frozen=True)
class Layout:
    """Dialect of a delimited file.

    Attributes:
        separator: between fields; longer than one character only without quotes.
        quoted: whether double quotes protect separators and line ends.
        header: column names when the file has no header line; None = its first line has them.
        latin: bytes that are not UTF-8 are Latin-1; only for formats that say so.
    """

    separator: str = ","
    quoted: bool = True
    header: tuple[str, ...] | None = None
    latin: bool = False


def open_binary(path: Place) -> IO[bytes]:
    """A file's bytes, decompressed when it is gzipped or of Zstandard (by content, not by name)."""
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic == b"\x28\xb5\x2f\xfd":
        import pyarrow  # late: few files are such, and Python 3.11 cannot read them

        stream = pyarrow.input_stream(path.open("rb"), compression="zstd")
        return io.BufferedReader(stream)  # pyright: ignore[reportArgumentType]
    packed = magic[:2] == b"\x1f\x8b"
    if isinstance(path, Path):
        return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]
    stream: Any = path.open("rb")
    return gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[return-value]


def encoding(path: Path, latin: bool) -> str:
    """The encoding of a text file, found by reading it.

    Raises:
        InputError: it is not UTF-8 and its format does not allow Latin-1; names the line.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    try:
        with open_binary(path) as stream:
            while block := stream.read(1 << 20):
                pending = decoder.getstate()[0]  # bytes of a character that the block before left unfinished
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    if latin:
                        return "latin-1"
                    raise not_utf8(path, line + (pending + block).count(b"\n", 0, error.start), error) from None
                line += block.count(b"\n")
            try:
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                if not latin:
                    raise not_utf8(path, line, error) from None
                return "latin-1"
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return "utf-8-sig"


def first_line(path: Place) -> tuple[int, str]:
    """The first line that is not blank, without its end, and its number; "" when there is none.

    Of a line of many megabytes it is the beginning.

    Raises:
        InputError: it is not UTF-8, or the file cannot be read.
    """
    number = 0
    try:
        with open_binary(path) as stream:
            while raw := stream.readline(8 * LONGEST_HEADER):  # a file of gigabytes may have no second line
                number += 1
                decoder = codecs.getincrementaldecoder("utf-8-sig")()
                if (line := decoder.decode(raw, final=len(raw) < 8 * LONGEST_HEADER)).strip():
                    return number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise not_utf8(path, number, error) from None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return 0, ""


def not_utf8(path: Place, line: int, error: UnicodeDecodeError) -> InputError:
    """The error for bytes that are not UTF-8."""
    around = error.object[max(error.start - 20, 0) : error.start + 20].decode("latin-1").replace("\0", "")
    wide = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in error.object[:100]
    source = "utf-16" if wide else "windows-1252" if 0x80 <= error.object[error.start] < 0xA0 else "latin1"
    return InputError(
        f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x} in {shorten(around)!r}); "
        f"convert the file, e.g. with iconv -f {source} -t utf-8"
    )


class NoHeaderError(InputError):
    """A file whose first line is no header."""


class Broken(NamedTuple):
    """A row that cannot be split into fields: why, and its line."""

    reason: str
    found: str


def fields(path: Path, layout: Layout) -> Iterator[tuple[int, list[str] | Broken]]:
    """Every row that is not blank, header included: its line number, and its fields or what is wrong with it.

    Raises:
        InputError: not UTF-8, or a quote that is never closed.
    """
    with io.TextIOWrapper(open_binary(path), encoding=encoding(path, layout.latin), newline="") as stream:
        if not layout.quoted:
            for number, line in enumerate(stream, 1):
                parts = line.rstrip("\r\n").split(layout.separator)
                if any(parts):
                    yield number, parts
            return
        last = [""]

        def read() -> Iterator[str]:
            for last[0] in stream:
                yield last[0]

        reader = csv.reader(read(), delimiter=layout.separator, strict=True)
        while True:
            start = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "limit" in str(error):
                    raise InputError(
                        f"{path}, line {start}: a field of more than {csv.field_size_limit():,} characters, or a quote "
                        "that is opened and never closed"
                    ) from None
                if "unexpected end" in str(error):
                    raise InputError(f"{path}, line {start}: a quote is opened and never closed") from None
                yield start, Broken(f"misplaced quote ({error})", last[0])
                continue
            if any(row):
                yield start, row


def header(path: Place, layout: Layout) -> list[str]:
    """Column names.

    Raises:
        InputError: the file is empty, a name is there twice, or the first line is too long or looks like data.
    """
    if layout.header is not None:
        return list(layout.header)
    number, line = first_line(path)
    if not line:
        raise InputError(f"{path} is empty, expected a header line with column names")
    if len(line) > LONGEST_HEADER or line.count(layout.separator) > MOST_COLUMNS:
        count = line.count(layout.separator) + 1
        raise InputError(
            f"{path}: the first line has {len(line):,} characters in {count:,} fields, expected column names"
        )
    if "\0" in line:
        raise InputError(
            f"{path}: the first line has NUL bytes; convert the file, e.g. with iconv -f utf-16le -t utf-8"
        )
    try:
        row = next(csv.reader([line], delimiter=layout.separator, strict=True)) if layout.quoted else line.split(
            layout.separator)  # fmt: skip
    except csv.Error as error:
        raise InputError(f"{path}, line {number}: the header cannot be read ({error})") from None
    names = [name.strip() for name in row]
    counts = Counter(name for name in names if name)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"{path}: the column {repeated[0]!r} is there {counts[repeated[0]]} times")
    if 2 * sum(name.replace(".", "", 1).isdigit() for name in names) >= len(names):
        raise NoHeaderError(
            f"{path}: the first line ({shorten(','.join(names))}) looks like data, expected column names"
        )
    return [name or f"(column {number})" for number, name in enumerate(names, 1)]


def read(path: Path, layout: Layout, names: Sequence[str] | None = None) -> Rows:
    """Rows of a delimited file, every column as text.

    A row with fewer fields than the header has nothing in the last ones; one with more is refused. Blank lines are
    skipped.

    Args:
        path: of the file.
        layout: how it is written.
        names: the columns wanted; None = all.

    Raises:
        InputError: see `fields` and `header`.
    """
    found = header(path, layout)
    names = list(found if names is None else names)
    blank = pl.all_horizontal(pl.all().is_null() | (pl.all() == ""))
    frame = _fast(path, layout, found).filter(~blank).select(names)
    return Rows(path, frame, partial(_locate, path, layout), again=partial(_careful, path, layout, found, names))


def _fast(path: Path, layout: Layout, names: list[str]) -> pl.LazyFrame:
    """The file as Polars reads it; collecting raises a Polars error when the file is not sound."""
    whole = len(layout.separator) > 1  # Polars splits by one byte, so such a file is read line by line and split after
    frame = pl.scan_csv(
        path,
        has_header=False,
        skip_rows=0 if layout.header is not None else first_line(path)[0],
        separator="\x01" if whole else layout.separator,
        quote_char='"' if layout.quoted else None,
        schema=dict.fromkeys(["line"] if whole else names, pl.String),
        infer_schema=False,
    )
    if not whole:
        return frame
    parts = pl.col("line").str.strip_chars_end("\r").str.splitn(layout.separator, len(names) + 1)
    frame = frame.select(parts.struct.rename_fields([*names, "(rest)"]).alias("fields")).unnest("fields")
    # A row with anything behind its last column makes this cast fail, so the careful reading begins.
    rest = (pl.lit("more fields: ") + pl.col("(rest)")).cast(pl.Int8).cast(pl.String)
    return frame.select(*names[:-1], pl.coalesce(names[-1], rest).alias(names[-1]))


def _locate(path: Path, layout: Layout, rows: Sequence[int]) -> list[int]:
    """Line numbers of ascending row numbers, by reading the file up to the last of them."""
    wanted, lines = iter(rows), []
    row = next(wanted, None)
    offset = 0 if layout.header is not None else -1
    for number, (line, _) in enumerate(fields(path, layout), offset):
        if number == row:
            lines.append(line)
            if (row := next(wanted, None)) is None:
                break
    return lines


def _careful(path: Path, layout: Layout, found: list[str], names: list[str]) -> Rows:
    refusals, lines = Refusals(), []
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    places = [(columns[name], found.index(name)) for name in names]
    rows = fields(path, layout)
    if layout.header is None:
        next(rows)
    for line, row in rows:
        if isinstance(row, Broken):
            refusals.add(row.reason, line, row.found)
        elif len(row) > len(found):
            refusals.add(f"more than {len(found)} fields", line, layout.separator.join(row))
        else:
            lines.append(line)
            for column, place in places:
                column.append(row[place] if place < len(row) else None)
    frame = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))
    return Rows(path, frame.lazy(), lambda numbers: [lines[number] for number in numbers], refusals=refusals)
