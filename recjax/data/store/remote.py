"""Files behind a URL, gs://, s3:// and what else etils knows, by way of fsspec; and local files alike.

What reads local files only (Polars, ArrayRecord, gzip) is given copies. `local` keeps them in `$RECJAX_CACHE` and
fetches again what has changed; `fetched` keeps one file for as long as it is read. Not fsspec's caches: readers need
a folder's files under their names beside each other, and all of one version.
"""

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from recjax.files import read_json, replacing
from recjax.typing import InputError

Place = Path | epath.Path
"""A local path, or one behind a URL: the operations that both have are the same."""

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
"""Packages that fsspec needs for a scheme; the first two are the extra `cloud`."""

_KEYS = ".keys.json"
_THREADS = 8


def is_remote(name: object) -> bool:
    """True if `name` is a URL."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(name)) is not None


def place(name: str | Place) -> Place:
    """The path that `name` means; nothing need be there.

    Raises:
        InputError: a URL of a scheme that is not known, or that needs a package which is not installed.
    """
    if not is_remote(name):
        return Path(name).expanduser()
    scheme = str(name).partition("://")[0]
    if scheme not in PACKAGES:
        known = ", ".join(f"{known}://" for known in PACKAGES)
        raise InputError(f"{name}: paths are local or begin with one of {known}; mount other storage as a folder")
    path = epath.Path(str(name))
    with errors_named(path):
        path.exists()
    return path


@contextlib.contextmanager
def errors_named(path: Place) -> Iterator[None]:
    """Says where it happened when a store fails: packages, credentials, network."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        package = PACKAGES.get(str(path).partition("://")[0], "fsspec")
        extra = "; 'recjax[cloud]' brings those of gs:// and s3://" if package in ("gcsfs", "s3fs") else ""
        raise InputError(f"{path} needs a package that is not installed: pip install {package}{extra}") from error
    except Exception as error:  # every store has its own: of credentials, of the network, of missing buckets
        if isinstance(path, Path):
            raise
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise InputError(f"{path} cannot be read or written: {type(error).__name__}: {reason}") from error


def size(path: Place) -> int:
    """Bytes of a file."""
    return path.stat().st_size if isinstance(path, Path) else path.stat().length


def remove(folder: Place) -> None:
    """Removes a folder and what is in it; no error where it is not there."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.rmtree()


def local(path: Place, cache: Path) -> Path:
    """A local path with the content of `path`: itself, or a copy below `cache`.

    Of a folder the files in it are copied, not the folders; of a file only itself. A file is fetched again when its
    store says that it has changed.

    Args:
        path: a file or folder.
        cache: where copies are kept.

    Raises:
        InputError: the store cannot be reached.
    """
    if isinstance(path, Path):
        return path
    with errors_named(path):
        if not path.exists():
            raise InputError(f"there is no file or folder {path}")
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        copy = cache / "remote" / digest / path.name
        if path.is_file():
            _mirror([path], copy.parent)
            return copy
        files = [file for file in path.iterdir() if file.is_file()]
        _mirror(files, copy)
        return copy


def _mirror(files: list[epath.Path], folder: Path) -> None:
    """Copies of `files` in `folder`, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder.with_name(f"{folder.name}{_KEYS}")
    try:
        known = dict(read_json(record)) if record.is_file() else {}
    except (InputError, TypeError, ValueError):  # it is damaged, and costs no more than fetching again
        known = {}
    keys = {file.name: _key(file) for file in files}
    changed = [f for f in files if known.get(f.name) != keys[f.name] or not (folder / f.name).is_file()]
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda file: _copy(file, folder / file.name), changed))
    for stale in folder.iterdir():
        if stale.is_file() and stale.name not in keys:
            stale.unlink()
    if changed or set(known) != set(keys):
        record.write_text(json.dumps(keys), encoding="utf-8")


def _key(file: epath.Path) -> str:
    """Version of a file: the store's tag, or size and time."""
    import fsspec

    system, name = fsspec.core.url_to_fs(str(file))
    return str(system.ukey(name))


def _copy(file: epath.Path, target: Path) -> None:
    with replacing(target) as new, file.open("rb") as source, new.open("wb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)


@contextlib.contextmanager
def _beside(path: epath.Path) -> Iterator[Path]:
    """Temporary local place for a copy of `path`."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / path.name


@contextlib.contextmanager
def fetched(path: Place) -> Iterator[Path]:
    """A local file with the content of `path`: itself, or a copy that goes when it has been read."""
    if isinstance(path, Path):
        yield path
        return
    with _beside(path) as copy:
        with errors_named(path):
            _copy(path, copy)
        try:
            yield copy
        except InputError as error:  # in the words of the one who gave the URL
            raise InputError(str(error).replace(str(copy), str(path))) from error


@contextlib.contextmanager
def written(path: Place) -> Iterator[Path]:
    """A local file that becomes `path` when it has been written."""
    if isinstance(path, Path):
        yield path
        return
    with _beside(path) as copy:
        yield copy
        with errors_named(path), copy.open("rb") as source, path.open("wb") as target:
            stream: Any = target
            shutil.copyfileobj(source, stream, 1 << 20)
