"""Q-Former: a few learned queries that read a vector of another kind, so that a language model can (BLIP-2).

Li et al., BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and LLMs, ICML 2023, 3.1.
Queries and the tokens of a text go through the same self-attention; what they see of each other is a mask, one for each
loss. Queries alone read the vector, by cross-attention, and both have feed-forward networks of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from recjax.data.items import by_rows
from recjax.limits import LAYERS, RATE, SIZE, divides, require
from recjax.mixers.mixer import from_heads, to_heads
from recjax.nn.dense import Dense
from recjax.nn.dropout import Dropout
from recjax.nn.feed_forward import FeedForward
from recjax.nn.norm import LayerNorm
from recjax.ops.attention.dense import attend_keys
from recjax.ops.items.softmax import EXCLUDED
from recjax.typing import Array, Bool, Float, Int, Params

Sight = Literal["contrast", "matching", "generation"]
"""Loss whose mask it is, see `sight`."""

CHUNK = 1024
"""Items that are read at a time where all of a catalog are."""

QUERIES_ALONE = r"(?!.*\btext_)"
"""Of the paths below a Q-Former's, those of the parameters that queries go through where there is no text."""


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes of a Q-Former.

    Attributes:
        queries: vectors that come out, one for each learned query.
        memory: vectors that what is read is mapped to, which cross-attention chooses among; with 1, as published,
            attention has no choice and adds a linear map of what is read. More is [ours].
        width: of the residual stream.
        layers: blocks, each with cross-attention.
        heads: attention heads.
        inner: width inside the feed-forward networks.
        dropout: rate on the inputs and on the outputs of the feed-forward networks.
    """

    queries: int = 8
    memory: int = 4
    width: int = 64
    layers: int = 2
    heads: int = 4
    inner: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = {name: SIZE for name in ("queries", "memory", "width", "heads", "inner")}
        require(self, **sizes, layers=LAYERS, dropout=RATE)
        divides(self, "heads", self.width, "model width")


class QFormer(nn.Module):
    """The network: `read` for queries alone, and the call for queries beside a text.

    Attributes:
        config: sizes.
        vocabulary: words of texts, 0 among them for what is none; 0 where there are no texts.
    """

    config: QFormerConfig
    vocabulary: int = 0

    def setup(self) -> None:
        config, normal = self.config, nn.initializers.normal(0.02)
        self.queries = self.param("queries", normal, (config.queries, config.width))
        self.into = Dense(config.memory * config.width)
        self.layer = [Block(config) for _ in range(config.layers)]
        self.memory_norm, self.norm, self.text_norm = LayerNorm(), LayerNorm(), LayerNorm()
        self.dropout = Dropout(config.dropout)
        self.text_inputs = TextInputs(self.vocabulary, config.width)
        self.text_whole = Dense(config.width)

    def read(self, vectors: Float[Array, "b v"]) -> Float[Array, "b k d"]:
        """Query outputs."""
        count = self.config.queries
        return self._run(vectors, None, jnp.ones((1, count, count), bool))[0]

    def __call__(
        self,
        vectors: Float[Array, "b v"],
        words: Int[Array, "b t"],
        what: Sight,
        whole: Float[Array, "b w"] | None = None,
    ) -> tuple[Float[Array, "b k d"], Float[Array, "b t+1 d"]]:
        """Outputs of queries and of a text, behind a token of its own that stands before it: one for the whole text,
        or, in generation, one that it follows from.

        Args:
            vectors: what the queries read.
            words: of the texts, 0 behind their ends.
            what: loss whose mask it is.
            whole: vectors of the texts by an encoder of another kind, part of the token for the whole text.
        """
        first = jnp.full_like(words[:, :1], self.vocabulary + (what == "generation"))
        tokens = jnp.concatenate([first, words], axis=1)
        text = self.text_inputs(tokens)
        if whole is not None and what != "generation":
            text = text.at[:, 0].add(self.text_whole(whole))
        return self._run(vectors, text, sight(what, tokens > 0, self.config.queries))

    def _run(self, vectors: Array, text: Array | None, seen: Array) -> tuple[Array, Array]:
        config, rows = self.config, len(vectors)
        memory = self.into(self.dropout(vectors)).reshape(rows, config.memory, config.width)
        memory = self.memory_norm(memory)  # as BLIP-2 does; a short vector would be lost beside the queries
        queries = jnp.broadcast_to(self.queries, (rows, config.queries, config.width))
        text = queries[:, :0] if text is None else self.dropout(text)
        for block in self.layer:
            queries, text = block(queries, text, memory, seen)
        return self.norm(queries), self.text_norm(text) if text.shape[1] else text


class TextInputs(nn.Module):
    """Vectors of tokens, the sum of the word's and the place's.

    Attributes:
        vocabulary: words; two more stand before texts.
        width: of the vectors.
    """

    vocabulary: int
    width: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        init = nn.initializers.normal(0.02)
        places = self.param("places", init, (tokens.shape[1], self.width))
        return self.param("words", init, (self.vocabulary + 2, self.width))[tokens] + places


class Block(nn.Module):
    """Self-attention of queries and text together, cross-attention of the queries, and feed-forward networks.

    Each is added to the stream, of whose norm it is a function.

    Attributes:
        config: sizes.
    """

    config: QFormerConfig

    @nn.compact
    def __call__(self, queries: Array, text: Array, memory: Array, seen: Array) -> tuple[Array, Array]:
        config = self.config
        both = jnp.concatenate([queries, text], axis=1)
        normed = LayerNorm(name="attention_norm")(both)
        both = both + Attention(config.heads, name="attention")(normed, normed, seen)
        queries, text = both[:, : config.queries], both[:, config.queries :]
        every = jnp.ones((1, config.queries, config.memory), bool)
        queries = queries + Attention(config.heads, name="cross")(LayerNorm(name="cross_norm")(queries), memory, every)
        queries = queries + self._feed_forward("")(LayerNorm(name="norm")(queries))
        if text.shape[1]:
            text = text + self._feed_forward("text_")(LayerNorm(name="text_norm")(text))
        return queries, text

    def _feed_forward(self, prefix: str) -> FeedForward:
        config = self.config
        return FeedForward(config.inner, "gelu", config.dropout, name=f"{prefix}feed_forward")


class Attention(nn.Module):
    """Attention of positions to others by a mask.

    Attributes:
        heads: attention heads.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], source: Float[Array, "b m d"], seen: Bool[Array, "b l m"]) -> Array:
        width = x.shape[-1]
        query = to_heads(Dense(width, name="query")(x), self.heads)
        key, value = (to_heads(Dense(width, name=name)(source), self.heads) for name in ("key", "value"))
        return Dense(width, name="output")(from_heads(attend_keys(query, (key,), (value,), seen)))


def sight(what: Sight, there: Bool[Array, "b t"], queries: int) -> Bool[Array, "b n n"]:
    """Mask of queries, and behind them a text, for each of the losses.

    Contrast: neither sees the other. Matching: both see both. Generation: queries see queries, and each token of the
    text the queries, itself and the tokens before it.

    >>> sight("generation", jnp.ones((1, 2), bool), 1)[0].astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]

    Args:
        what: the loss.
        there: where the text has tokens.
        queries: number of queries.
    """
    place = jnp.arange(queries + there.shape[1])
    text = place >= queries
    if what == "contrast":
        seen = text[:, None] == text
    elif what == "matching":
        seen = jnp.ones((len(place), len(place)), bool)
    else:
        seen = ~text | (text[:, None] & (place[:, None] >= place))
    return seen & jnp.pad(there, [(0, 0), (queries, 0)], constant_values=True)[:, None]


def best_query(queries: Float[Array, "b k d"], texts: Float[Array, "n d"]) -> Float[Array, "b n"]:
    """Similarities of items and texts: the product of the query that is most similar to the text."""
    return jnp.max(jnp.einsum("bkd,nd->bkn", queries, texts), axis=1)


def item_text_contrast(similar: Float[Array, "b b"], negative: Bool[Array, "b b"]) -> Float[Array, " b"]:
    """Cross-entropy of each item's own text among the texts, and of its text's own item, the mean of both.

    >>> similar = jnp.array([[2.0, 0.0], [0.0, 2.0]])
    >>> [round(float(x), 4) for x in item_text_contrast(similar, ~jnp.eye(2, dtype=bool))]  # log(1 + exp(-2))
    [0.1269, 0.1269]

    Args:
        similar: of item i and text j, divided by a temperature.
        negative: whether text j does not belong to item i.
    """
    own = jnp.eye(len(similar), dtype=bool)
    found = [
        -jnp.diagonal(jax.nn.log_softmax(jnp.where(own | wrong, scores, EXCLUDED), axis=1))
        for scores, wrong in ((similar, negative), (similar.T, negative.T))
    ]
    return (found[0] + found[1]) / 2


def hard_negatives(key: Array, similar: Float[Array, "b n"], negative: Bool[Array, "b n"]) -> Int[Array, " b"]:
    """A negative of each row, drawn by the softmax of the similarities; anything in a row without negatives."""
    return jax.random.categorical(key, jnp.where(negative, similar, EXCLUDED), axis=1)


def item_text_matching(logits: Float[Array, "3 b"]) -> Float[Array, " b"]:
    """Binary cross-entropy of pairs: the first of the three belong together, the others do not; their mean.

    >>> round(float(item_text_matching(jnp.zeros((3, 1)))[0]), 4)  # log(2)
    0.6931
    """
    together = jnp.array([[1.0], [0.0], [0.0]])
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, together), axis=0)


def text_generation(logits: Float[Array, "b t v"], words: Int[Array, "b t"]) -> Float[Array, " b"]:
    """Cross-entropy of each text's words, the mean over them; 0 for a text without words.

    Args:
        logits: of the word that follows each position.
        words: of the texts, 0 for none.
    """
    losses, there = optax.softmax_cross_entropy_with_integer_labels(logits, words), words > 0
    return jnp.sum(jnp.where(there, losses, 0.0), axis=1) / jnp.maximum(there.sum(axis=1), 1)


def read(module: Any, params: Params, vectors: Float[Array, "n v"], key: Array | None = None) -> Float[Array, "n k d"]:
    """Query outputs of a `QFormer`, or of what has its method `read`, with dropout where there is a key."""
    rngs = {} if key is None else {"dropout": key}
    return module.apply({"params": params}, vectors, method=type(module).read, rngs=rngs)


def read_all(
    fn: Callable[[Float[Array, "n v"]], Float[Array, "n d"]], vectors: Float[Array, "rows v"]
) -> Float[Array, "rows d"]:
    """`fn` of the vectors of all items, a part at a time."""
    rows, width = vectors.shape
    found = jax.lax.map(fn, jnp.pad(vectors, [(0, -rows % CHUNK), (0, 0)]).reshape(-1, CHUNK, width))
    return by_rows(found.reshape(-1, found.shape[-1])[:rows])
