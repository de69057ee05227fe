"""State dicts of PyTorch, read as data: its zip files without running what is pickled in them.

A PyTorch checkpoint is a zip of `NAME/data.pkl`, a pickle of the state dict in which each tensor is a recipe (storage,
offset, shape, strides), and `NAME/data/KEY`, the storages as raw bytes, all stored and none compressed. A pickle may
name any function and call it; the reader here knows three names that a state dict of plain tensors needs, and refuses
every other one. Nothing that is read is larger than the file: a small one cannot ask for gigabytes.
"""

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from recjax.typing import InputError, shorten

LONGEST_PICKLE = 1 << 26
"""Bytes of a pickled state dict; that of a model of a thousand layers is a hundredth of it."""

SHARES = 4
"""Most uses of what is stored by tensors: tied weights are stored once."""

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Storages of PyTorch and the types of their elements."""


class _Storage:
    """The type of a storage's elements."""

    __slots__ = ("dtype",)

    def __init__(self, name: str):
        self.dtype = np.dtype(jax.numpy.bfloat16) if DTYPES[name] == "bfloat16" else np.dtype(DTYPES[name])


def _tensor(storage: np.ndarray, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """Counterpart of `torch._utils._rebuild_tensor_v2`: a strided view of a storage. Never reads outside of it."""
    numbers = (offset, *size, *stride)
    if (
        not isinstance(storage, np.ndarray)
        or len(size) != len(stride)
        or not all(type(number) is int and number >= 0 for number in numbers)
    ):
        raise pickle.UnpicklingError("a tensor is not described by whole numbers")
    if math.prod(size) == 0:
        return np.zeros(size, storage.dtype)
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # A stride of 0 would make a huge array of a small file.
    if end >= len(storage) or math.prod(size) > len(storage):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} reaches beyond its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _stored(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A file of an archive that is not compressed, so that it takes no more memory than room on the disk."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise pickle.UnpicklingError(f"{name} is compressed, which PyTorch's files are not")
    if entry.file_size > most:
        raise pickle.UnpicklingError(f"{name} has {entry.file_size:,} bytes, expected at most {most:,}")
    return archive.read(name)


def _check_pickle(content: bytes) -> None:
    """Refuses what makes a short pickle ask for much memory: memo places far apart, and empty buffers of any size."""
    for code, argument, _ in pickletools.genops(content):
        far = code.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(content)
        if far or code.name in ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4"):
            raise pickle.UnpicklingError(f"{code.name} of {argument!r} in a pickle of {len(content):,} bytes")


class _Reader(pickle.Unpickler):
    """Unpickles a state dict of plain tensors; names nothing and calls nothing else."""

    def __init__(self, archive: zipfile.ZipFile, pickled: str, path: Path):
        content = _stored(archive, pickled, LONGEST_PICKLE)
        _check_pickle(content)
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self.archive, self.folder, self.path = archive, pickled.removesuffix("data.pkl"), path
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        # New functions each time: a pickle may set attributes of what it is given.
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *parts: _tensor(*parts)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in DTYPES:
            return _Storage(name)
        raise InputError(
            f"{self.path} asks for {module}.{name}, which a state dict of plain tensors does not need; nothing of it "
            "was run"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], _Storage)):
            raise pickle.UnpicklingError(f"an unknown kind of storage: {pid!r}")
        _, storage, key, _, count = pid
        if key not in self.storages:
            name = f"{self.folder}data/{key}"
            size = self.archive.getinfo(name).file_size
            if size != count * storage.dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {key} has {size} bytes, not {count} elements")
            self.storages[key] = np.frombuffer(_stored(self.archive, name, size), storage.dtype)
        return self.storages[key]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that `torch.save` wrote, by name; nothing pickled is executed.

    Raises:
        InputError: the file is absent, of PyTorch's old format, damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is no zip file, so not of the format that PyTorch writes since 1.6; save it again there with "
            "torch.save(torch.load(FILE, map_location='cpu', weights_only=True), NEW_FILE)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickled = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(pickled) != 1:
                inner = [name for name in names if name.endswith((".pt", ".pth"))]
                hint = f"; it holds {inner[0]}: unzip that first" if inner else ""
                raise InputError(f"{path} is a zip file but no PyTorch checkpoint (no data.pkl){hint}")
            _check_total(archive, path)
            order = [_stored(archive, name, 64) for name in names if name.endswith("byteorder")]
            if order and order[0].strip() != b"little":
                raise InputError(f"{path} was written on a big-endian machine, which is not supported")
            found = _Reader(archive, pickled[0], path).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        raise InputError(f"{path} is damaged: {shorten(str(error), 200)}") from None
    for key in ("state_dict", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path} holds a {type(found).__name__}, expected the tensors of a model by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise InputError(f"{path}: {shorten(repr(name))} is a {type(value).__name__}, expected tensors by name")
    if sum(value.size * value.itemsize for value in found.values()) > SHARES * path.stat().st_size:
        raise InputError(f"{path} has tensors that are many times larger than the file")
    return dict(found)


def _check_total(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises InputError where the files of an archive lie over each other, to be read many times."""
    total = sum(entry.compress_size for entry in archive.infolist())
    if total > path.stat().st_size:
        raise InputError(f"{path} is damaged: its files are larger than itself")
