"""Folders of sentence encoders as Hugging Face and sentence-transformers write them, read and written without PyTorch.

config.json                 the architecture
model.safetensors           its tensors
tokenizer.json              the tokenizer
modules.json                what follows: pooling, normalisation; without it, mean pooling alone
1_Pooling/config.json       mean or first token
sentence_bert_config.json   most tokens of a text, lower case
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from recjax.files import read_json, replacing
from recjax.text import bert, mpnet
from recjax.text.block import ACTIVATIONS, Sizes, size_of
from recjax.text.rows import TokenRows
from recjax.typing import InputError, Params, shorten

Pooling = Literal["mean", "cls"]

WEIGHTS = "model.safetensors"
FAMILIES = {"bert": bert.build, "mpnet": mpnet.build}
FEWEST_TOKENS = 3
"""The two special ones, and one of a text."""

POOLINGS: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls"}
"""Pooling modes by their names in a pooling module's configuration."""

OLD_NAMES = {"weight": "gamma", "bias": "beta"}
"""Names of the tensors of a normalisation in the oldest files."""


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
    config = _object(path)
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(f"{path}: model_type is {shorten(repr(family))}, expected one of: {', '.join(FAMILIES)}")
    try:
        module = FAMILIES[family](_sizes(config, path), config, dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    limits = _object(folder / "sentence_bert_config.json", {}) or _object(core / "sentence_bert_config.json", {})
    room = module.sizes.positions - module.first_position
    if room < FEWEST_TOKENS:
        raise InputError(f"{path}: {module.sizes.positions} positions have no room for {FEWEST_TOKENS} tokens")
    given = limits.get("max_seq_length")
    if given is not None and (type(given) is not int or given < FEWEST_TOKENS):
        raise InputError(
            f"{folder}: max_seq_length is {shorten(repr(given))}, expected a whole number from {FEWEST_TOKENS}"
        )
    if max_tokens is not None and not FEWEST_TOKENS <= max_tokens <= room:
        raise InputError(f"max_tokens is {max_tokens}, expected {FEWEST_TOKENS} to {room}, the positions of {folder}")
    cut = max_tokens or min(given or room, room)
    tokenizer = read_tokenizer(core / "tokenizer.json", module.sizes.vocabulary)
    tokenizer.enable_truncation(cut)
    return EncoderFolder(
        module,
        _parameters(module, core / WEIGHTS),
        tokenizer,
        cut,
        pooling,
        normalise,
        _flag(limits, "do_lower_case", folder),
    )


def _flag(config: Mapping[str, Any], key: str, folder: Path) -> bool:
    found = config.get(key) or False
    if not isinstance(found, bool):
        raise InputError(f"{folder}: {key} is {shorten(repr(found))}, expected true or false")
    return found


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
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules[:10]):
        raise InputError(f"{path}: expected a list of modules")
    core, pooling, normalise = folder, "mean", False
    names = [str(module.get("type", "")).rpartition(".")[2] for module in modules[:10]]
    if names not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        shown = shorten(", ".join(names))
        raise InputError(f"{path}: modules are {shown}; expected Transformer, then Pooling, then Normalize")
    for name, module in zip(names, modules, strict=True):
        place = _inside(folder, module.get("path", ""), path)
        if name == "Transformer":
            core = place
        elif name == "Pooling":
            pooling = _pooling(place / "config.json")
        else:
            normalise = True
    return core, pooling, normalise


def _inside(folder: Path, part: Any, path: Path) -> Path:
    """A module's folder; what is read, and written beside a copy, never lies outside of the encoder's."""
    parts = PurePosixPath(part).parts if isinstance(part, str) and "\0" not in part and len(part) < 256 else ("..",)
    if ".." in parts or "/" in parts or "\\" in str(part):
        raise InputError(f"{path}: the path of a module is {shorten(repr(part))}, expected a folder inside of {folder}")
    return folder.joinpath(*parts)


def _pooling(path: Path) -> Pooling:
    config = _object(path)
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        chosen = [str(mode) for mode in (modes if isinstance(modes, list) else [modes])]
        chosen = [{"mean": "mean_tokens", "cls": "cls_token"}.get(mode, mode) for mode in chosen]
    else:
        chosen = [key.removeprefix("pooling_mode_") for key, on in config.items() if "pooling_mode_" in key and on]
    if len(chosen) != 1 or chosen[0] not in POOLINGS:
        shown = shorten(" and ".join(chosen)) or "none"
        raise InputError(f"{path}: pooling is {shown}, expected mean_tokens or cls_token")
    return POOLINGS[chosen[0]]


def _sizes(config: Mapping[str, Any], path: Path) -> Sizes:
    activation = config.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise InputError(f"hidden_act is {shorten(repr(activation))}, expected one of: {', '.join(ACTIVATIONS)}")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
        raise InputError(f"layer_norm_eps is {shorten(repr(epsilon))}, expected a number between 0 and 1")
    sizes = Sizes(
        vocabulary=size_of(config, "vocab_size"),
        positions=size_of(config, "max_position_embeddings"),
        width=size_of(config, "hidden_size"),
        layers=size_of(config, "num_hidden_layers"),
        heads=size_of(config, "num_attention_heads"),
        inner=size_of(config, "intermediate_size"),
        epsilon=float(epsilon),
        activation=activation,
    )
    if sizes.width % sizes.heads:
        raise InputError(f"hidden_size {sizes.width} is not divided by num_attention_heads {sizes.heads}")
    return sizes


def _parameters(module: bert.Bert | mpnet.MPNet, path: Path) -> Params:
    """The module's parameters out of a safetensors file; tensors of other heads in it are left."""
    if not path.is_file():
        raise InputError(_no_weights(path))
    _check_count(module, path)
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), TokenRows(tokens, tokens))["params"]
    expected = {
        jax.tree_util.keystr(key, simple=True, separator="/"): leaf.shape
        for key, leaf in jax.tree.leaves_with_path(shapes)
    }
    try:
        with safe_open(path, framework="flax") as file:
            return unflatten_dict(_tensors(module, file, expected, path), sep="/")
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # a type that JAX does not have
        raise InputError(f"{path} is not a safetensors file: {error}") from None


def _check_count(module: bert.Bert | mpnet.MPNet, path: Path) -> None:
    """Raises InputError where a file cannot have what its configuration says; before anything of that size is made."""
    try:
        with safe_open(path, framework="numpy") as file:
            held = len(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from None
    sizes = module.sizes
    if sizes.layers * 2 * len(bert.IN_BLOCK) > held:
        raise InputError(f"{path} has {held:,} tensors, too few for the {sizes.layers:,} layers of config.json")
    if max(sizes.vocabulary, sizes.positions, sizes.inner) * sizes.width > path.stat().st_size:
        raise InputError(f"{path} is smaller than the sizes in config.json make it")


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
        tensor = file.get_tensor(name)
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise InputError(f"{path}: {name!r} holds {tensor.dtype}, expected floating point numbers")
        tensor = np.asarray(tensor, np.float32)
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


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, by a language model's tokenizer; what it puts around texts by itself is included."""
    with refused("the language model's tokenizer cannot read a text"):
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def token_count(tokenizer: Tokenizer) -> int:
    """Rows of the smallest table that has all tokens, special ones and those put around texts included."""
    return max([*tokenizer.get_vocab(with_added_tokens=True).values(), *tokenizer.encode("a").ids], default=-1) + 1


def read_tokenizer(path: Path, vocabulary: int | None = None) -> Tokenizer:
    """A `tokenizer.json`, without padding; InputError where it has tokens that a vocabulary of so many has not."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: save the fast tokenizer of the model beside it")
    with refused(f"{path} is not a tokenizer"):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        size = token_count(tokenizer)
    # A lookup beyond the table would give the vector of its last row.
    if vocabulary is not None and size > vocabulary:
        raise InputError(f"{path} has {size} tokens, but config.json makes room for {vocabulary}")
    return tokenizer


@contextlib.contextmanager
def refused(message: str) -> Iterator[None]:
    """Turns whatever the tokenizers' library raises into one message: bare Exceptions, and panics, which are none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{message}: {shorten(str(error))}") from None


_REQUIRED: Any = object()


def _json(path: Path, default: Any = _REQUIRED) -> Any:
    """A JSON file; `default` where there is none."""
    if default is not _REQUIRED and not path.is_file():
        return default
    return read_json(path, absent="which a sentence encoder's folder has")


def _object(path: Path, default: Any = _REQUIRED) -> dict[str, Any]:
    """A JSON file that holds an object; `default` where there is none."""
    found = _json(path, default)
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {shorten(repr(found))}, expected an object")
    return found
