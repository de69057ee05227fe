"""Llama-like decoder (Touvron et al. 2023): Llama, Qwen2, Qwen3 and SmolLM2 by options.

Root-mean-square norm before each part, rotary positions, grouped heads, SwiGLU. Inputs are vectors, so that a model may
put its own among those of tokens; `embed` makes them of `TokenRows`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.mixers.mixer import SeqContext, from_heads, to_heads
from recjax.mixers.parts.cache import Cache, attend, empty
from recjax.nn.feed_forward import SwiGLU
from recjax.nn.lora import AdaptedDense, LoRA
from recjax.nn.norm import RMSNorm
from recjax.nn.rotary import rotary
from recjax.ops.attention.dense import attend_keys, attention
from recjax.ops.attention.pairs import Visible
from recjax.ops.items.embedding import lookup
from recjax.ops.mesh_axes import dividing_axis
from recjax.text.lm.config import DecoderConfig
from recjax.text.rows import TokenRows
from recjax.typing import DATA_AXIS, MODEL_AXIS, SEQ_AXIS, Array, Bool, Float

Caches = tuple[Cache, ...]

SHARDING_RULES = [
    (r"(^|/)(tokens|head)$", (MODEL_AXIS, None)),
    (r"(^|/)(query|key|value|gate|up)/(kernel|lora_b)$", (None, MODEL_AXIS)),
    (r"(^|/)(query|key|value|gate|up)/(bias|kernel_scale)$", (MODEL_AXIS,)),
    (r"(^|/)(output|down)/(kernel|lora_a)$", (MODEL_AXIS, None)),
    (r"(^|/)(lora_[ab]|bias|scale|kernel_scale)$", ()),
]
"""Layout of the parameters: heads and inner features over the model axis, so that a block adds up over it twice."""


class Decoder(nn.Module):
    """The network; `__call__` for training, `begin` and `step` for generation.

    Attributes:
        config: sizes and options.
        lora: adapters, or None.
    """

    config: DecoderConfig
    lora: LoRA | None = None

    def setup(self) -> None:
        config, init = self.config, nn.initializers.normal(0.02)
        if config.vocabulary:
            self.tokens = self.param("tokens", init, (config.vocabulary, config.width))
        block = nn.remat(Block) if config.remat else Block
        self.layer = [block(config, self.lora) for _ in range(config.layers)]
        self.norm = _norm(config)
        if config.vocabulary and not config.tied:
            self.head = self.param("head", init, (config.vocabulary, config.width))

    def __call__(self, rows: TokenRows, vectors: Float[Array, "b n d"] | None = None) -> Float[Array, "b l v"]:
        """float32 logits of the token that follows each position."""
        return self.logits(self.states(self.embed(rows, vectors), rows))

    def embed(self, rows: TokenRows, vectors: Float[Array, "b n d"] | None = None) -> Float[Array, "b l d"]:
        """Inputs: vectors of tokens, and those that are given where `rows.slots` says so."""
        found = _by_rows(lookup(self.tokens, rows.tokens).astype(self.config.dtype))
        if rows.slots is None or vectors is None:
            return found
        chosen = jnp.take_along_axis(vectors, jnp.maximum(rows.slots, 0)[..., None], axis=1)
        return jnp.where(rows.slots[..., None] >= 0, chosen.astype(found.dtype), found)

    def states(self, inputs: Float[Array, "b l d"], rows: TokenRows) -> Float[Array, "b l d"]:
        """Normed output of the last block at each position."""
        context = context_of(rows)
        for block in self.layer:
            inputs, _ = block(inputs, context, rows.allowed)
        return self.norm(inputs)

    def all_states(self, inputs: Float[Array, "b l d"], rows: TokenRows) -> tuple[Float[Array, "b l d"], ...]:
        """The inputs and the output of each block, without the last norm."""
        context, found = context_of(rows), [inputs]
        for block in self.layer:
            found.append(block(found[-1], context, rows.allowed)[0])
        return tuple(found)

    def logits(self, states: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """float32 logits of all tokens."""
        table = (self.tokens if self.config.tied else self.head).astype(states.dtype)
        return jnp.einsum("...d,vd->...v", states, table, preferred_element_type=jnp.float32)

    def begin(self, inputs: Float[Array, "b l d"], rows: TokenRows, room: int) -> tuple[Float[Array, "b l d"], Caches]:
        """`states`, and caches that have room for so many tokens, the given ones among them; a row is one text."""
        config, context, caches = self.config, context_of(rows), []
        for block in self.layer:
            cache = empty(
                rows=len(inputs),
                heads=config.kv_heads,
                room=room,
                channels=(config.channels, config.channels),
                dtype=jnp.dtype(config.dtype),
            )
            inputs, cache = block(inputs, context, rows.allowed, cache, True)
            caches.append(cache)
        return self.norm(inputs), tuple(caches)

    def step(
        self, inputs: Float[Array, "b l d"], context: SeqContext, caches: Caches
    ) -> tuple[Float[Array, "b l d"], Caches]:
        """States of further tokens, which see all that are cached and those before them, and the caches with them."""
        after = []
        for block, cache in zip(self.layer, caches, strict=True):
            inputs, cache = block(inputs, context, None, cache)
            after.append(cache)
        return self.norm(inputs), tuple(after)

    def branches(
        self, inputs: Float[Array, "b l d"], context: SeqContext, allowed: Bool[Array, "b l k"], caches: Caches
    ) -> Float[Array, "b l d"]:
        """States of tokens that continue a row in several ways at once; the caches stay as they are.

        Args:
            inputs: of the tokens of all ways.
            context: their segments and positions.
            allowed: which places of a cache, then which of these tokens, each of them sees; k = room + l.
            caches: of what all ways continue.
        """
        for block, cache in zip(self.layer, caches, strict=True):
            inputs, _ = block(inputs, context, allowed, cache)
        return self.norm(inputs)


class Block(nn.Module):
    """x + attention(norm(x)), then + feed-forward(norm(x)).

    Attributes:
        config: sizes and options.
        lora: adapters, or None.
    """

    config: DecoderConfig
    lora: LoRA | None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        allowed: Bool[Array, "b l k"] | None = None,
        cache: Cache | None = None,
        fresh: bool = False,
    ) -> tuple[Float[Array, "b l d"], Cache | None]:
        """Output, and the cache with the new tokens in it, unless `allowed` is given; a `fresh` cache is empty."""
        config = self.config
        mixed, cache = Attention(config, self.lora, name="attention")(
            _norm(config, "attention_norm")(x), context, allowed, cache, fresh
        )
        x = x + mixed
        feed_forward = SwiGLU(config.inner, config.mlp_bias, self.lora, jnp.dtype(config.dtype), name="feed_forward")
        return x + feed_forward(_norm(config, "feed_forward_norm")(x)), cache


class Attention(nn.Module):
    """Grouped-query attention with rotary positions.

    Attributes:
        config: sizes and options.
        lora: adapters, or None.
    """

    config: DecoderConfig
    lora: LoRA | None

    @nn.compact
    def __call__(
        self, x: Array, context: SeqContext, allowed: Array | None, cache: Cache | None, fresh: bool
    ) -> tuple[Array, Cache | None]:
        config = self.config
        query, key = (self._turned(name, x, context) for name in ("query", "key"))
        value = self._heads("value", x)
        if cache is not None and not fresh:
            if allowed is None:
                mixed, (cache,) = attend(query, key, value, context, (cache,), Visible())
            else:
                mixed = attend_keys(query, (cache.key, key), (cache.value, value), allowed)
        else:
            if allowed is None:
                mixed = attention(query, key, value, context.segments)
            else:
                mixed = attend_keys(query, (key,), (value,), allowed)
            cache = None if cache is None else cache.extended(key, value, context)
        return self._dense("output", config.width, config.output_bias)(from_heads(mixed)), cache

    def _turned(self, name: str, x: Array, context: SeqContext) -> Array:
        heads = self._heads(name, x)
        if self.config.qk_norm:
            heads = _norm(self.config, f"{name}_norm")(heads)
        return rotary(heads, context.positions, rates=jnp.asarray(self.config.rotation.rates(self.config.channels)))

    def _heads(self, name: str, x: Array) -> Float[Array, "b h l c"]:
        heads = self.config.heads if name == "query" else self.config.kv_heads
        return to_heads(self._dense(name, heads * self.config.channels, self.config.qkv_bias)(x), heads)

    def _dense(self, name: str, features: int, bias: bool) -> AdaptedDense:
        return AdaptedDense(features, bias, self.lora, jnp.dtype(self.config.dtype), name=name)


def _norm(config: DecoderConfig, name: str | None = None) -> RMSNorm:
    return RMSNorm(config.epsilon, jnp.dtype(config.dtype), name=name)


def _by_rows(x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    """Rows over the data axis alone: the model axis is for the features of a block."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(DATA_AXIS, dividing_axis(SEQ_AXIS, x.shape[1])))


def context_of(rows: TokenRows) -> SeqContext:
    """Segments and positions of rows."""
    places = jnp.broadcast_to(jnp.arange(rows.tokens.shape[1]), rows.tokens.shape)
    return SeqContext(rows.segments, places if rows.positions is None else rows.positions)
