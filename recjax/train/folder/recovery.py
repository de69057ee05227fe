"""Choice of the checkpoint to read when the newest is damaged."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from recjax.train.folder.checkpoint import DamagedError
from recjax.typing import InputError

Read = TypeVar("Read")


def first_sound(steps: Iterable[int], read: Callable[[int], Read]) -> tuple[int, Read, list[DamagedError]]:
    """Reads the first of some checkpoints that is as it was saved.

    Args:
        steps: the ones to try, in order; at least one.
        read: reads that of a step, and raises `DamagedError` where it is not.

    Returns:
        The step, what was read, and what was wrong with those before it.

    Raises:
        InputError: none is; says what is wrong with each.
    """
    damaged: list[DamagedError] = []
    for step in steps:
        try:
            return step, read(step), damaged
        except DamagedError as error:
            damaged.append(error)
    raise InputError(
        "no checkpoint can be read: " + "; ".join(map(str, damaged)) + ". Bring one back from a copy, or give the run "
        "another folder to start again"
    )


def damaged_records(steps: Iterable[int], read: Callable[[int], Read]) -> list[DamagedError]:
    """Damage of some checkpoints, by step."""
    damaged: list[DamagedError] = []
    for step in steps:
        try:
            read(step)
        except DamagedError as error:
            damaged.append(error)
    return damaged
