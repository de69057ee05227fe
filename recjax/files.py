"""Files that are there whole or not at all, and JSON that may be damaged."""

import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recjax.typing import InputError

DEEPEST = 64
"""Levels of JSON: more than any file of a run has, and few enough to walk through by functions that call themselves."""


def read_json(path: Path, absent: str = "") -> Any:
    """The JSON of a file.

    Args:
        path: the file.
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
