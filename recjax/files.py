"""Files that are there whole or not at all, JSON that may be damaged, and digests that tell whether files changed."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recjax.typing import InputError

DIGEST = "digest"
"""Key of a JSON object for the digest of the others."""

DEEPEST = 64
"""Levels of JSON: more than any file of a run has, and few enough to walk through by functions that call themselves."""


def read_json(path: Any, absent: str = "") -> Any:
    """The JSON of a file.

    Args:
        path: a `Path`, or an `epath.Path` behind a URL.
        absent: what its absence means, for the message.

    Raises:
        InputError: it is absent, cannot be read, is not UTF-8, is cut short or is nested without end.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist" + (f", {absent}" if absent else "")) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise InputError(f"{path} is damaged: its JSON is nested too deep") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    level = [tree]
    for _ in range(DEEPEST):
        level = [entry for node in level for entry in _inside(node)]
        if not level:
            return tree
    raise InputError(f"{path} is damaged: its JSON is nested too deep")


def _inside(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file's name beside `path`, which takes the place of `path` when the block ends without an error.

    Each writer has a name of its own, so that processes of many hosts which share the folder may write at once.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_together(journal: Path, *paths: Path) -> Iterator[list[Path]]:
    """Files in hidden folders, which take the places of `paths` when the block ends without an error: all or none.

    A journal names the folders before they are made and, when all files are written, what is to be renamed; only then
    are they renamed. A process that is killed before that has changed nothing, and one that is killed after it may have
    done half: `finish_replacing` removes what the one left, and does the rest of the other.

    Args:
        journal: path of the journal, where nobody else writes.
        paths: of the files, in the order in which they appear; their folders exist. Of a link, what it leads to.
    """
    places = [Path(os.path.realpath(path)) for path in paths]  # a file may not be renamed to another file system
    # Folders, for what writes a file may have temporary ones of its own, which then go with the folder.
    folders = [place.with_name(f".{place.name}.{uuid.uuid4().hex}") for place in places]
    temporaries = [folder / place.name for folder, place in zip(folders, places, strict=True)]
    renames = [[str(new), str(place)] for new, place in zip(temporaries, places, strict=True)]
    written = False
    try:
        _write_journal(journal, folders, [])
        for folder in folders:
            folder.mkdir()
        yield temporaries
        for place, temporary in zip(places, temporaries, strict=True):
            if place.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
            _flush(temporary)
        _write_journal(journal, folders, renames)
        written = True
        finish_replacing(journal)
    finally:
        if not written:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            for file in (journal, _new_journal(journal)):
                with suppress(OSError):
                    file.unlink(missing_ok=True)


def _write_journal(journal: Path, folders: list[Path], renames: list[list[str]]) -> None:
    new = _new_journal(journal)
    entries = {"folders": [str(folder) for folder in folders], "renames": renames}
    new.write_text(json.dumps(sealed(entries)), encoding="utf-8")
    _flush(new)
    new.replace(journal)


def _new_journal(journal: Path) -> Path:
    """Name of a journal while it is written, the same each time, so that none is left behind."""
    return journal.with_name(f"{journal.name}.new")


def finish_replacing(journal: Path) -> list[Path]:
    """Completes what a process that was killed in `replacing_together` had left to do.

    Returns:
        The files that took their places just now; none where there is no journal.

    Raises:
        InputError: the journal is damaged.
    """
    _new_journal(journal).unlink(missing_ok=True)
    try:
        entries = unsealed(json.loads(journal.read_text(encoding="utf-8")), journal)
    except FileNotFoundError:
        return []
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{journal} is damaged, and the files that it names may be of different calls; where they are of one, or "
            "have been brought back from a copy, remove it"
        ) from error
    renamed = []
    for temporary, path in ((Path(old), Path(new)) for old, new in entries["renames"]):
        if temporary.exists():
            temporary.replace(path)
            renamed.append(path)
    for folder in {path.parent for path in renamed}:
        with suppress(OSError):  # mounted buckets cannot flush a folder
            _flush(folder)
    for folder in entries["folders"]:
        shutil.rmtree(folder, ignore_errors=True)
    journal.unlink()
    return renamed


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """A block that one process of this machine at a time is in, for a file that it reads and writes anew.

    The lock is on a hidden file beside `path`, and ends with the process; where a file system knows no locks, there is
    none.

    Raises:
        InputError: another process is in it.
    """
    lock = path.with_name(f".{path.name}.lock")
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(f"{path} is in use by another process; wait for its end") from None
        except OSError:
            pass
        try:
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                break
        except FileNotFoundError:  # removed by the process that had it
            pass
        os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def _flush(path: Path) -> None:
    """Returns when a file or folder is on its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """JSON entries with a digest of them, which `unsealed` compares."""
    return {**entries, DIGEST: _digest(entries)}


def unsealed(entries: Mapping[str, Any], path: object) -> dict[str, Any]:
    """The entries of a JSON file without their digest; files written before there were digests are taken as they are.

    Args:
        entries: as parsed.
        path: of the file, for the message.

    Raises:
        InputError: they are not as they were written.
    """
    rest = {key: value for key, value in entries.items() if key != DIGEST}
    if DIGEST in entries and entries[DIGEST] != _digest(rest):
        raise InputError(f"{path} is damaged: its content is not what was written")
    return rest


def file_digest(path: Any) -> str:
    """SHA-256 of the bytes of a file, hex.

    Args:
        path: a `Path`, or an `epath.Path` behind a URL.
    """
    content = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            content.update(piece)
    return content.hexdigest()


def _digest(entries: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(dict(entries)))  # keys as texts, tuples as lists
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()
