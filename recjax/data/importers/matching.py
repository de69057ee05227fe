"""Match of the columns of a file with ours."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from recjax.data.importers.logs import Reading
from recjax.data.store.remote import Place
from recjax.typing import InputError, shorten


def match(
    found: Sequence[str],
    usual: Mapping[str, Sequence[str]],
    given: Mapping[str, str],
    path: Place,
    required: Sequence[str],
    preferred: Collection[str] = (),
    further: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Columns of a file by our names.

    A column that is called exactly as ours is that one, whatever looks like it. Otherwise there must be one column that
    goes by one of the usual names.

    Args:
        found: the file's columns.
        usual: our columns and how files call them.
        given: our columns to the file's, as the user says; "" where the file has none, whatever looks like it.
        path: for messages.
        required: our columns that must be there.
        preferred: our columns of which a file may have several, the first of the usual names being the better one.
        further: columns that must be there as well, by labels; each may be one of the others too.

    Raises:
        InputError: required or given columns are missing, all of them named, or several columns may be one of ours.
    """
    plain: dict[str, list[str]] = {}
    for name in found:
        plain.setdefault(_plain(name), []).append(name)
    mapping: dict[str, str] = {}
    absent: dict[str, str] = {}
    for ours, aliases in usual.items():
        theirs = given.get(ours)
        if theirs == "":
            if ours in required:
                raise InputError(f"{path}: the column {ours} cannot be done without; say which it is")
        elif theirs is not None and theirs not in found:
            absent[ours] = theirs
        elif theirs is not None or ours in found:
            mapping[ours] = theirs or ours
        elif candidates := _candidates(plain, aliases, ours in preferred):
            if len(candidates) > 1:
                shown = " and ".join(map(repr, candidates))
                raise InputError(f"{path}: {shown} may each be the column {ours}; {_advice(ours, candidates[0])}")
            mapping[ours] = candidates[0]
        elif ours in required:
            absent[ours] = ours
    further = further or {}
    absent |= {label: theirs for label, theirs in further.items() if theirs not in found}
    if absent:
        raise missing(absent, found, path)
    for theirs in mapping.values():
        if len(users := [ours for ours, column in mapping.items() if column == theirs]) > 1:
            raise InputError(f"{path}: the column {theirs!r} is named as {' and as '.join(users)}; name another")
    return mapping | dict(further)


def _candidates(plain: Mapping[str, Sequence[str]], aliases: Sequence[str], first: bool) -> list[str]:
    """Columns that go by one of the names, by the first that any goes by if `first`; exact names before look-alikes."""
    candidates: list[str] = []
    for group in dict.fromkeys(_plain(alias) for alias in aliases):
        alike = plain.get(group, ())
        candidates += [name for name in alike if name in aliases] or alike
        if first and candidates:
            break
    return candidates


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _advice(ours: str, theirs: str) -> str:
    if ours not in KNOWN:
        return "name that one"
    said = Reading.column(ours, theirs)
    return f"call it {ours}" + (f", or {said}" if said else "")


KNOWN = ("user_id", "item_id", "timestamp", "rating", "order", "quantity", "title", "categories", "rank", "score")
"""Our columns that files may call otherwise."""


def missing(wanted: Mapping[str, str], found: Sequence[str], path: Place) -> InputError:
    """The error for columns that are not there: ours, and the file's that they should be."""
    hints, others = [], {}
    for ours, column in wanted.items():
        near = difflib.get_close_matches(_plain(column), [_plain(name) for name in found], n=1, cutoff=0.7)
        if nearest := next((name for name in found if near and _plain(name) == near[0]), None):
            hints.append(f"; the nearest to {column!r} is {nearest!r}: if it is that one, {_advice(ours, nearest)}")
        elif ours == column and ours in KNOWN:
            others[ours] = "NAME"
    if others and (said := Reading.called(others)):
        hints.append(f"; if {'it has another name' if len(others) == 1 else 'they have other names'} there, {said}")
    columns = list(dict.fromkeys(wanted.values()))
    noun = "column" if len(columns) == 1 else "columns"
    there = shorten(", ".join(found), 500)
    return InputError(f"{path} has no {noun} {', '.join(map(repr, columns))}; found: {there}{''.join(hints)}")
