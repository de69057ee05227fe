"""Files that are there whole or not at all, and digests that tell whether they are as they were written."""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recjax.typing import InputError

DIGEST = "digest"
"""Key of a JSON object for the digest of the others."""


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


def sealed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """JSON entries with a digest of them, which `unsealed` compares."""
    return {**entries, DIGEST: _digest(entries)}


def unsealed(entries: Mapping[str, Any], path: Path) -> dict[str, Any]:
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
