"""GGUF files of Llama-like models to Hugging Face folders.

A GGUF file (llama.cpp's format) has everything in one: sizes, weights in blocks of few bits, tokenizer. Weights become
bfloat16 by the package `gguf`. The format stores the rows of queries and keys in the order in which neighbouring
channels are turned together; Hugging Face's models, and those here, turn channel i with channel i + c/2, so rows are
put back in that order. A model with the wrong order still writes sentences, only worse ones.
"""

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from recjax.text.folder import WEIGHTS
from recjax.typing import InputError, shorten

SHARED = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
SPLITTERS = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
}
"""Patterns that split a text before merges, by the name that llama.cpp has for each."""

CONTROL = 3
"""Type of a token that stands for no text."""


def check_package() -> None:
    """Raises InputError where the package that reads such files is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError("reading a GGUF file needs the package gguf: pip install 'recjax[gguf]'")


def convert(file: Path, out: Path) -> None:
    """Writes a GGUF file as a Hugging Face folder.

    Args:
        file: of a Llama-like model with a byte-level tokenizer of `SPLITTERS`.
        out: the folder, which exists; files of the same names are replaced.

    Raises:
        InputError: the package `gguf` is not installed, or the file is damaged or of another kind.
    """
    check_package()
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise InputError(f"{file} is not a GGUF file: {error}") from None
    if (found := fields.get("general.architecture")) != "llama":
        raise InputError(f"{file} holds the architecture {shorten(repr(found))}, expected 'llama'")
    try:
        config = _config(fields, {tensor.name for tensor in reader.tensors})
        tokenizer = _tokenizer(fields)
        tensors = dict(_tensors(reader.tensors, config))
    except KeyError as error:
        raise InputError(f"{file} has no {error}") from None
    save_file(tensors, out / WEIGHTS, {"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"))
    special = {name: fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")}
    names = {f"{name}_token": fields["tokenizer.ggml.tokens"][token] for name, token in special.items()}
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    if template := fields.get("tokenizer.chat_template"):
        described["chat_template"] = template
    ids = {f"{name}_token_id": token for name, token in special.items()}
    contents = {"config": {**config, **ids}, "generation_config": ids, "tokenizer_config": described}
    for name, content in contents.items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _config(fields: Mapping[str, Any], tensors: set[str]) -> dict[str, Any]:
    """`config.json`."""
    if any(name.startswith("llama.rope.scaling.") for name in fields) or "rope_freqs.weight" in tensors:
        raise InputError("the GGUF file scales its rotary positions, which is not converted")
    heads = fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("llama.attention.head_count_kv", heads),
        "head_dim": fields["llama.rope.dimension_count"],
        "max_position_embeddings": fields["llama.context_length"],
        # float32 in the file: 1e-5 comes as 9.999999747378752e-06.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": fields.get("llama.rope.freq_base", 10_000.0),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": "bfloat16",
    }


def _tensors(tensors: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    from gguf import dequantize

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
        if found and found[2] in IN_LAYER:
            weights = half_split(weights, heads[found[2]]) if found[2] in heads else weights
            name = f"model.layers.{found[1]}.{IN_LAYER[found[2]]}.weight"
        elif tensor.name in SHARED:
            name = SHARED[tensor.name]
        else:
            raise InputError(f"the GGUF file has a tensor {shorten(tensor.name)!r}, which a Llama does not have")
        yield name, weights.astype(ml_dtypes.bfloat16)


def half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in half-split order: of each head, even rows first, then odd ones.

    >>> half_split(np.arange(8)[:, None], heads=2).ravel().tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    parted = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(parted.swapaxes(1, 2)).reshape(rows.shape)


def _tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    model, splitter = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre")
    if model != "gpt2" or splitter not in SPLITTERS:
        found = shorten(f"{model!r} with {splitter!r}")
        raise InputError(f"the GGUF file's tokenizer is {found}, expected 'gpt2' with one of {', '.join(SPLITTERS)}")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(SPLITTERS[splitter])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
