"""Small language model that reads the words of items: a vector of each text, trained with the model around it."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recjax.text.encoder import pooled
from recjax.text.lm.decoder import Decoder
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float, Int, Params

CHUNK = 1024
"""Texts that are read at a time where all of a catalog are: a number that any usual data axis divides."""


@dataclass(frozen=True)
class ItemReader:
    """Mean state of a decoder over the words of a text, divided by the root of its width, as the norms multiply by it.

    Attributes:
        decoder: over words, numbered from 1.
        first: word whose vector is the first of the decoder's table: 0 with a row for none, 1 without.
    """

    decoder: Decoder
    first: int = 0

    def init(self, key: Array) -> Params:
        """Random parameters."""
        words = TokenRows(*(jnp.ones((CHUNK, 1), jnp.int32),) * 2)  # as many texts as a data axis divides
        found: Any = self.decoder.init(key, words, method=_read)
        return found["params"]

    def __call__(self, params: Params, words: Int[Array, "n t"]) -> Float[Array, "n d"]:
        """float32 vectors of texts; zeros for one without words. Words are 0 behind its end."""
        lengths, width = jnp.sum(words > 0, axis=1), self.decoder.config.width
        rows = TokenRows(jnp.maximum(words - self.first, 0), (words > 0).astype(jnp.int32))
        states: Any = self.decoder.apply({"params": params}, rows, method=_read)
        return pooled(states, lengths, "mean", normalise=False) * width**-0.5

    def table(self, params: Params, words: Int[Array, "rows t"]) -> Float[Array, "rows d"]:
        """Vectors of all texts of a catalog, a part at a time."""
        rows, count = words.shape
        parts = jnp.pad(words, [(0, -rows % CHUNK), (0, 0)]).reshape(-1, CHUNK, count)
        found = jax.lax.map(lambda part: self(params, part), parts)
        return found.reshape(-1, found.shape[-1])[:rows]


def _read(decoder: Decoder, rows: TokenRows) -> Float[Array, "n t d"]:
    return decoder.states(decoder.embed(rows), rows)
