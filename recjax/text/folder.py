"""Folders of sentence encoders as Hugging Face and sentence-transformers write them, read and written without PyTorch.

config.json                 the architecture
model.safetensors           its tensors
tokenizer.json              the tokenizer
modules.json                what follows: pooling, normalisation; without it, mean pooling alone
1_Pooling/config.json       mean or first token
sentence_bert_config.json   most tokens of a text, lower case
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from recjax.files import replacing
from recjax.text import bert, mpnet
from recjax.text.block import ACTIVATIONS, Sizes
from recjax.typing import InputError, Params

Pooling = Literal["mean", "cls"]

WEIGHTS = "model.safetensors"
FAMILIES = {"bert": bert.build, "mpnet": mpnet.build}
POOLINGS: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls"}
"""Pooling modes by their names in a pooling module's configuration."""

OLD_NAMES = {"weight": "gamma", "bias": "beta"}
"""How the oldest files call the tensors of a normalisation."""


@dataclass(frozen=True, eq=False)
class EncoderFolder:
    """A sentence encoder, read.

    Attributes:
        module: `Bert` or `MPNet`.
        params: its parameters, NumPy float32.
        tokenizer: without padding, truncation at `max_tokens`.
        max_tokens: most tokens of a text, special tokens included.
        pooling: "mean" of the tokens, or "cls", the first.
        normalise: vectors have length 1.
        lower: texts are lowered before the tokenizer sees them.
    """

    module: bert.Bert | mpnet.MPNet
    params: Params
    tokenizer: Tokenizer
    max_tokens: int
    pooling: Pooling
    normalise: bool
    lower: bool


def read_folder(folder: Path, *, max_tokens: int | None = None, dtype: str = "float32") -> EncoderFolder:
    """Reads a folder.

    Args:
        folder: see above.
        max_tokens: cut texts here instead of where the folder says.
        dtype: compute type of the module.

    Raises:
        InputError: a file is missing or damaged, the architecture or the pooling is not supported, a tensor is missing
            or of another shape than the configuration says, or `max_tokens` is out of range.
    """
    core, pooling, normalise = _modules(folder)
    path = core / "config.json"
    config = _json(path)
    family = config.get("model_type")
    if family not in FAMILIES:
        raise InputError(f"{path}: model_type is {family!r}, expected one of: {', '.join(FAMILIES)}")
    try:
        module = FAMILIES[family](_sizes(config, path), config, dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    limits = _json(folder / "sentence_bert_config.json", {}) or _json(core / "sentence_bert_config.json", {})
    room = module.sizes.positions - module.first_position
    allowed = min(int(limits.get("max_seq_length") or room), room)
    if max_tokens is not None and not 3 <= max_tokens <= room:
        raise InputError(f"max_tokens is {max_tokens}, expected 3 to {room}, the positions of {folder}")
    cut = max_tokens or allowed
    return EncoderFolder(
        module,
        _parameters(module, core / WEIGHTS),
        _tokenizer(core / "tokenizer.json", cut, module.sizes.vocabulary),
        cut,
        pooling,
        normalise,
        bool(limits.get("do_lower_case")),
    )


def write_folder(source: Path, encoder: EncoderFolder, params: Params, out: Path) -> None:
    """Writes an encoder with other parameters, as a folder that is read like its source.

    Args:
        source: the folder that `encoder` was read from; its settings and tokenizer are copied.
        encoder: what was read.
        params: of its module.
        out: the new folder; files of the same names in it are replaced.
    """
    core = out / _modules(source)[0].relative_to(source)
    core.mkdir(parents=True, exist_ok=True)
    for file in (*source.rglob("*.json"), *source.rglob("*.txt")):
        copy = out / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    flat = flatten_dict(params, sep="/")
    tensors = {}
    for place, name in encoder.module.tensor_names().items():
        tensor = np.asarray(flat[place], np.float32)
        tensors[name] = np.ascontiguousarray(tensor.T if place.endswith("kernel") else tensor)
    with replacing(core / WEIGHTS) as new:
        save_file(tensors, new, {"format": "pt"})


def fingerprint(folder: Path) -> str:
    """sha256 (hex) of every file that the vectors depend on."""
    digest = hashlib.sha256(b"recjax encoder 1")
    for file in sorted([*folder.rglob("*.json"), *folder.rglob(WEIGHTS)]):
        with file.open("rb") as stream:
            name = file.relative_to(folder).as_posix()
            digest.update(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()};".encode())
    return digest.hexdigest()


def _modules(folder: Path) -> tuple[Path, Pooling, bool]:
    """Folder of the transformer, pooling, whether vectors are normalised."""
    path = folder / "modules.json"
    modules = _json(path, None)
    if modules is None:
        return folder, "mean", False
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InputError(f"{path}: expected a list of modules")
    core, pooling, normalise = folder, "mean", False
    names = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if names not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(f"{path}: modules are {', '.join(names)}; expected Transformer, then Pooling, then Normalize")
    for name, module in zip(names, modules, strict=True):
        place = folder / str(module.get("path", ""))
        if name == "Transformer":
            core = place
        elif name == "Pooling":
            pooling = _pooling(place / "config.json")
        else:
            normalise = True
    return core, pooling, normalise


def _pooling(path: Path) -> Pooling:
    config = _json(path)
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        chosen = [str(mode) for mode in (modes if isinstance(modes, list) else [modes])]
        chosen = [{"mean": "mean_tokens", "cls": "cls_token"}.get(mode, mode) for mode in chosen]
    else:
        chosen = [key.removeprefix("pooling_mode_") for key, on in config.items() if "pooling_mode_" in key and on]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        raise InputError(f"{path}: pooling is {' and '.join(chosen) or 'none'}, expected mean_tokens or cls_token")
    return POOLINGS[chosen[0]]


def _sizes(config: Mapping[str, Any], path: Path) -> Sizes:
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InputError(f"hidden_act is {activation!r}, expected one of: {', '.join(ACTIVATIONS)}")
    try:
        sizes = Sizes(
            vocabulary=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            width=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            activation=activation,
        )
    except KeyError as error:
        raise InputError(f"there is no {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"a size is not a number: {error}") from None
    if sizes.width % sizes.heads:
        raise InputError(f"hidden_size {sizes.width} is not divided by num_attention_heads {sizes.heads}")
    return sizes


def _parameters(module: bert.Bert | mpnet.MPNet, path: Path) -> Params:
    """The module's parameters out of a safetensors file; tensors of other heads in it are left."""
    if not path.is_file():
        raise InputError(_no_weights(path))
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens, tokens > 0)["params"]
    expected = {
        jax.tree_util.keystr(key, simple=True, separator="/"): leaf.shape
        for key, leaf in jax.tree.leaves_with_path(shapes)
    }
    try:
        with safe_open(path, framework="flax") as file:
            return unflatten_dict(_tensors(module, file, expected, path), sep="/")
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from None


def _tensors(module: Any, file: Any, expected: dict[str, tuple[int, ...]], path: Path) -> dict[str, np.ndarray]:
    held = set(file.keys())
    # A file of a model with a head on top has its encoder below a name of its own.
    landmark = "embeddings.word_embeddings.weight"
    prefix = min((name.removesuffix(landmark) for name in held if name.endswith(landmark)), key=len, default="")
    tensors = {}
    for place, name in module.tensor_names().items():
        name = prefix + name
        stem, _, last = name.rpartition(".")
        if name not in held and f"{stem}.{OLD_NAMES[last]}" in held:
            name = f"{stem}.{OLD_NAMES[last]}"
        if name not in held:
            raise InputError(f"{path} has no tensor {name!r}, which config.json asks for")
        tensor = np.asarray(file.get_tensor(name), np.float32)
        tensor = tensor.T if place.endswith("kernel") else tensor
        if tensor.shape != expected[place]:
            shapes = (shape[::-1] if place.endswith("kernel") else shape for shape in (tensor.shape, expected[place]))
            raise InputError("{}: {!r} has shape {}, but config.json makes it {}".format(path, name, *shapes))
        tensors[place] = tensor
    return tensors


def _no_weights(path: Path) -> str:
    others = ("model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")
    there = [name for name in others if (path.parent / name).exists()]
    message = f"{path} does not exist"
    if there:
        message += f"; {there[0]} is there, but recjax reads one safetensors file only: save the model as that"
    return message


def _tokenizer(path: Path, max_tokens: int, vocabulary: int) -> Tokenizer:
    if not path.is_file():
        raise InputError(f"{path} does not exist: save the fast tokenizer of the model beside it")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{path} is not a tokenizer: {error}") from None
    if (size := tokenizer.get_vocab_size()) > vocabulary:
        raise InputError(f"{path} has {size} tokens, but config.json makes room for {vocabulary}")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


_REQUIRED: Any = object()


def _json(path: Path, default: Any = _REQUIRED) -> Any:
    """A JSON file; `default` where there is none."""
    if default is not _REQUIRED and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: a sentence encoder's folder has one") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
