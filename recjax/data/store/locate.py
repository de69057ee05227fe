"""Lookup of datasets: `$RECJAX_DATA`, the cache, and the message when a name is not there."""

import difflib
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from recjax.data.store.remote import Place, errors_named, is_remote, local, place
from recjax.typing import InputError

DATA_VARIABLE = "RECJAX_DATA"
CACHE_VARIABLE = "RECJAX_CACHE"
LONGEST_NAME = 200
"""Bytes of a dataset's name: a file's may have 255, and those beside a dataset have longer names."""
_INTERNAL = ("prepared", "downloads", "compiled", "vectors", "remote")
"""Folders of the cache beside datasets that have a name."""


def cache_folder() -> Path:
    """Folder of prepared datasets: `$RECJAX_CACHE`, or `~/.cache/recjax`."""
    name = os.environ.get(CACHE_VARIABLE) or "~/.cache/recjax"
    if is_remote(name):
        raise InputError(f"${CACHE_VARIABLE} is {name}, expected a local folder: it is where copies are kept")
    return Path(name).expanduser()


def place_of_name(name: str) -> Path:
    """Folder of a dataset of that name in the cache.

    Raises:
        InputError: it is no name but a path, or one that the cache uses itself, or no file system could hold it.
    """
    odd = not name.strip() or name.startswith(".") or not name.isprintable() or "/" in name or "\\" in name
    if odd or len(os.fsencode(name)) > LONGEST_NAME or name in _INTERNAL:
        raise InputError(
            f"a dataset cannot be called {name[:80]!r}: expected up to {LONGEST_NAME} letters without / and \\, no dot "
            f"first, and none of {', '.join(_INTERNAL)}, which the cache uses itself; --out DIR writes elsewhere"
        )
    return cache_folder() / name


def data_folders() -> list[Place]:
    """The folders of datasets named by `$RECJAX_DATA`, in order; the colon of a URL separates nothing."""
    entries = re.split(rf"{re.escape(os.pathsep)}(?!//)", os.environ.get(DATA_VARIABLE, ""))
    return [place(entry) for entry in entries if entry]


def locate(name_or_path: str, embedded: Iterable[str] = ()) -> Path:
    """The file or folder that `name_or_path` means; of one behind a URL a copy in the cache.

    A name is looked for under each folder of `$RECJAX_DATA`, in the cache, then as a path; whatever has a separator
    is a path.

    Raises:
        InputError: nothing is there; says where it looked, what is there, and the nearest name.
    """
    if not name_or_path:
        raise InputError("the dataset's name is empty, expected a name or a folder")
    if "\0" in name_or_path:
        raise InputError(f"{name_or_path[:80]!r} is neither a name nor a path: it has a zero byte")
    path = place(name_or_path)
    is_name = os.sep not in name_or_path and name_or_path not in (".", "..")
    folders = [*data_folders(), cache_folder()] if is_name else []
    for candidate in [*(folder / name_or_path for folder in folders), path]:
        with errors_named(candidate):
            if candidate.exists():
                return local(candidate, cache_folder())
    raise InputError(_not_found(name_or_path, is_name, folders, list(embedded)))


def content_key(path: Path, settings: list[str]) -> str:
    """16 hex digits that stand for the content of a raw file or folder and for `settings`.

    Of a folder that is its files and those of its folders that importers look into.

    Beside a single file lie others that its importer may read, such as metadata: their names, sizes and times count.
    """
    from recjax.data.importers.table_files import files_of  # late: Polars, for those who only ask for a folder

    files = [path] if path.is_file() else sorted(map(Path, files_of(path)))
    digest = hashlib.sha256(repr(settings).encode())
    for file in files:
        with file.open("rb") as stream:
            name = file.name if path.is_file() else file.relative_to(path).as_posix()
            digest.update(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()};".encode())
    if path.is_file():
        for sibling in sorted(path.parent.iterdir()):
            if sibling.is_file() and sibling != path:
                found = sibling.stat()
                digest.update(f"{sibling.name} {found.st_size} {found.st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


def _not_found(name: str, is_name: bool, folders: list[Place], embedded: list[str]) -> str:
    if not is_name:
        return f"no dataset at {name!r}: there is no such file or folder"
    lines = [f"no dataset named {name!r}"]
    known = list(embedded)
    if not os.environ.get(DATA_VARIABLE):
        lines.append(f"${DATA_VARIABLE} is not set: set it to a folder of datasets, or give the path of one")
    for folder in folders:
        if not folder.is_dir():
            lines.append(f"looked in {folder}, which is not a folder")
            continue
        there = sorted(e.name for e in folder.iterdir() if e.name[0] != "." and e.name not in _INTERNAL)
        known += there
        shown = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        lines.append(f"looked in {folder}, which has: {shown or 'nothing'}")
    if embedded:
        lines.append(f"embedded: {', '.join(embedded)}")
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        lines.append(f"did you mean {near[0]!r}?")
    return "; ".join(lines)
