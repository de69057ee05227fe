"""Tensors and small files of a Hugging Face folder: found, checked by name, shape and type, laid out as parameters."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError, safe_open

from recjax.files import read_json
from recjax.nn.quantised import SCALE, quantised
from recjax.text.folder import WEIGHTS
from recjax.typing import InputError, Params, shorten

INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
SHOWN = 5
"""Tensors that a message names."""

Weights = Literal["float32", "bfloat16", "int8"]
"""Types that parameters are held in; eight bits suit those that are not trained."""

Places = Mapping[str, tuple[Path, Any]]
"""Tensors by name, with the file of each and what reads it."""


@contextmanager
def open_tensors(folder: Path) -> Iterator[Places]:
    """The tensors of a folder, in one file or in those that an index names; InputError where one cannot be read."""
    with ExitStack() as stack:
        files = {}
        for path in _weight_files(folder):
            try:
                files[path] = stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is not a safetensors file: {error}") from None
        yield {name: (path, file) for path, file in files.items() for name in file.keys()}  # noqa: SIM118


def read_tensors(
    names: Mapping[str, tuple[str, tuple[int, ...]]],
    places: Places,
    folder: Path,
    weights: Weights,
    spare: Callable[[str], bool],
) -> Params:
    """Parameters made of tensors; kernels are turned, since PyTorch has outputs first.

    Args:
        names: path of each parameter -> name of its tensor, and the parameter's shape.
        places: see `open_tensors`.
        folder: for messages.
        weights: type of the parameters; "int8" is that of kernels, which get a `kernel_scale`, and bfloat16 of others.
        spare: says of the name of a tensor that nothing needs whether it may be there.

    Raises:
        InputError: tensors are missing, unexpected, or of another shape or type.
    """
    expected = {name for name, _ in names.values()}
    if missing := sorted(expected - places.keys()):
        raise InputError(f"{folder} has no tensor {_some(missing)}, which config.json asks for")
    if unexpected := [name for name in sorted(places.keys() - expected) if not spare(name)]:
        raise InputError(f"{folder} has the tensor {_some(unexpected)}, which config.json does not ask for")
    found: dict[str, Any] = {}
    for path, (name, shape) in names.items():
        tensor = _tensor(*places[name], name, shape, path)
        if weights == "int8" and path.endswith("/kernel"):
            found[path], found[path.removesuffix("kernel") + SCALE] = quantised(tensor)
        else:
            kind = "bfloat16" if weights == "int8" else weights
            found[path] = tensor.astype(jnp.dtype(kind), copy=False)
    return unflatten_dict(found, sep="/")


def check_count(layers: int, least: int, places: Places, folder: Path) -> None:
    """InputError where files cannot have as many layers, of at least so many tensors each, as a configuration says."""
    if layers * least > len(places):
        raise InputError(f"{folder} has {len(places):,} tensors, too few for the {layers:,} layers of config.json")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    found = read_json(path, absent="which the folder of a language model has")
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {shorten(repr(found))}, expected an object")
    return found


def _tensor(file: Path, opened: Any, name: str, shape: tuple[int, ...], path: str) -> np.ndarray:
    turned = path.endswith("kernel")
    expected = shape[::-1] if turned else shape
    held, kind = tuple(opened.get_slice(name).get_shape()), opened.get_slice(name).get_dtype()
    if kind not in FLOATS:
        raise InputError(f"{file}: {name!r} holds {kind}, expected one of {', '.join(FLOATS)}")
    if held != expected:
        raise InputError(f"{file}: {name!r} has shape {held}, but config.json makes it {expected}")
    tensor = opened.get_tensor(name)
    return tensor.T if turned else tensor


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        message = f"{folder / WEIGHTS} does not exist, nor does {INDEX}"
        others = [name.name for name in sorted(folder.glob("pytorch_model*.bin*")) + sorted(folder.glob("*.gguf"))]
        raise InputError(f"{message}; {others[0]} is there, which recjax does not read" if others else message)
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index}: weight_map is {shorten(repr(named))}, expected tensors and the files they are in")
    for name in sorted(set(named.values())):
        if Path(name).name != name:
            raise InputError(f"{index} names the file {shorten(name)!r}, expected one in its own folder")
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} does not exist, but {INDEX} names it")
    return [folder / name for name in sorted(set(named.values()))]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
