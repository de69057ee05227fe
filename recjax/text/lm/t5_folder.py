"""Folders of T5 as Hugging Face writes them, of the first version and of 1.1, read without PyTorch.

config.json, model.safetensors or an index, tokenizer.json: see `recjax.text.lm.folder`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from tokenizers import Tokenizer

from recjax.text.block import size_of
from recjax.text.folder import read_tokenizer, token_ids
from recjax.text.lm.config import flag_of, number_of
from recjax.text.lm.t5 import T5, FeedForwardKind, T5Config
from recjax.text.lm.tensors import check_count, open_tensors, read_object, read_tensors
from recjax.typing import Dtype, InputError, Params, shorten

FAMILY = "t5"

FEED_FORWARD: dict[str, FeedForwardKind] = {"relu": "relu", "gated-gelu": "gated-gelu"}

IN_BLOCK = {
    "own/query": "{own}.SelfAttention.q",
    "own/key": "{own}.SelfAttention.k",
    "own/value": "{own}.SelfAttention.v",
    "own/output": "{own}.SelfAttention.o",
    "own_norm": "{own}.layer_norm",
    "cross/query": "layer.1.EncDecAttention.q",
    "cross/key": "layer.1.EncDecAttention.k",
    "cross/value": "layer.1.EncDecAttention.v",
    "cross/output": "layer.1.EncDecAttention.o",
    "cross_norm": "layer.1.layer_norm",
    "feed_forward/up": "{last}.DenseReluDense.{up}",
    "feed_forward/linear": "{last}.DenseReluDense.wi_1",
    "feed_forward/down": "{last}.DenseReluDense.wo",
    "feed_forward_norm": "{last}.layer_norm",
}
SHARED = {"tokens": "shared.weight", "head": "lm_head.weight"}

COPIES = re.compile(r"^(en|de)coder\.embed_tokens\.weight$|EncDecAttention\.relative_attention_bias")
"""Tensors that files have twice, and one of old files that has no effect."""


@dataclass(frozen=True, eq=False)
class EncoderDecoder:
    """A T5, read.

    Attributes:
        module: the network.
        params: its parameters, NumPy; of an encoder alone, only its own.
        tokenizer: without padding and truncation.
    """

    module: T5
    params: Params
    tokenizer: Tokenizer

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; what the tokenizer puts around texts by itself is included."""
        return token_ids(self.tokenizer, texts)


def read_t5(
    folder: Path,
    *,
    dtype: Dtype = "float32",
    weights: Dtype = "float32",
    layers: int | None = None,
    encoder: bool = False,
) -> EncoderDecoder:
    """Reads a folder.

    Args:
        folder: see the module.
        dtype: compute type.
        weights: type of the parameters.
        layers: the first so many blocks of the encoder alone; None for all.
        encoder: leave the decoder unread.

    Raises:
        InputError: a file is missing or damaged, the architecture is not supported, or tensors are missing, unexpected,
            or of other shapes than the configuration says.
    """
    path = folder / "config.json"
    try:
        config = read_t5_config(read_object(path), dtype)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if layers is not None and not 1 <= layers <= config.layers:
        raise InputError(f"layers is {layers}, expected 1 to {config.layers}, the layers of {folder}")
    whole, tied = config.layers, config.tied
    config = replace(config, layers=layers or whole, tied=tied or encoder, dropout=0.0)
    left = range(config.layers, whole)

    def spare(name: str) -> bool:
        block = re.match(r"encoder\.block\.(\d{1,6})\.", name)
        own = not name.startswith("decoder.") and name != SHARED["head"]
        unread = (block is not None and int(block[1]) in left) or (encoder and not own)
        return unread or bool(COPIES.search(name)) or (tied and name == SHARED["head"])

    with open_tensors(folder) as places:
        check_count(whole, 8, places, folder)
        names = tensor_names(config, encoder=encoder)
        params = read_tensors(names, places, folder, weights, spare)
    tokenizer = read_tokenizer(folder / "tokenizer.json", config.vocabulary)
    tokenizer.no_truncation()
    return EncoderDecoder(T5(config), params, tokenizer)


def read_t5_config(content: Mapping[str, Any], dtype: Dtype = "float32") -> T5Config:
    """The encoder-decoder that a `config.json` describes.

    Raises:
        InputError: another family, or an option that is not supported.
    """
    config = {key: value for key, value in content.items() if value is not None}
    if (family := config.get("model_type")) != FAMILY:
        raise InputError(f"model_type is {shorten(repr(family))}, expected {FAMILY!r}")
    kind = config.get("feed_forward_proj", "relu")
    if not isinstance(kind, str) or kind not in FEED_FORWARD:
        raise InputError(f"feed_forward_proj is {shorten(repr(kind))}, expected one of: {', '.join(FEED_FORWARD)}")
    if config.get("quantization_config"):
        raise InputError("quantization_config is there, expected weights that are not quantised")
    layers = size_of(config, "num_layers")
    return T5Config(
        vocabulary=size_of(config, "vocab_size"),
        width=size_of(config, "d_model"),
        heads=size_of(config, "num_heads"),
        channels=size_of(config, "d_kv"),
        inner=size_of(config, "d_ff"),
        layers=layers,
        decoder_layers=size_of(config, "num_decoder_layers", layers),
        feed_forward=FEED_FORWARD[kind],
        buckets=size_of(config, "relative_attention_num_buckets", 32),
        max_distance=size_of(config, "relative_attention_max_distance", 128),
        tied=flag_of(config, "tie_word_embeddings", True),
        epsilon=number_of(config, "layer_norm_epsilon", 1e-6),
        dtype=dtype,
    )


def tensor_names(config: T5Config, *, encoder: bool = False) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Path of each parameter in the module -> name of its tensor in a file, and the parameter's shape."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes: Any = jax.eval_shape(T5(config).init, jax.random.key(0), tokens, tokens > 0, tokens)["params"]
    flat: dict[str, Any] = flatten_dict(shapes, sep="/")  # pyright: ignore[reportAssignmentType]
    up = "wi" if config.feed_forward == "relu" else "wi_0"
    names = {}
    for path, leaf in flat.items():
        if encoder and path.startswith("decoder"):
            continue
        side, _, rest = path.partition("_")
        if path in SHARED:
            name = SHARED[path]
        elif rest == "bias/table":
            name = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        elif rest == "norm/scale":
            name = f"{side}.final_layer_norm.weight"
        else:
            number, _, inside = rest.partition("/")
            last = "layer.2" if side == "decoder" else "layer.1"
            inside = IN_BLOCK[inside.rpartition("/")[0]].format(own="layer.0", last=last, up=up)
            name = f"{side}.block.{number}.{inside}.weight"
        names[path] = name, leaf.shape
    return names
