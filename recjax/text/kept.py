"""Arrays kept in a file under a key, for what is slow to make; several processes may share the folder."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from recjax.files import replacing


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
    with replacing(path) as new:
        new.write_bytes(save(dict(arrays), {"key": key}))
