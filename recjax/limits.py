"""Limits of settings: named by a configuration's `__post_init__`, checked once, as it is made.

    @dataclass(frozen=True)
    class Adam:
        eps: float = 1e-8
        b1: float = 0.9

        def __post_init__(self) -> None:
            require(self, eps=above(0), b1=within(0, 1, below=True))

`Adam(eps=-1)` then raises "Adam.eps is -1, expected a number above 0"; `--set optim.eps=-1` the same of `optim.eps`.
A number without a limit of its own has those of int32 or float32, in which devices compute.
"""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from recjax.settings import SettingError, allows_none, describe, fits, hints, show

INT, FLOAT = 2**31 - 1, 3.0e38
"""The largest numbers that int32 and float32 hold."""

WIDEST = 2**20
"""Of layers, rows and lists: a size beyond it is a slip, whose run would end for want of memory."""


@dataclass(frozen=True)
class Limit:
    """An interval of numbers.

    Attributes:
        low: the least number.
        high: the largest one.
        above: `low` itself is outside.
        below: `high` itself is outside.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def words(self) -> str:
        low, high = (f"{bound:,}" if isinstance(bound, int) else f"{bound:g}" for bound in (self.low, self.high))
        if self.high == math.inf:
            return f"a number above {low}" if self.above else f"{low} or more"
        if self.above and self.below:
            return f"a number between {low} and {high}"
        upper = f"below {high}" if self.below else f"at most {high}"
        return f"a number above {low} and {upper}" if self.above else f"{low} or more and {upper}"


def at_least(low: float) -> Limit:
    return Limit(low)


def above(low: float, most: float = math.inf) -> Limit:
    return Limit(low, most, above=True)


def within(low: float, high: float, *, below: bool = False) -> Limit:
    """From `low` to `high`, which counts unless `below`."""
    return Limit(low, high, below=below)


def between(low: float, high: float) -> Limit:
    """Above `low` and below `high`."""
    return Limit(low, high, above=True, below=True)


COUNT, SIZE, LENGTH = at_least(1), within(1, WIDEST), within(2, WIDEST)
LAYERS = within(1, 1024)
SEED = within(0, INT)
RATE = within(0, 1, below=True)
"""A share of what is dropped, decayed or held: 1 would leave nothing."""


def require(config: Any, **limits: Limit) -> None:
    """Checks the values of a configuration that is being made; parts of it have checked themselves.

    Args:
        config: an instance of a dataclass.
        limits: by name of the field; of a tuple each entry is meant, and None passes where the field may be none.

    Raises:
        SettingError: a value is not of its declared type, or outside its limit.
    """
    declared = hints(type(config))
    for field in dataclasses.fields(config):
        value, annotation = getattr(config, field.name), declared[field.name]
        if not fits(value, annotation):
            refuse(config, field.name, describe(annotation))
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, int | float) or isinstance(number, bool):
                continue
            limit, most = limits.get(field.name, Limit()), INT if isinstance(number, int) else FLOAT
            if not limit.holds(number):
                refuse(config, field.name, limit.words() + (", or none" if allows_none(annotation) else ""))
            if abs(number) > most and limit.high == math.inf:
                refuse(config, field.name, f"at most {most:,}" if most == INT else f"at most {most:g}")


def divides(config: Any, name: str, whole: int, what: str) -> None:
    """Raises SettingError where a number does not divide another, which is `what`."""
    if whole % getattr(config, name):
        refuse(config, name, f"a number that divides {what}, {whole}")


def check_patterns(config: Any, name: str) -> None:
    """Raises SettingError where an entry of a tuple of patterns is no regular expression."""
    for pattern in getattr(config, name):
        try:
            re.compile(pattern)
        except re.error as error:
            complaint = f"has {pattern!r}, which is no regular expression: {error}"
            raise SettingError(type(config).__name__, name, complaint) from None


def refuse(config: Any, name: str, expected: str) -> NoReturn:
    """Raises the error of a field: what it is, and what was expected of it."""
    raise SettingError(type(config).__name__, name, f"is {show(getattr(config, name))}, expected {expected}")
