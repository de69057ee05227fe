"""Result of every importer, with the account of the rows that it could not use."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recjax.data.importers.conditions import RETURNS, Condition, Weights
from recjax.data.store.remote import Place, size
from recjax.typing import COMMAND, InputError, shorten

SHOWN = 5
"""Number of refused rows that are quoted."""

NOTHING = ("", "nan", "NaN", "null", "NULL", "None", "<NA>", "NA", "N/A", "\\N")
"""Text that stands for a missing value."""

NO_ID = ("", "nan", "null", "none", "<na>", "na", "n/a", "#n/a", "nat", "nil", "undefined", "\\n")
"""The same of ids, times and ratings, in small letters."""

ANONYMOUS = "no user id"
"""The one reason that is no damage: logs of real shops are full of visitors who did not sign in."""


@dataclass(frozen=True)
class RawLogs:
    """Events and catalog as the source has them, before any filter.

    Attributes:
        name: of the dataset, from its file or folder.
        interactions: `user_id` str, `item_id` str, `timestamp` int64 (unix seconds) and, where the source has ratings,
            `rating` float32 (null = not rated), and where it has times below a second, or a column that orders events
            of one time, `nanosecond` int32; rows in file order, which is the order of ties.
        catalog: `item_id` str, `title` str or null, then further text columns; one row an item. Items of
            `interactions` may have none.
        notes: JSON-ready account: format, files, rows read, rows refused and why, how timestamps were read, what was
            done to the catalog.
    """

    name: str
    interactions: pl.DataFrame
    catalog: pl.DataFrame
    notes: dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """Options of reading tables that do not say enough of themselves.

    Attributes:
        items: table of the catalog, or a folder of its parts, wherever it is; None = the one beside the log.
        header: names of the columns of a log that has no line with them.
        time_format: of times, as `strptime` and Polars have it, e.g. "%d/%m/%Y %H:%M"; UTC where it has no offset.
        where: conditions that events must meet to count, see `conditions`.
        weights: weights of the kinds of events, which become their ratings: "event:view=1,transaction=3"; events of
            other kinds do not count.
        returns: what is done with rows whose quantity is below 0: "keep" takes them for events like any other; "drop"
            leaves them out; "cancel" leaves out the purchases that they undo as well.
    """

    items: Place | None = None
    header: tuple[str, ...] = ()
    time_format: str | None = None
    where: tuple[str, ...] = ()
    weights: str | None = None
    returns: Literal["keep", "drop", "cancel"] = "keep"

    def __post_init__(self) -> None:
        if self.returns not in RETURNS:
            raise InputError(f"returns is {self.returns!r}, expected one of {', '.join(RETURNS)}")

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of `where`."""
        return tuple(map(Condition.parse, self.where))

    @cached_property
    def kinds(self) -> Weights | None:
        """The weights of `weights`."""
        return None if self.weights is None else Weights.parse(self.weights)

    @property
    def columns(self) -> list[str]:
        """The columns that conditions and weights read."""
        return list(dict.fromkeys(found.column for found in [*self.conditions, *filter(None, [self.kinds])]))

    @staticmethod
    def column(ours: str, theirs: str) -> str:
        """Words of the command in use that say what a file calls a column of ours; "" where it has none."""
        return Reading.called({ours: theirs})

    @staticmethod
    def called(columns: Mapping[str, str]) -> str:
        """The same of several columns, ours to the file's."""
        command = COMMAND.get()
        said = " ".join(f"--column {ours}={theirs}" for ours, theirs in columns.items())
        if command in OF_DATASETS:
            return f"prepare it with {said}"
        if not command:
            return f"say columns={dict(columns)}"
        return f"say {said}" if command in WITH_COLUMNS else ""

    @staticmethod
    def option(name: str, value: str | tuple[str, ...]) -> str:
        """Advice on giving an attribute of this class, likewise."""
        command, text = COMMAND.get(), value if isinstance(value, str) else ",".join(value)
        said = f"--{name.replace('_', '-')} '{text}'"
        if command in OF_DATASETS:
            return f"prepare it with {said}"
        return {"": f"Reading({name}={value!r})", "prepare": said}.get(command, "")


WITH_COLUMNS = ("prepare", "recommend", "export")
"""Commands that take `--column`."""

OF_DATASETS = ("train", "tokenize", "align", "ablate", "plan")
"""Commands that read raw logs by the name of a dataset."""


@dataclass(frozen=True)
class Options:
    """Hints of a user about the files.

    Attributes:
        columns: our column names to the file's, e.g. `{"user_id": "CustomerID"}`; tables only.
        max_refused: share of rows that may be refused; above it reading is an error.
        reading: how tables are read.
        beside: whether a catalog beside the log belongs to it.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    max_refused: float = 0.01
    reading: Reading = Reading()
    beside: bool = True


class Refusals:
    """Rows that cannot be used: counted by reason, the first five quoted with their line.

    Args:
        unit: what the numbers of the rows count: "line", or "row" in files that have no lines.
    """

    def __init__(self, unit: str = "line") -> None:
        self.unit = unit
        self._reasons: Counter[str] = Counter()
        self._first: list[dict[str, Any]] = []
        self._hint = ""

    def add(self, reason: str, line: int, found: str) -> None:
        """One row: why it was refused, its line (from 1, the header counted) and what stands there."""
        self._reasons[reason] += 1
        if len(self._first) < SHOWN:
            self._first.append({"line": line, "reason": reason, "found": shorten(found)})

    def add_many(self, reasons: Mapping[str, int], first: list[dict[str, Any]], hint: str = "") -> None:
        """Several rows at once: counts by reason; the first few, each with line, reason and found; how to mend them."""
        self._hint = hint or self._hint
        self._reasons.update(reasons)
        known = [*self._first, *({**row, "found": shorten(row["found"])} for row in first)]
        self._first = sorted(known, key=lambda row: row["line"])[:SHOWN]

    @property
    def total(self) -> int:
        return self._reasons.total()

    def to_json(self) -> dict[str, Any]:
        account = {"total": self.total, "reasons": dict(self._reasons), "first": self._first}
        return account if self.unit == "line" else account | {"unit": self.unit}

    def check(self, rows: int, limit: float, path: Path) -> None:
        """Raises InputError when more than `limit` of `rows` are damaged, or none is left.

        Rows without a user id are refused and counted but not held against the file: they are anonymous events.
        """
        damaged = self.total - self._reasons[ANONYMOUS]
        if rows and damaged <= limit * rows and self.total < rows:
            return
        if not rows:
            raise InputError(f"{path} holds no rows")
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in self._reasons.most_common())
        quoted = "; ".join(f"{self.unit} {row['line']}: {row['reason']}, found {row['found']!r}" for row in self._first)
        allowed = "nothing is left" if self.total >= rows else f"at most {limit:.1%} are tolerated"
        hint = f". {self._hint}" if self._hint else ""
        raise InputError(
            f"{path}: {self.total:,} of {rows:,} rows cannot be used ({reasons}); {allowed}. {quoted}{hint}"
        )


def files_note(*paths: Place | None) -> list[dict[str, Any]]:
    """Name and size of each file that was read."""
    return [{"name": path.name, "bytes": size(path)} for path in paths if path is not None]
