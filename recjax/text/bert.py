"""BERT encoder (Devlin et al. 2019), which MiniLM, BGE, E5 and GTE models share."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from recjax.nn.norm import LayerNorm
from recjax.text.block import PostNormBlock, Sizes, same_text, size_of, tensor_names, text_positions
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float, InputError, shorten

SHARED = {
    "word_table": "embeddings.word_embeddings",
    "position_table": "embeddings.position_embeddings",
    "type_table": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
IN_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


class Bert(nn.Module):
    """Word, position and type embeddings, then post-norm blocks.

    Attributes:
        sizes: of the encoder.
        types: rows of the type table; all tokens are of type 0.
        dtype: compute type; parameters are float32.
    """

    sizes: Sizes
    types: int = 2
    dtype: jnp.dtype = jnp.dtype("float32")

    first_position = 0
    """Row of the position table that belongs to the first token."""

    @nn.compact
    def __call__(self, rows: TokenRows) -> Float[Array, "b l d"]:
        """Rows of texts -> hidden states; those of padding mean nothing."""
        sizes, places = self.sizes, text_positions(rows)
        words = nn.Embed(sizes.vocabulary, sizes.width, name="word_table")(rows.tokens)
        positions = nn.Embed(sizes.positions, sizes.width, name="position_table")(places)
        kind = nn.Embed(self.types, sizes.width, name="type_table")(jnp.zeros((), jnp.int32))
        x = LayerNorm(sizes.epsilon, self.dtype, name="norm")(words + positions + kind)
        visible = same_text(rows)
        for layer in range(sizes.layers):
            x = PostNormBlock(sizes, self.dtype, name=f"layer_{layer}")(x, visible)
        return x

    def tensor_names(self) -> dict[str, str]:
        """Path of each parameter -> name of its tensor in a Hugging Face file."""
        return tensor_names(self.sizes.layers, SHARED, IN_BLOCK)


def build(sizes: Sizes, config: Mapping[str, Any], dtype: str) -> Bert:
    """The module for a `config.json`; InputError where it asks for what is not here."""
    if (kind := config.get("position_embedding_type") or "absolute") != "absolute":
        raise InputError(f"position_embedding_type is {shorten(repr(kind))}, expected 'absolute'")
    return Bert(sizes, size_of(config, "type_vocab_size", 2), jnp.dtype(dtype))
