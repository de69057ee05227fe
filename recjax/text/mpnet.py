"""MPNet encoder (Song et al. 2020): BERT without token types, with a relative position bias that all layers share."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from recjax.nn.norm import LayerNorm
from recjax.text.block import PostNormBlock, Sizes, same_text, size_of, tensor_names, text_positions
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float

PADDING = 1
"""Token of padding; positions are counted from the next row of their table."""

MAX_DISTANCE = 128
"""From here on all distances share a bucket."""

SHARED = {
    "word_table": "embeddings.word_embeddings",
    "position_table": "embeddings.position_embeddings",
    "bias_table": "encoder.relative_attention_bias",
    "norm": "embeddings.LayerNorm",
}
IN_BLOCK = {
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "output": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


class MPNet(nn.Module):
    """Word and position embeddings, then post-norm blocks with a relative position bias.

    Attributes:
        sizes: of the encoder.
        buckets: rows of the bias table.
        dtype: compute type; parameters are float32.
    """

    sizes: Sizes
    buckets: int = 32
    dtype: jnp.dtype = jnp.dtype("float32")

    first_position = PADDING + 1
    """Row of the position table that belongs to the first token."""

    @nn.compact
    def __call__(self, rows: TokenRows) -> Float[Array, "b l d"]:
        """Rows of texts -> hidden states; those of padding mean nothing."""
        sizes, length = self.sizes, rows.tokens.shape[1]
        words = nn.Embed(sizes.vocabulary, sizes.width, name="word_table")(rows.tokens)
        place = text_positions(rows) + self.first_position
        positions = nn.Embed(sizes.positions, sizes.width, name="position_table")(place)
        bias = nn.Embed(self.buckets, sizes.heads, name="bias_table")(relative_buckets(length, self.buckets))
        x = LayerNorm(sizes.epsilon, self.dtype, name="norm")(words + positions)
        visible = same_text(rows)
        for layer in range(sizes.layers):
            x = PostNormBlock(sizes, self.dtype, name=f"layer_{layer}")(x, visible, jnp.moveaxis(bias, -1, 0))
        return x

    def tensor_names(self) -> dict[str, str]:
        """Path of each parameter -> name of its tensor in a Hugging Face file."""
        return tensor_names(self.sizes.layers, SHARED, IN_BLOCK)


def relative_buckets(length: int, buckets: int = 32) -> np.ndarray:
    """int32 [query, key]: bucket of each pair by its distance (Raffel et al. 2020, bidirectional).

    Half of the buckets are for keys to the right. Of a half, the first half are exact distances and the rest grow
    logarithmically up to `MAX_DISTANCE`.
    """
    half, exact = buckets // 2, buckets // 4
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    distance = np.abs(offset)
    # In float32, as the models were trained: at exact powers the rounding decides the bucket.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = exact + (ratio / np.float32(math.log(MAX_DISTANCE / exact)) * np.float32(half - exact)).astype(np.int32)
    near = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return (near + np.where(offset > 0, half, 0)).astype(np.int32)


def build(sizes: Sizes, config: Mapping[str, Any], dtype: str) -> MPNet:
    """The module for a `config.json`."""
    return MPNet(sizes, size_of(config, "relative_attention_num_buckets", 32, least=4), jnp.dtype(dtype))
