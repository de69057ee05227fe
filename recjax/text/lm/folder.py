"""Folders of language models as Hugging Face writes them, read without PyTorch.

config.json                    the architecture
model.safetensors              its tensors; or
model.safetensors.index.json   the files that they are in
tokenizer.json                 the tokenizer
generation_config.json         tokens that end a text; otherwise those of config.json
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from recjax.files import read_json
from recjax.text.folder import WEIGHTS, read_tokenizer, refused
from recjax.text.lm.config import DecoderConfig, read_config
from recjax.text.lm.decoder import Decoder
from recjax.text.rows import TokenRows
from recjax.typing import Dtype, InputError, Params, shorten

INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
SHOWN = 5
"""Tensors that a message names."""

SHARED = {"tokens": "model.embed_tokens.weight", "norm/scale": "model.norm.weight", "head": "lm_head.weight"}
IN_LAYER = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "feed_forward/gate": "mlp.gate_proj",
    "feed_forward/up": "mlp.up_proj",
    "feed_forward/down": "mlp.down_proj",
    "feed_forward_norm": "post_attention_layernorm",
}
IN_MODULE = {"kernel": "weight", "scale": "weight", "bias": "bias"}

BUFFERS = re.compile(r"rotary_emb\.inv_freq$")
"""Tensors of old files that are no weights."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A language model, read.

    Attributes:
        decoder: the network.
        params: its parameters, NumPy.
        tokenizer: without padding and truncation.
        stop: tokens that end a text.
    """

    decoder: Decoder
    params: Params
    tokenizer: Tokenizer
    stop: tuple[int, ...]

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; what the tokenizer puts around texts by itself is included."""
        with refused("the language model's tokenizer cannot read a text"):
            return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]


def read_language_model(
    folder: Path,
    *,
    dtype: Dtype = "float32",
    weights: Dtype = "float32",
    layers: int | None = None,
    remat: bool = False,
) -> LanguageModel:
    """Reads a folder.

    Args:
        folder: see above.
        dtype: compute type.
        weights: type of the parameters; bfloat16 halves their memory, and suits those that are not trained.
        layers: the first so many blocks alone; None for all.
        remat: recompute blocks in the backward pass.

    Raises:
        InputError: a file is missing or damaged, the architecture is not supported, or tensors are missing, unexpected,
            or of other shapes than the configuration says.
    """
    path = folder / "config.json"
    content = _object(path)
    try:
        config = read_config(content, dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if layers is not None and not 1 <= layers <= config.layers:
        raise InputError(f"layers is {layers}, expected 1 to {config.layers}, the layers of {folder}")
    whole, config = config, replace(config, layers=layers or config.layers, remat=remat)
    decoder = Decoder(config)
    params = _parameters(decoder, whole, folder, np.dtype(jnp.dtype(weights)))
    tokenizer = read_tokenizer(folder / "tokenizer.json", config.vocabulary)
    tokenizer.no_truncation()
    return LanguageModel(decoder, params, tokenizer, _stop(folder, content))


def tensor_names(decoder: Decoder) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Path of each parameter in the module -> name of its tensor in a file, and the parameter's shape."""
    example = TokenRows(*(jnp.zeros((1, 2), jnp.int32),) * 2)
    shapes: Any = jax.eval_shape(decoder.init, jax.random.key(0), example)["params"]
    flat: dict[str, Any] = flatten_dict(shapes, sep="/")  # pyright: ignore[reportAssignmentType]
    names = {}
    for path, leaf in flat.items():
        found = re.fullmatch(r"layer_(\d+)/(.+)/(\w+)", path)
        name = f"model.layers.{found[1]}.{IN_LAYER[found[2]]}.{IN_MODULE[found[3]]}" if found else SHARED[path]
        names[path] = name, leaf.shape
    return names


def _parameters(decoder: Decoder, whole: DecoderConfig, folder: Path, dtype: np.dtype) -> Params:
    with ExitStack() as stack:
        files = {}
        for path in _weight_files(folder):
            try:
                files[path] = stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is not a safetensors file: {error}") from None
        places = {name: (path, file) for path, file in files.items() for name in file.keys()}  # noqa: SIM118
        _check_count(whole, places, folder)
        prefix = "" if "embed_tokens.weight" in places else "model."
        names = {
            path: (name if prefix else name.removeprefix("model."), shape)
            for path, (name, shape) in tensor_names(decoder).items()
        }
        _check_names({name for name, _ in names.values()}, places, decoder.config, whole, folder)
        return unflatten_dict(
            {path: _tensor(*places[name], name, shape, path, dtype) for path, (name, shape) in names.items()}, sep="/"
        )


def _tensor(file: Path, opened: Any, name: str, shape: tuple[int, ...], path: str, dtype: np.dtype) -> np.ndarray:
    turned = path.endswith("kernel")
    expected = shape[::-1] if turned else shape
    held, kind = tuple(opened.get_slice(name).get_shape()), opened.get_slice(name).get_dtype()
    if kind not in FLOATS:
        raise InputError(f"{file}: {name!r} holds {kind}, expected one of {', '.join(FLOATS)}")
    if held != expected:
        raise InputError(f"{file}: {name!r} has shape {held}, but config.json makes it {expected}")
    tensor = opened.get_tensor(name).astype(dtype, copy=False)
    return tensor.T if turned else tensor


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        message = f"{folder / WEIGHTS} does not exist, nor does {INDEX}"
        others = [name.name for name in sorted(folder.glob("pytorch_model*.bin*")) + sorted(folder.glob("*.gguf"))]
        raise InputError(f"{message}; {others[0]} is there, which recjax does not read" if others else message)
    named = _object(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"{index}: weight_map is {shorten(repr(named))}, expected tensors and the files they are in")
    for name in sorted(set(named.values())):
        if Path(name).name != name:
            raise InputError(f"{index} names the file {shorten(name)!r}, expected one in its own folder")
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} does not exist, but {INDEX} names it")
    return [folder / name for name in sorted(set(named.values()))]


def _check_count(config: DecoderConfig, places: dict[str, Any], folder: Path) -> None:
    """Raises InputError where files cannot have what their configuration says; before a module of that size is made."""
    if config.layers * 9 > len(places):
        raise InputError(
            f"{folder} has {len(places):,} tensors, too few for the {config.layers:,} layers of config.json"
        )


def _check_names(
    expected: set[str], held: dict[str, Any], config: DecoderConfig, whole: DecoderConfig, folder: Path
) -> None:
    """Raises InputError where tensors are missing or unexpected; those of layers that are left out are neither."""
    if missing := sorted(expected - held.keys()):
        raise InputError(f"{folder} has no tensor {_some(missing)}, which config.json asks for")
    left = range(config.layers, whole.layers)
    unexpected = [
        name
        for name in sorted(held.keys() - expected)
        if not (BUFFERS.search(name) or (config.tied and name == SHARED["head"]) or _layer(name) in left)
    ]
    if unexpected:
        raise InputError(f"{folder} has the tensor {_some(unexpected)}, which config.json does not ask for")


def _layer(name: str) -> int:
    found = re.match(r"(?:model\.)?layers\.(\d{1,6})\.", name)
    return int(found[1]) if found else -1


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _stop(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    found = _object(path).get("eos_token_id") if path.is_file() else None
    found = config.get("eos_token_id") if found is None else found
    stop = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(token) is int for token in stop):
        raise InputError(f"{folder}: eos_token_id is {shorten(repr(found))}, expected a token or a list of tokens")
    return tuple(stop)


def _object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    found = read_json(path, absent="which the folder of a language model has")
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {shorten(repr(found))}, expected an object")
    return found
