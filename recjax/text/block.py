"""The transformer block that BERT and MPNet share, and how its parameters are called in Hugging Face files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.nn.dense import Dense
from recjax.nn.norm import LayerNorm
from recjax.text.rows import TokenRows
from recjax.typing import Array, Bool, Float, InputError, Int, shorten

MASKED = -1e30
"""Score of padding: finite, so that a row of nothing else stays finite."""

ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
}
"""Activations by their Hugging Face names; `gelu` is the exact one."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that both families have in common.

    Attributes:
        vocabulary: rows of the word table.
        positions: rows of the position table.
        width: of hidden states.
        layers: blocks.
        heads: attention heads.
        inner: width inside the feed-forward network.
        epsilon: of layer normalisations.
        activation: a name of `ACTIVATIONS`.
    """

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    inner: int
    epsilon: float
    activation: str


def size_of(config: Mapping[str, Any], key: str, default: int | None = None, least: int = 1) -> int:
    """A size that a `config.json` says; InputError where it is none."""
    found = config.get(key, default)
    if found is None:
        raise InputError(f"there is no {key!r}")
    if type(found) is not int or not least <= found < 2**31:
        raise InputError(f"{key} is {shorten(repr(found))}, expected a whole number from {least}")
    return found


def same_text(rows: TokenRows) -> Bool[Array, "b l l"]:
    """Mask of the positions [query, key] of one text; padding is seen by none."""
    segments = rows.segments
    return (segments[:, :, None] == segments[:, None]) & (segments > 0)[:, None]


def text_positions(rows: TokenRows) -> Int[Array, "b l"]:
    """Place of each token in its text: that in the row where the row has one text."""
    return jnp.arange(rows.tokens.shape[1])[None] if rows.positions is None else rows.positions


class PostNormBlock(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + feed-forward(x)) (Vaswani et al. 2017); softmax in float32.

    Attributes:
        sizes: of the encoder.
        dtype: compute type.
    """

    sizes: Sizes
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], visible: Bool[Array, "b l l"], bias: Float[Array, "h l l"] | None = None
    ) -> Float[Array, "b l d"]:
        """Hidden states -> hidden states; `visible` [query, key], `bias` is added to the scores of each head."""
        rows, length, width = x.shape
        heads = self.sizes.heads
        query, key, value = (
            self._dense(width, name)(x).reshape(rows, length, heads, -1).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bhlc,bhmc->bhlm", query, key, preferred_element_type=jnp.float32)
        scores = scores / math.sqrt(width // heads) + jnp.where(visible, 0.0, MASKED)[:, None]
        if bias is not None:
            scores = scores + bias
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhlm,bhmc->bhlc", weights, value).swapaxes(1, 2).reshape(rows, length, width)
        x = LayerNorm(self.sizes.epsilon, self.dtype, name="attention_norm")(x + self._dense(width, "output")(mixed))
        hidden = ACTIVATIONS[self.sizes.activation](self._dense(self.sizes.inner, "up")(x))
        return LayerNorm(self.sizes.epsilon, self.dtype, name="norm")(x + self._dense(width, "down")(hidden))

    def _dense(self, width: int, name: str) -> Dense:
        return Dense(width, dtype=self.dtype, name=name)


def tensor_names(layers: int, shared: Mapping[str, str], in_block: Mapping[str, str]) -> dict[str, str]:
    """Path of each parameter in the module (`layer_0/query/kernel`) -> name of its tensor in the file.

    Args:
        layers: number of blocks.
        shared: module of an embedding or norm -> name in the file.
        in_block: layer of a `PostNormBlock` -> name in the file below `encoder.layer.N.`.
    """
    names = {}
    for module, name in shared.items():
        names |= _of(module, name)
    for layer in range(layers):
        for module, name in in_block.items():
            names |= _of(f"layer_{layer}/{module}", f"encoder.layer.{layer}.{name}")
    return names


def _of(module: str, name: str) -> dict[str, str]:
    if module.endswith("norm"):
        return {f"{module}/scale": f"{name}.weight", f"{module}/bias": f"{name}.bias"}
    if module.endswith("table"):
        return {f"{module}/embedding": f"{name}.weight"}
    return {f"{module}/kernel": f"{name}.weight", f"{module}/bias": f"{name}.bias"}
