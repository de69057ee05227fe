"""Sizes and options of a decoder, and how they are read from the `config.json` of a Hugging Face folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recjax.limits import COUNT, LAYERS, SIZE, above, at_least, refuse, require
from recjax.text.block import size_of
from recjax.typing import Dtype, InputError, shorten

FAMILIES = ("llama", "qwen2", "qwen3")
"""Values of `model_type`; SmolLM2 is a "llama"."""

READ = {
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
}
WITHOUT_EFFECT = {
    "_name_or_path",
    "architectures",
    "attention_dropout",  # of training from scratch; none of the published models has any
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",  # read by the folder
    "initializer_range",
    "is_llama_config",
    "max_window_layers",  # without a window
    "pad_token_id",
    "pretraining_tp",
    "sliding_window",  # where `use_sliding_window` is false
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
}
"""Keys that do not change what a model computes."""

DEFAULTS = {"layer_types": "full_attention", "rope_interleaved": False, "use_sliding_window": False}
"""Keys that are understood with this value alone, or with a list of it."""


@dataclass(frozen=True)
class Rotation:
    """Rates at which rotary positions turn.

    Attributes:
        base: of the geometric series of wave lengths.
        factor: by which slow rates are divided, for texts longer than those of training; 1 for none.
        low: with `high`, how often a pair turns in `original` positions: below `low` its rate is divided, from `high`
            it is as it was, and in between it is a blend (Llama 3.1). None divides all rates alike.
        high: see `low`.
        original: positions of training before the change.
    """

    base: float = 10_000.0
    factor: float = 1.0
    low: float | None = None
    high: float = 4.0
    original: int = 8192

    def __post_init__(self) -> None:
        require(self, base=above(1), factor=above(0), low=above(0), high=above(0), original=COUNT)
        if self.low is not None and self.high <= self.low:
            refuse(self, "high", f"more than low, {self.low:g}")

    def rates(self, channels: int) -> np.ndarray:
        """float32 [channels / 2]: radians a position of each pair of channels."""
        half = channels // 2
        rates = self.base ** (-np.arange(half) / half)
        if self.low is None:
            return (rates / self.factor).astype(np.float32)
        turns = self.original * rates / (2 * math.pi)
        share = np.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)
        return ((1 - share) * rates / self.factor + share * rates).astype(np.float32)


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options of a Llama-like decoder (Touvron et al. 2023; Qwen2 and Qwen3 are the same with options).

    Attributes:
        vocabulary: rows of the token table; 0 for a decoder of vectors alone, which has no tokens and no logits.
        width: of the residual stream.
        layers: blocks.
        heads: of queries.
        kv_heads: of keys and values, a divisor of `heads` (Ainslie et al. 2023).
        channels: of a head; heads x channels need not be the width.
        inner: width inside the feed-forward network.
        rotation: of rotary positions.
        positions: of the longest text that the model was trained for; generation ends there.
        epsilon: of the norms.
        tied: logits are products with the token table; False has a table of their own.
        qkv_bias: queries, keys and values have biases (Qwen2).
        output_bias: the output of attention has one.
        mlp_bias: the feed-forward network has them.
        qk_norm: queries and keys are normalised in each head (Qwen3).
        dtype: compute type; norms, softmaxes and logits are float32.
        remat: recompute blocks in the backward pass to save memory.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    channels: int
    inner: int
    rotation: Rotation = Rotation()
    positions: int = 2048
    epsilon: float = 1e-6
    tied: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    dtype: Dtype = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        sizes = {
            "vocabulary": at_least(0),
            "width": SIZE,
            "layers": LAYERS,
            "heads": SIZE,
            "kv_heads": SIZE,
            "inner": SIZE,
        }
        require(self, **sizes, channels=SIZE, positions=COUNT, epsilon=above(0))
        if self.heads % self.kv_heads:
            refuse(self, "kv_heads", f"a number that divides the {self.heads} heads of queries")
        if self.channels % 2:
            refuse(self, "channels", "an even number, for rotary positions")


def read_config(content: Mapping[str, Any], dtype: Dtype = "float32") -> DecoderConfig:
    """The decoder that a `config.json` describes.

    Args:
        content: what it holds; entries that are null count as absent.
        dtype: compute type.

    Raises:
        InputError: another family, an option that is not supported, or a key that is not known and might be one.
    """
    config = {key: value for key, value in content.items() if value is not None}
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(f"model_type is {shorten(repr(family))}, expected one of: {', '.join(FAMILIES)}")
    _check_options(config)
    heads, width = size_of(config, "num_attention_heads"), size_of(config, "hidden_size")
    bias = flag_of(config, "attention_bias", False)
    # Where an entry is absent, the default is that of the family's own configuration.
    return DecoderConfig(
        vocabulary=size_of(config, "vocab_size"),
        width=width,
        layers=size_of(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=size_of(config, "num_key_value_heads", heads if family == "llama" else None),
        channels=_channels(config, family, width, heads),
        inner=size_of(config, "intermediate_size"),
        rotation=_rotation(config),
        positions=size_of(config, "max_position_embeddings", 2048),
        epsilon=number_of(config, "rms_norm_eps", 1e-6),
        tied=flag_of(config, "tie_word_embeddings", False),
        qkv_bias=bias or family == "qwen2",
        output_bias=bias and family != "qwen2",
        mlp_bias=flag_of(config, "mlp_bias", False) and family == "llama",
        qk_norm=family == "qwen3",
        dtype=dtype,
    )


def written_config(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` that `read_config` makes this of; compute type and remat are not in it.

    Raises:
        InputError: no family has such biases.
    """
    family = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias and not config.output_bias else "llama"
    turned = config.rotation
    scaling: dict[str, Any] = {"rope_type": "default"}
    if turned.low is not None:
        lengths = {"original_max_position_embeddings": turned.original}
        scaling = {"rope_type": "llama3", "low_freq_factor": turned.low, "high_freq_factor": turned.high, **lengths}
    elif turned.factor != 1.0:
        scaling = {"rope_type": "linear"}
    if scaling["rope_type"] != "default":
        scaling["factor"] = turned.factor
    content = {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.channels,
        "max_position_embeddings": config.positions,
        "rms_norm_eps": config.epsilon,
        "rope_parameters": {**scaling, "rope_theta": turned.base},
        "rope_theta": turned.base,  # the older spelling
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
        "attention_bias": config.output_bias,
        "mlp_bias": config.mlp_bias,
        "torch_dtype": "float32",
    }
    if read_config(content) != replace(config, dtype="float32", remat=False):
        raise InputError("no family of Llama-like models has these biases and norms together")
    return content


def _channels(config: Mapping[str, Any], family: str, width: int, heads: int) -> int:
    if "head_dim" not in config and family != "qwen3" and width % heads:
        raise InputError(f"hidden_size {width} is not divided by num_attention_heads {heads}, and there is no head_dim")
    return size_of(config, "head_dim", 128 if family == "qwen3" else width // heads, least=2)


def _check_options(config: Mapping[str, Any]) -> None:
    """Raises InputError where an option would change what the model computes, or might."""
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise InputError(f"hidden_act is {shorten(repr(activation))}, expected 'silu'")
    for key, value in config.items():
        if key in READ or key in WITHOUT_EFFECT or value in (False, [], {}):
            continue
        found = value if isinstance(value, list) else [value]
        if key in DEFAULTS and all(entry == DEFAULTS[key] for entry in found):
            continue
        expected = repr(DEFAULTS[key]) if key in DEFAULTS else "no such option: it may change what the model computes"
        raise InputError(f"{shorten(key)} is {shorten(repr(value))}, expected {expected}")


def _rotation(config: Mapping[str, Any]) -> Rotation:
    """Rates of rotary positions, in the older spelling (rope_theta, rope_scaling) or the newer (rope_parameters)."""
    options = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(options, dict):
        raise InputError(f"rope_scaling is {shorten(repr(options))}, expected an object")
    base = number_of(options if "rope_theta" in options else config, "rope_theta", 10_000.0)
    kind = options.get("rope_type", options.get("type", "default"))
    if kind == "default":
        return Rotation(base)
    if kind == "linear":
        return Rotation(base, number_of(options, "factor"))
    if kind == "llama3":
        low, high = number_of(options, "low_freq_factor"), number_of(options, "high_freq_factor")
        original = size_of(options, "original_max_position_embeddings")
        return Rotation(base, number_of(options, "factor"), low, high, original)
    raise InputError(f"rope_type is {shorten(repr(kind))}, expected one of: default, linear, llama3")


def flag_of(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """An entry that is true or false; InputError where it is something else."""
    found = config.get(key, default)
    if not isinstance(found, bool):
        raise InputError(f"{key} is {shorten(repr(found))}, expected true or false")
    return found


def number_of(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """An entry that is a number above 0; InputError where it is something else, or absent without a default."""
    found = config.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < math.inf:
        raise InputError(f"{key} is {shorten(repr(found))}, expected a number above 0")
    return float(found)
