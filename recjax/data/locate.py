"""Where datasets live: `$RECJAX_DATA`, the cache, and the message when a name is not there."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from recjax.typing import InputError

DATA_VARIABLE = "RECJAX_DATA"
CACHE_VARIABLE = "RECJAX_CACHE"


def cache_folder() -> Path:
    """Where prepared datasets are kept: `$RECJAX_CACHE`, or `~/.cache/recjax`."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/recjax").expanduser()


def data_folders() -> list[Path]:
    """The folders of datasets named by `$RECJAX_DATA`, in order."""
    return [Path(entry).expanduser() for entry in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if entry]


def locate(name_or_path: str, embedded: Iterable[str] = ()) -> Path:
    """The file or folder that `name_or_path` means.

    A name is looked for under each folder of `$RECJAX_DATA`, then as a path; anything with a separator is a path.

    Raises:
        InputError: nothing is there; says where it looked, what is there, and the nearest name.
    """
    if not name_or_path:
        raise InputError("the dataset's name is empty, expected a name or a folder")
    path = Path(name_or_path).expanduser()
    is_name = os.sep not in name_or_path and name_or_path not in (".", "..")
    folders = data_folders() if is_name else []
    places = [folder / name_or_path for folder in folders] + [path]
    for place in places:
        if place.exists():
            return place
    raise InputError(_not_found(name_or_path, is_name, folders, list(embedded)))


def _not_found(name: str, is_name: bool, folders: list[Path], embedded: list[str]) -> str:
    if not is_name:
        return f"no dataset at {name!r}: there is no such file or folder"
    lines = [f"no dataset named {name!r}"]
    known = list(embedded)
    if not folders:
        lines.append(f"${DATA_VARIABLE} is not set; set it to a folder of datasets, or give the path of one")
    for folder in folders:
        if not folder.is_dir():
            lines.append(f"${DATA_VARIABLE} names {folder}, which is not a folder")
            continue
        there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        known += there
        shown = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        lines.append(f"looked in {folder}, which has: {shown or 'nothing'}")
    lines.append(f"looked for the folder {Path(name).absolute()}")
    lines.append(f"embedded: {', '.join(embedded)}" if embedded else "")
    if near := difflib.get_close_matches(name, known, n=1):
        lines.append(f"did you mean {near[0]!r}?")
    return "; ".join(line for line in lines if line)
