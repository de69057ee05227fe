"""Conditions on the rows of a table of events: which of them count, and the weight of each kind of event.

    event=transaction            one value, or several: event=view,transaction
    event!=view                  any other value, or none
    Quantity>0                   a number; >=, < and <= alike
    day>=2024-01-31              text in order of letters, which is that of ISO dates

Columns go by the file's own names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import polars as pl

from recjax.typing import InputError

_CONDITION = re.compile(r"\s*([^=!<>]*[^=!<>\s])\s*(!=|>=|<=|=|>|<)(.*)", re.DOTALL)

RETURNS = ("keep", "drop", "cancel")
"""Policies for rows whose quantity is below 0, see `Reading.returns`."""


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        text: as the user wrote it.
        column: of the file.
        sign: "=", "!=", ">", ">=", "<" or "<=".
        values: what the column is compared with; one but for "=" and "!=".
    """

    text: str
    column: str
    sign: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """The condition that a text says; InputError where it says none."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise InputError(
                f"the condition {text!r} is none: expected COLUMN=VALUE,... or COLUMN!=VALUE,... or a comparison such "
                "as Quantity>0"
            )
        column, sign, right = found.groups()
        parts = right.split(",") if sign in ("=", "!=") else [right]
        return cls(text.strip(), column, sign, tuple(part.strip() for part in parts))

    def holds(self, name: str, dtype: pl.DataType) -> pl.Expr:
        """True if it holds of a row; bool without nulls.

        Args:
            name: of the column in the frame.
            dtype: its type.
        """
        column, numbers = pl.col(name), [_number(value) for value in self.values]
        letters = column.cast(pl.String).str.strip_chars()
        if self.sign in ("=", "!="):
            if dtype.is_numeric():
                equal = column.cast(pl.Float64).is_in([number for number in numbers if number is not None])
            else:
                equal = letters.is_in(self.values)
            equal = equal.fill_null(False)
            return equal if self.sign == "=" else ~equal
        left = letters if numbers[0] is None else column.cast(pl.Float64, strict=False)
        right = pl.lit(self.values[0] if numbers[0] is None else numbers[0])
        compare = {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right}
        return compare[self.sign].fill_null(False)


@dataclass(frozen=True)
class Weights:
    """The weight of each kind of event, which becomes its rating.

    Attributes:
        column: of the file, with the kinds.
        values: kind to weight.
    """

    column: str
    values: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> "Weights":
        """The weights that a text such as `event:view=1,transaction=3` says; InputError where it says none."""
        column, colon, rest = text.partition(":")
        pairs = [part.rpartition("=") for part in rest.split(",") if part.strip()]
        values = {kind.strip(): _number(value) for kind, _, value in pairs}
        if not (colon and column.strip() and values and all(values)) or None in values.values():
            raise InputError(f"the weights {text!r} are none: expected COLUMN:KIND=NUMBER,... as in event:view=1,buy=3")
        return cls(column.strip(), {kind: float(value or 0) for kind, value in values.items()})

    def weight(self, name: str) -> pl.Expr:
        """The weight of a row, float64; null for a kind that has none."""
        kind = pl.col(name).cast(pl.String).str.strip_chars()
        return kind.replace_strict(list(self.values), list(self.values.values()), default=None, return_dtype=pl.Float64)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def left_out(rules: Sequence[tuple[str, pl.Expr]]) -> pl.Expr:
    """The label of the first rule that a row breaks, null where it keeps all of them.

    Args:
        rules: label, and an expression that is true of the rows that stay.
    """
    nothing: Any = pl.lit(None, pl.String)
    return reduce(lambda later, rule: pl.when(~rule[1]).then(pl.lit(rule[0])).otherwise(later), rules[::-1], nothing)


def cancelled(events: pl.DataFrame, order: Sequence[str]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Events without returns and without the purchases that they undo, and the counts of both.

    A return takes its quantity off the user's latest earlier purchases of the item; a purchase goes when nothing of it
    is left.

    Args:
        events: `user_id`, `item_id`, `quantity` (float64, null = 1) and the columns of `order`.
        order: columns that order events in time.
    """
    events = events.with_row_index("row").with_columns(pl.col("quantity").fill_null(1.0))
    returned = events.filter(pl.col("quantity") < 0).select("user_id", "item_id").unique()
    touched = events.join(returned, on=["user_id", "item_id"], how="semi").sort(
        "user_id", "item_id", *order, "row", maintain_order=True
    )
    gone: set[int] = set()
    purchases: list[tuple[int, float]] = []
    owner, undone = None, 0
    for user, item, row, quantity in touched.select("user_id", "item_id", "row", "quantity").iter_rows():
        if (user, item) != owner:
            owner, purchases = (user, item), []
        if quantity >= 0:
            purchases.append((row, quantity))
            continue
        gone.add(row)
        left = -quantity
        while left > 0 and purchases:
            bought, there = purchases.pop()
            if there > left:
                purchases.append((bought, there - left))
            else:
                gone.add(bought)
                undone += 1
            left -= there
    counts = {"returns": len(gone) - undone, "purchases that were returned": undone}
    return events.filter(~pl.col("row").is_in(list(gone))).drop("row"), counts
