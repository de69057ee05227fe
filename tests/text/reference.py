"""BERT and MPNet in NumPy float64, one text at a time: the slow, plain definition."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf


def load(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Configuration, and tensors in float64."""
    tensors = load_file(folder / "model.safetensors")
    return json.loads((folder / "config.json").read_text()), {k: v.astype(np.float64) for k, v in tensors.items()}


def hidden_states(config: Mapping, tensors: Mapping[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """float64 [l, d], of the last layer."""
    mpnet = config["model_type"] == "mpnet"
    heads, epsilon, length = config["num_attention_heads"], config["layer_norm_eps"], len(tokens)

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    x = tensors["embeddings.word_embeddings.weight"][tokens]
    first = 2 if mpnet else 0
    x = x + tensors["embeddings.position_embeddings.weight"][first : first + length]
    if not mpnet:
        x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    x = normed(x, "embeddings.LayerNorm")
    bias = np.zeros((length, length, heads))
    if mpnet:
        table = tensors["encoder.relative_attention_bias.weight"]
        bias = np.array([[table[bucket(key - query)] for key in range(length)] for query in range(length)])
    names = ("attn.q", "attn.k", "attn.v", "attn.o") if mpnet else ("self.query", "self.key", "self.value")
    for layer in range(config["num_hidden_layers"]):
        block = f"encoder.layer.{layer}"
        query, key, value = (
            dense(x, f"{block}.attention.{name}").reshape(length, heads, -1).transpose(1, 0, 2) for name in names[:3]
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]) + bias.transpose(2, 0, 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(length, -1)
        mixed = dense(mixed, f"{block}.attention.{'attn.o' if mpnet else 'output.dense'}")
        x = normed(x + mixed, f"{block}.attention.{'LayerNorm' if mpnet else 'output.LayerNorm'}")
        inner = dense(x, f"{block}.intermediate.dense")
        inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
        x = normed(x + dense(inner, f"{block}.output.dense"), f"{block}.output.LayerNorm")
    return x


def bucket(offset: int) -> int:
    """Bucket of a key that stands `offset` to the right of the query: 16 for each side, 8 of them exact."""
    side, distance = (16 if offset > 0 else 0), abs(offset)
    if distance < 8:
        return side + distance
    # 8 * 16 ** (step / 8) is where each further bucket begins; squared, these are whole numbers.
    return side + min(15, 8 + sum(distance**2 >= 64 * 2**step for step in range(1, 8)))
