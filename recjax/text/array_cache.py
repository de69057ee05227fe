"""Cache of arrays that are slow to make: a file under a key, in a folder that several processes may share."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from recjax import array_files
from recjax.typing import InputError

Arrays = Mapping[str, np.ndarray]


def cached(path: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays of a file, or those that `make` returns, which are then written to it.

    A file that is damaged, has no digest or is of another key is made again, and a warning says so; another says where
    one cannot be written.

    Args:
        path: of the file; its folder is made.
        key: of the content.
        make: returns arrays by name.
    """
    log = logging.getLogger(__name__)
    try:
        found = array_files.read(path)
        if found.checked and found.metadata.get("key") == key:
            return found.arrays
        log.warning("%s is of an earlier version or of other content; making it again", path)
    except FileNotFoundError:
        pass
    except InputError as error:
        log.warning("%s; making it again", error)
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array_files.write(path, made, {"key": key})
    except OSError as error:
        log.warning("%s cannot be written, so it will be made again next time: %s", path, error)
    return made
