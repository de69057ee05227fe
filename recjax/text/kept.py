"""Arrays kept in a file under a key, for what is slow to make; several processes may share the folder."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save


def read(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None where there is none, it is damaged, or it is kept under another key."""
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError):
        return None


def write(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keeps arrays, whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(dict(arrays), {"key": key})
    # A name of its own for each writer: processes that share the folder may write the same arrays at once.
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
