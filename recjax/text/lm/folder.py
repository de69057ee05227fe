"""Folders of language models as Hugging Face writes them, read and written without PyTorch.

config.json                    the architecture
model.safetensors              its tensors; or
model.safetensors.index.json   the files that they are in
tokenizer.json                 the tokenizer
generation_config.json         tokens that end a text; otherwise those of config.json
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from recjax.files import replacing
from recjax.text.folder import WEIGHTS, read_tokenizer, token_ids
from recjax.text.lm.config import DecoderConfig, read_config, written_config
from recjax.text.lm.decoder import Decoder
from recjax.text.lm.tensors import Weights, check_count, open_tensors, read_object, read_tensors
from recjax.text.rows import TokenRows
from recjax.typing import Dtype, InputError, Params, shorten

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
        return token_ids(self.tokenizer, texts)


def read_language_model(
    folder: Path,
    *,
    dtype: Dtype = "float32",
    weights: Weights = "float32",
    layers: int | None = None,
    remat: bool = False,
) -> LanguageModel:
    """Reads a folder.

    Args:
        folder: see above.
        dtype: compute type.
        weights: type of the parameters. "bfloat16" halves their memory and "int8" quarters that of kernels, see
            `recjax.nn.quantised`; both suit those that are not trained.
        layers: the first so many blocks alone; None for all.
        remat: recompute blocks in the backward pass.

    Raises:
        InputError: a file is missing or damaged, the architecture is not supported, or tensors are missing, unexpected,
            or of other shapes than the configuration says.
    """
    path = folder / "config.json"
    content = read_object(path)
    try:
        config = read_config(content, dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if layers is not None and not 1 <= layers <= config.layers:
        raise InputError(f"layers is {layers}, expected 1 to {config.layers}, the layers of {folder}")
    whole, config = config, replace(config, layers=layers or config.layers, remat=remat)
    decoder = Decoder(config)
    params = _parameters(decoder, whole, folder, weights)
    tokenizer = read_tokenizer(folder / "tokenizer.json", config.vocabulary)
    tokenizer.no_truncation()
    return LanguageModel(decoder, params, tokenizer, _stop(folder, content))


def write_language_model(folder: Path, config: DecoderConfig, params: Params, tokenizer: bytes) -> None:
    """Writes a folder that `read_language_model` and Hugging Face's own classes read; float32.

    Args:
        folder: made if absent; files of the same names are replaced, the weights last.
        config: sizes.
        params: of the decoder.
        tokenizer: content of its file. Its special tokens, if there are any, end a text.

    Raises:
        InputError: the tokenizer has tokens that the configuration has no room for, or no family has such options.
    """
    content, flat = written_config(config), flatten_dict(params, sep="/")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, (name, _) in tensor_names(Decoder(config)).items():
        tensor = np.asarray(flat[path], np.float32)
        tensors[name] = np.ascontiguousarray(tensor.T if path.endswith("kernel") else tensor)
    with replacing(folder / "tokenizer.json") as new:
        new.write_bytes(tokenizer)
    special = read_tokenizer(folder / "tokenizer.json", config.vocabulary).get_added_tokens_decoder()
    ends = [number for number, token in special.items() if token.special]
    for file in ("config.json", "generation_config.json"):
        whole = {**(content if file == "config.json" else {}), **({"eos_token_id": ends} if ends else {})}
        with replacing(folder / file) as new:
            new.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    with replacing(folder / WEIGHTS) as new:
        save_file(tensors, new, {"format": "pt"})


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


def _parameters(decoder: Decoder, whole: DecoderConfig, folder: Path, weights: Weights) -> Params:
    with open_tensors(folder) as places:
        # Before a module of that size is made.
        check_count(whole.layers, 9, places, folder)
        prefix = "" if "embed_tokens.weight" in places else "model."
        names = {
            path: (name if prefix else name.removeprefix("model."), shape)
            for path, (name, shape) in tensor_names(decoder).items()
        }
        left = range(decoder.config.layers, whole.layers)

        def spare(name: str) -> bool:
            """Old buffers, what a tied model has twice, and tensors of layers that are left out."""
            tied = decoder.config.tied and name == SHARED["head"]
            return bool(BUFFERS.search(name)) or tied or _layer(name) in left

        return read_tensors(names, places, folder, weights, spare)


def _layer(name: str) -> int:
    found = re.match(r"(?:model\.)?layers\.(\d{1,6})\.", name)
    return int(found[1]) if found else -1


def _stop(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    found = read_object(path).get("eos_token_id") if path.is_file() else None
    found = config.get("eos_token_id") if found is None else found
    stop = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(token) is int for token in stop):
        raise InputError(f"{folder}: eos_token_id is {shorten(repr(found))}, expected a token or a list of tokens")
    return tuple(stop)
