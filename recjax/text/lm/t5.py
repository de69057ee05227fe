"""Encoder-decoder in the shape of T5 (Raffel et al., JMLR 2020), trained from scratch, with incremental decoding.

RMS norm before each part and at the end, no biases, products of attention without a scale, and positions that are
nothing but a learned bias for the gap between query and key: one table for all layers of the encoder, one for those of
the decoder, none for cross-attention. Heads have a width of their own. Padding is masked; rows are not packed.

Inputs are vectors, so that a model may read what it likes; `embed` makes them of tokens. Softmaxes, norms and logits
are float32 whatever the compute type.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.limits import COUNT, LAYERS, RATE, SIZE, WIDEST, above, refuse, require, within
from recjax.nn.dense import Dense
from recjax.nn.dropout import Dropout
from recjax.nn.norm import RMSNorm
from recjax.typing import MODEL_AXIS, Array, Bool, Dtype, Float, Int

FeedForwardKind = Literal["relu", "gated-gelu"]

SHARDING_RULES = [
    (r"(^|/)(query|key|value|up|linear)/kernel$", (None, MODEL_AXIS)),
    (r"(^|/)(output|down)/kernel$", (MODEL_AXIS, None)),
    (r".*", ()),
]
"""Layout of the parameters: heads and inner features over the model axis, so that each part of a block adds up over it
once; a table of a few thousand tokens is whole everywhere."""

MASKED = -1e30
"""Score of what is not seen: finite, so that a row of nothing but padding stays finite."""


@dataclass(frozen=True)
class T5Config:
    """Sizes and options; the defaults are those that TIGER-like recommenders train.

    Attributes:
        vocabulary: rows of the token table.
        width: of the residual stream.
        heads: attention heads.
        channels: of a head; heads x channels need not be the width.
        inner: width inside the feed-forward network.
        layers: blocks of the encoder.
        decoder_layers: blocks of the decoder.
        feed_forward: "relu", or "gated-gelu" as in T5 1.1 (Shazeer 2020).
        buckets: of gaps between positions; an even number.
        max_distance: gaps from here on share a bucket.
        tied: logits are products with the token table, the output scaled by width^-1/2; False has a table of its own.
        dropout: rate on embeddings, attention weights, and outputs of parts.
        epsilon: of the norms.
        dtype: compute type; parameters are float32.
    """

    vocabulary: int
    width: int = 128
    heads: int = 6
    channels: int = 64
    inner: int = 1024
    layers: int = 4
    decoder_layers: int = 4
    feed_forward: FeedForwardKind = "relu"
    buckets: int = 32
    max_distance: int = 128
    tied: bool = True
    dropout: float = 0.1
    epsilon: float = 1e-6
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        require(
            self,
            vocabulary=COUNT,
            width=SIZE,
            heads=COUNT,
            channels=SIZE,
            inner=SIZE,
            layers=LAYERS,
            decoder_layers=LAYERS,
            buckets=within(4, WIDEST),
            dropout=RATE,
            epsilon=above(0),
        )
        if self.buckets % 2:
            refuse(self, "buckets", "an even number")
        if self.max_distance <= self.buckets // 2:
            refuse(self, "max_distance", f"more than half of the buckets, {self.buckets}")


class DecoderCache(NamedTuple):
    """Decoder memory of b rows with k continuations each, for `T5.step`; arrays of one continuation serve all.

    Attributes:
        mask: bool [b, 1, m]: where the encoder's states are no padding.
        cross: of each layer, keys and values of the encoder's states, [b, 1, m, h, c].
        own: of each layer, keys and values of the t tokens so far, [b, k, t, h, c].
    """

    mask: Array
    cross: tuple[tuple[Array, Array], ...]
    own: tuple[tuple[Array, Array], ...]


class T5(nn.Module):
    """The network; `encode` once, then `decode` for training, or `begin` and `step` for generation.

    Attributes:
        config: sizes and options.
    """

    config: T5Config

    def setup(self) -> None:
        config = self.config
        self.table = self.param("tokens", nn.initializers.normal(1.0), (config.vocabulary, config.width))
        self.encoder_bias = RelativeBias(config, both_sides=True)
        self.decoder_bias = RelativeBias(config, both_sides=False)
        self.encoder = [Block(config, crosses=False) for _ in range(config.layers)]
        self.decoder = [Block(config, crosses=True) for _ in range(config.decoder_layers)]
        self.encoder_norm, self.decoder_norm = _norm(config), _norm(config)
        self.dropout = Dropout(config.dropout)
        if not config.tied:
            self.head = self.param("head", nn.initializers.normal(1.0), (config.vocabulary, config.width))

    def __call__(
        self, tokens: Int[Array, "b m"], mask: Bool[Array, "b m"], targets: Int[Array, "b t"]
    ) -> Float[Array, "b t v"]:
        """Teacher-forced logits: entry i is of the token that follows `targets[:, i]`, the first of which starts."""
        states = self.encode(self.embed(tokens), mask)
        return self.logits(self.decode(self.embed(targets), states, mask))

    def embed(self, tokens: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Vectors of tokens, in the compute type."""
        return self.table[tokens].astype(self.config.dtype)

    def encode(
        self,
        inputs: Float[Array, "b m d"],
        mask: Bool[Array, "b m"] | Bool[Array, "b m m"],
        positions: Int[Array, "b m"] | None = None,
    ) -> Float[Array, "b m d"]:
        """States of inputs.

        Args:
            inputs: vectors.
            mask: where they are no padding; or, of each input, which ones it sees.
            positions: between which gaps are counted; by default places in the row. Inputs may share one.
        """
        places = jnp.arange(inputs.shape[1])[None] if positions is None else positions
        seen = mask[:, None] if mask.ndim == 2 else mask
        bias = jnp.where(seen[:, None], self.encoder_bias(places, places), MASKED)
        x = self.dropout(inputs.astype(self.config.dtype))
        for block in self.encoder:
            x = block(x, bias)
        return self.dropout(self.encoder_norm(x))

    def decode(
        self,
        inputs: Float[Array, "b *k t d"],
        states: Float[Array, "b m d"],
        mask: Bool[Array, "b *k m"],
        *,
        apart: bool = False,
    ) -> Float[Array, "b *k t d"]:
        """Outputs of all positions at once, each of which sees itself, those before it, and the encoder's states.

        A row may have k continuations, which do not see each other, each with states of its own to see: `mask`.
        With `apart` a position sees no other one: the inputs are questions without an order, answered in one pass.
        """
        places = jnp.arange(inputs.shape[-2])
        visible = places[:, None] == places if apart else places[:, None] >= places
        bias = jnp.where(visible, self.decoder_bias(places, places), MASKED)
        hidden = _hidden(mask if mask.ndim == 2 else jnp.repeat(mask, inputs.shape[-2], axis=1))
        x = self.dropout(inputs.astype(self.config.dtype))
        for block in self.decoder:
            x = block(x, bias, states, hidden)
        return self.dropout(self.decoder_norm(x))

    def logits(self, hidden: Float[Array, "*b d"], start: int = 0, stop: int | None = None) -> Float[Array, "*b v"]:
        """float32 logits of the tokens from `start` to before `stop`, by default of all."""
        rows = (self.table if self.config.tied else self.head)[start:stop].astype(hidden.dtype)
        scale = self.config.width**-0.5 if self.config.tied else 1.0
        return jnp.einsum("...d,vd->...v", hidden * scale, rows, preferred_element_type=jnp.float32)

    def begin(self, states: Float[Array, "b m d"], mask: Bool[Array, "b m"]) -> DecoderCache:
        """The memory before the first token: keys and values of the encoder's states, computed once."""
        config = self.config
        cross = tuple(block.cross.remembered(states[:, None]) for block in self.decoder)
        empty = jnp.zeros((len(states), 1, 0, config.heads, config.channels), config.dtype)
        return DecoderCache(mask[:, None], cross, tuple((empty, empty) for _ in self.decoder))

    def step(self, cache: DecoderCache, inputs: Float[Array, "b k d"]) -> tuple[Float[Array, "b k d"], DecoderCache]:
        """Outputs for one more token of each continuation, and the memory with it; as `decode` gives them."""
        place = cache.own[0][0].shape[2]
        bias = self.decoder_bias(jnp.array([place]), jnp.arange(place + 1))
        hidden, own = _hidden(cache.mask[:, 0]), []
        x = inputs.astype(self.config.dtype)
        for block, past, cross in zip(self.decoder, cache.own, cache.cross, strict=True):
            x, remembered = block.step(x, bias, past, cross, hidden)
            own.append(remembered)
        return self.decoder_norm(x), cache._replace(own=tuple(own))


class Block(nn.Module):
    """x + self-attention, then + cross-attention in a decoder, then + feed-forward, each of the normed stream.

    Attributes:
        config: sizes and options.
        crosses: whether it is a decoder's.
    """

    config: T5Config
    crosses: bool

    def setup(self) -> None:
        config = self.config
        self.own, self.own_norm = Attention(config), _norm(config)
        if self.crosses:
            self.cross, self.cross_norm = Attention(config), _norm(config)
        self.feed_forward, self.feed_forward_norm = FeedForward(config), _norm(config)
        self.dropout = Dropout(config.dropout)

    def __call__(self, x: Array, bias: Array, states: Array | None = None, hidden: Array | None = None) -> Array:
        """One block over whole rows [b, *k, l, d]; biases are added to scores [b, *k, h, l, m]."""
        normed = self.own_norm(x)
        x = x + self.dropout(self.own(normed, self.own.remembered(normed), bias))
        if states is not None:
            # Continuations of a row see the same states: to cross-attention they are the positions of one row.
            asking = self.cross_norm(x).reshape(len(x), -1, x.shape[-1])
            x = x + self.dropout(self.cross(asking, self.cross.remembered(states), hidden).reshape(x.shape))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def step(self, x: Array, bias: Array, past: tuple, cross: tuple, hidden: Array) -> tuple[Array, tuple]:
        """One more token of each continuation [b, k, d]."""
        normed = self.own_norm(x)[:, :, None]

        def grown(held: Array, new: Array) -> Array:
            held = jnp.broadcast_to(held, (*new.shape[:2], *held.shape[2:]))
            return jnp.concatenate([held, new.astype(held.dtype)], axis=2)

        own = tuple(grown(*pair) for pair in zip(past, self.own.remembered(normed), strict=True))
        x = x + self.own(normed, own, bias)[:, :, 0]
        x = x + self.cross(self.cross_norm(x), tuple(held[:, 0] for held in cross), hidden)
        return x + self.feed_forward(self.feed_forward_norm(x)), own


class Attention(nn.Module):
    """Multi-head attention without scale, softmax in float32.

    Attributes:
        config: sizes and options.
    """

    config: T5Config

    def setup(self) -> None:
        config = self.config
        width = config.heads * config.channels
        self.query = _dense(config, width, (config.width * config.channels) ** -0.5)
        self.key, self.value = (_dense(config, width, config.width**-0.5) for _ in range(2))
        self.output = _dense(config, config.width, width**-0.5)
        self.dropout = Dropout(config.dropout)

    def remembered(self, source: Float[Array, "*b m d"]) -> tuple[Float[Array, "*b m h c"], Float[Array, "*b m h c"]]:
        """Keys and values."""
        return self._heads(self.key(source)), self._heads(self.value(source))

    def __call__(self, x: Float[Array, "*b l d"], source: tuple, bias: Array | None) -> Float[Array, "*b l d"]:
        """Attention of positions to keys and values.

        Args:
            x: what asks.
            source: see `remembered`.
            bias: float32, added to scores [*b, h, l, m].
        """
        key, value = source
        scores = jnp.einsum(
            "...lhc,...mhc->...hlm", self._heads(self.query(x)), key, preferred_element_type=jnp.float32
        )
        weights = self.dropout(jax.nn.softmax(scores if bias is None else scores + bias, axis=-1))
        mixed = jnp.einsum("...hlm,...mhc->...lhc", weights.astype(value.dtype), value)
        return self.output(mixed.reshape(*mixed.shape[:-2], -1))

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.config.heads, self.config.channels)


class RelativeBias(nn.Module):
    """A learned number for each head and bucket of gaps (Raffel et al. 2020, section 2.1).

    Half of the buckets are of one gap each, the others grow logarithmically up to `max_distance`.

    Attributes:
        config: sizes and options.
        both_sides: keys may stand after a query; half of the buckets are theirs.
    """

    config: T5Config
    both_sides: bool

    @nn.compact
    def __call__(self, queries: Int[Array, "*b l"], keys: Int[Array, "*b m"]) -> Float[Array, "*b h l m"]:
        """float32 biases between positions."""
        config = self.config
        init = nn.initializers.normal(config.width**-0.5)
        table = self.param("table", init, (config.buckets, config.heads))
        gaps = keys[..., None, :] - queries[..., :, None]
        bias = table[_buckets(gaps, config.buckets, config.max_distance, self.both_sides)]
        return jnp.moveaxis(bias, -1, -3)


class FeedForward(nn.Module):
    """relu(x W) V, or (gelu(x W) * x U) V.

    Attributes:
        config: sizes and options.
    """

    config: T5Config

    @nn.compact
    def __call__(self, x: Array) -> Array:
        config = self.config
        up = _dense(config, config.inner, config.width**-0.5, "up")(x)
        if config.feed_forward == "relu":
            inner = jax.nn.relu(up)
        else:
            inner = jax.nn.gelu(up) * _dense(config, config.inner, config.width**-0.5, "linear")(x)
        return _dense(config, config.width, config.inner**-0.5, "down")(Dropout(config.dropout)(inner))


def seen_before(histories: Int[Array, "b m"] | Bool[Array, "b m"], slots: int) -> Bool[Array, "b m m"]:
    """A causal encoder's mask over items of several inputs each: an item sees itself and the items before it.

    Args:
        histories: number of the history that each input is of, 0 for padding; histories of a row stay apart.
        slots: inputs of an item, which stand side by side.
    """
    item = jnp.arange(histories.shape[1]) // slots
    same = histories[:, :, None] == histories[:, None]
    return same & (histories > 0)[:, None] & (item[:, None] >= item)


def _buckets(gaps: Array, buckets: int, max_distance: int, both_sides: bool) -> Array:
    """Buckets of gaps, key minus query."""
    offset = 0
    if both_sides:
        buckets //= 2
        offset = jnp.where(gaps > 0, buckets, 0)
        gaps = jnp.abs(gaps)
    else:
        gaps = jnp.maximum(-gaps, 0)
    single = buckets // 2
    far = jnp.log(jnp.maximum(gaps, 1) / single) / math.log(max_distance / single) * (buckets - single)
    far = jnp.minimum(single + far.astype(jnp.int32), buckets - 1)
    return offset + jnp.where(gaps < single, gaps, far)


def _hidden(mask: Bool[Array, "b *l m"]) -> Float[Array, "b 1 l m"]:
    """The bias that leaves padding out, of all positions or of each; l is 1 for all."""
    return jnp.where(mask, 0.0, MASKED)[:, None, None] if mask.ndim == 2 else jnp.where(mask, 0.0, MASKED)[:, None]


def _norm(config: T5Config) -> RMSNorm:
    return RMSNorm(epsilon=config.epsilon, dtype=jnp.dtype(config.dtype))


def _dense(config: T5Config, width: int, deviation: float, name: str | None = None) -> Dense:
    init = nn.initializers.normal(deviation)
    return Dense(width, use_bias=False, dtype=jnp.dtype(config.dtype), kernel_init=init, name=name)
