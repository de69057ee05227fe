"""Encoder of texts made of items' sentences: tokens see their neighbours, and the first one sees all and is seen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.features.sentences import KEYS, RARE
from recjax.ops.activation import unit
from recjax.ops.dropout import dropout
from recjax.ops.items.embedding import lookup, table_rows
from recjax.ops.items.softmax import full_softmax
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES, Decoder
from recjax.text.rows import TokenRows
from recjax.typing import Array, Bool, Float, Int, Params

CHUNK = 1024
"""Items that are read at a time where all of a catalog are: a number that any usual data axis divides."""

BEGIN, MASK = 0, 1
"""Rows behind those of words and keys: of the first token, and of a masked word."""

RULES = [("^words$", ("model", None)), *SHARDING_RULES, (".*", ())]


class SentenceReader(nn.Module):
    """Llama-like blocks over words, under a mask of windows; of the states of a text the first stands for all.

    Tokens are those of all sentences without the padding between them, of which the first `tokens` are read.

    Attributes:
        vocabulary: numbers of words, 0 and that of rare ones among them.
        blocks: of the encoder; its vocabulary is 0.
        window: tokens that a token sees on each side.
        tokens: most tokens of a text, the first one among them.
        dropout: rate on inputs.
    """

    vocabulary: int
    blocks: DecoderConfig
    window: int
    tokens: int
    dropout: float = 0.0

    def setup(self) -> None:
        init, width = nn.initializers.normal(0.02), self.blocks.width
        self.words = self.param("words", init, (table_rows(self.vocabulary + KEYS + 2), width))
        self.kinds = self.param("kinds", init, (3, width))
        self.places = self.param("places", init, (self.tokens, width))
        self.encoder = Decoder(self.blocks)

    def __call__(
        self, sentences: Int[Array, "b l t"], hidden: Bool[Array, "b l t"] | None = None, key: Array | None = None
    ) -> Float[Array, "b n d"]:
        """States, float32.

        Args:
            sentences: of the items in order, 0 behind the end of each: words above 0, keys below.
            hidden: words to mask, or None.
            key: of the dropout, or None for none.
        """
        order, there = self._kept(sentences)
        place = jnp.broadcast_to(jnp.arange(sentences.shape[1])[:, None], sentences.shape)
        numbers, place = (_picked(x, order) for x in (sentences, place))
        rows = jnp.where(numbers < 0, self.vocabulary - 1 - numbers, numbers)
        if hidden is not None:
            rows = jnp.where(_picked(hidden, order), self._special(MASK), rows)
        kinds = jnp.where(numbers < 0, 1, 2)
        first = jnp.arange(rows.shape[1] + 1) == 0
        rows, kinds, place, there = (
            jnp.pad(x, [(0, 0), (1, 0)], constant_values=value)
            for x, value in ((rows, self._special(BEGIN)), (kinds, 0), (place, 0), (there, True))
        )
        x = lookup(self.words, rows) + self.kinds[kinds] + jnp.where(first[:, None], 0.0, self.places[place])
        x = dropout(x, self.dropout, key)
        near = windows(there, self.window)
        found = TokenRows(rows, there.astype(jnp.int32), allowed=near)
        return self.encoder.states(x, found).astype(jnp.float32)

    def masked(
        self, sentences: Int[Array, "b l t"], hidden: Bool[Array, "b l t"], key: Array | None = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Sum of the cross-entropies of the masked words that are read, and their number."""
        order, there = self._kept(sentences)
        targets, weights = _picked(sentences, order), (_picked(hidden, order) & there).astype(jnp.float32)
        states, words = self(sentences, hidden, key)[:, 1:], self.vocabulary - 1
        targets = jnp.maximum(targets, RARE)
        return full_softmax(states, self.words, None, targets, weights, items=words), jnp.sum(weights)

    def _special(self, number: int) -> int:
        return self.vocabulary + KEYS + number

    def _kept(self, sentences: Int[Array, "b l t"]) -> tuple[Int[Array, "b n"], Bool[Array, "b n"]]:
        """Places of the tokens that are read, and whether there is one."""
        there = sentences.reshape(len(sentences), -1) != 0
        order = jnp.argsort(~there, axis=1, stable=True)[:, : self.tokens - 1]
        return order, jnp.take_along_axis(there, order, axis=1)


def _picked(x: Array, order: Int[Array, "b n"]) -> Array:
    return jnp.take_along_axis(x.reshape(len(x), -1), order, axis=1)


def windows(there: Bool[Array, "b n"], window: int) -> Bool[Array, "b n n"]:
    """True where a token sees another: within the window or if one of both is the first; a padded one sees itself."""
    place = jnp.arange(there.shape[1])
    near = jnp.abs(place[:, None] - place) <= window
    near |= (place == 0)[:, None] | (place == 0)
    return (near & there[:, None] & there[:, :, None]) | jnp.eye(len(place), dtype=bool)


def drawn_words(sentences: Int[Array, "b l t"], share: float, key: Array) -> Bool[Array, "b l t"]:
    """Words to mask, each by itself with this probability; neither keys nor rare words."""
    return (jax.random.uniform(key, sentences.shape) < share) & (sentences > RARE)


def read_items(module: SentenceReader, params: Params, sentences: Int[Array, "rows t"]) -> Float[Array, "rows d"]:
    """Vectors of all items of a catalog, of length 1, a part at a time; zeros for one without a word."""
    rows, count = sentences.shape
    parts = jnp.pad(sentences, [(0, -rows % CHUNK), (0, 0)]).reshape(-1, CHUNK, 1, count)

    def read(part: Array) -> Array:
        states: Any = module.apply({"params": params}, part)
        return unit(states[:, 0]) * jnp.any(part != 0, axis=(1, 2))[:, None]

    found = jax.lax.map(read, parts)
    return found.reshape(-1, found.shape[-1])[:rows]
