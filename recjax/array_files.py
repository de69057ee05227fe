"""Arrays in safetensors files with a digest of their content, so that a damaged file is refused and never used.

The digest is the SHA-256 of the names, types, shapes and values of all arrays and of the metadata, and stands in the
metadata under `digest`. Files are replaced whole (see `recjax.files`).
"""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recjax.files import read_json, replacing
from recjax.typing import InputError

DIGEST = "digest"


class DamagedFileError(InputError):
    """A file that is not as it was written."""


class ArrayFile(NamedTuple):
    """The content of a file.

    Attributes:
        arrays: by name.
        metadata: texts by name, the digest left out.
        checked: whether the file has a digest, which was compared; older files have none.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    checked: bool


def published_record(path: Path) -> dict[str, Any]:
    """The JSON beside a file that comes with recjax: how it was made, and its `sha256`."""
    return read_json(path.with_suffix(".json"), "so the installation is incomplete")


def read_published(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file that comes with recjax, by name.

    Raises:
        InputError: it or its record is missing, or it is not the one of the record.
    """
    expected = published_record(path)["sha256"]
    if not path.is_file():
        raise InputError(f"{path} is missing, so the installation is incomplete")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
        raise InputError(f"{path} has sha256 {found}, expected {expected}: the installation is damaged")
    return read(path).arrays


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes arrays and texts, whole or not at all.

    Args:
        path: of the file; its folder exists.
        arrays: by name.
        metadata: texts by name, none of them called `digest`.

    Raises:
        OSError: it cannot be written.
    """
    whole = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()}
    texts = dict(metadata or {})
    with replacing(path) as new:
        new.touch()
        mode = stat.S_IMODE(new.stat().st_mode)  # other users may read what this one may let them; the library's not
        try:
            save_file(whole, new, {**texts, DIGEST: content_digest(whole, texts)})
        except SafetensorError as error:  # which is how the library passes on what the file system says
            code = re.search(r"code: (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, os.strerror(number), str(path)) from error
        new.chmod(mode)


def read(path: Path) -> ArrayFile:
    """The content of a file, compared with its digest.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: it is not as it was written.
        InputError: it cannot be opened.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise DamagedFileError(f"{path} is damaged: {_reason(error)}") from error
    expected = metadata.pop(DIGEST, None)
    if expected is not None and expected != content_digest(arrays, metadata):
        raise DamagedFileError(f"{path} is damaged: its content is not what was written")
    return ArrayFile(arrays, metadata, expected is not None)


def content_digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 of arrays (names, types, shapes, values) and texts, hex; their order does not count."""
    content = hashlib.sha256(json.dumps(dict(metadata or {}), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        content.update(json.dumps([name, array.dtype.name, list(arrays[name].shape)]).encode())
        content.update(array.reshape(-1).view(np.uint8).data)
    return content.hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
