"""Option `--column OURS=THEIRS` of the commands that read tables."""

from argparse import Namespace
from collections.abc import Sequence

from recjax.typing import InputError


def columns_of(options: Namespace) -> dict[str, str]:
    """Our column names to those of the user's files.

    Raises:
        InputError: not of the form OURS=THEIRS.
    """
    return dict(_pair(column) for column in options.columns)


def columns_among(options: Namespace, read: Sequence[str]) -> dict[str, str]:
    """`columns_of` for files of which only the columns `read` are read, each with a name.

    Raises:
        InputError: as there, or another column.
    """
    columns = columns_of(options)
    for ours, theirs in columns.items():
        if not theirs:
            raise InputError(f"--column '{ours}=': expected OURS=THEIRS, such as user_id=CustomerID")
        if ours not in read:
            raise InputError(f"--column {ours}=...: the columns read here are {', '.join(read[:-1])} and {read[-1]}")
    return columns


def _pair(column: str) -> tuple[str, str]:
    ours, separator, theirs = (part.strip() for part in column.partition("="))
    if not (separator and ours):
        raise InputError(f"--column {column!r}: expected OURS=THEIRS, such as user_id=CustomerID")
    return ours, theirs
