"""Multi-head softmax attention as a mixer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.ops.attention import attend_cache, attend_last, attention
from recjax.ops.embedding import take_position
from recjax.typing import Array, Float, InputError, Int


@dataclass(frozen=True)
class Attention:
    """Multi-head scaled dot-product attention (Vaswani et al. 2017).

    Attributes:
        heads: number of heads; divides the width.
        dropout: rate on the attention weights.
        init_scale: standard deviation of the projections, or None for Xavier uniform.
    """

    heads: int = 1
    dropout: float = 0.0
    init_scale: float | None = None

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, bidirectional=True, separate_query=True, memory="history"
    )

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "AttentionMixer":
        if width % self.heads:
            raise InputError(f"{self.heads} attention heads do not divide a width of {width}")
        return AttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> "Cache":
        shape = (rows, self.heads, max_length, width // self.heads)
        return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(rows, jnp.int32))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the past; more than there is room for are not kept.

    Attributes:
        key: of each event.
        value: of each event.
        length: events that there have been.
    """

    key: Float[Array, "b h m c"]
    value: Float[Array, "b h m c"]
    length: Int[Array, " b"]

    def extended(self, key: Array, value: Array, context: SeqContext) -> "Cache":
        """With the keys and values [b, h, l, c] of the events that follow; those of padding are not kept."""
        offsets = jnp.arange(key.shape[2])[None]
        room = self.key.shape[2]
        places = jnp.where(context.valid, self.length[:, None] + offsets, room)

        @jax.vmap
        def write(kept: Array, new: Array, places: Array) -> Array:
            return kept.at[:, places].set(new.astype(kept.dtype), mode="drop")

        added = jnp.sum(context.valid, axis=1, dtype=jnp.int32)
        return Cache(write(self.key, key, places), write(self.value, value, places), self.length + added)


class AttentionMixer(nn.Module):
    """See `Attention`."""

    config: Attention
    width: int
    causal: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        *,
        source: Array | None = None,
        last: Array | None = None,
        state: Cache | None = None,
    ) -> Any:
        source = x if source is None else source
        batch, length, heads = source.shape[0], source.shape[1], self.config.heads
        if last is not None:
            x = take_position(x, last)[:, None]

        query, key, value = (
            self._dense(name)(stream).reshape(batch, -1, heads, self.width // heads).swapaxes(1, 2)
            for name, stream in (("query", x), ("key", source), ("value", source))
        )
        if state is not None:
            cache = state.extended(key, value, context)
            visible = state.length[:, None] + jnp.arange(length)[None] + 1
            mixed = attend_cache(query, cache.key, cache.value, visible)
            mixed = mixed.swapaxes(1, 2).reshape(batch, -1, self.width)
            return self._dense("output")(mixed), cache
        if last is None:
            random = self.make_rng("dropout") if self.config.dropout and self.has_rng("dropout") else None
            mixed = attention(
                query, key, value, context.segments, causal=self.causal, dropout=self.config.dropout, key=random
            )
            mixed = mixed.swapaxes(1, 2).reshape(batch, length, self.width)
        else:
            allowed = context.segments == take_position(context.segments, last)[:, None]
            if self.causal:
                allowed &= jnp.arange(length)[None] <= last[:, None]
            mixed = attend_last(query[:, :, 0], key, value, allowed).reshape(batch, self.width)
        return self._dense("output")(mixed)

    def _dense(self, name: str) -> nn.Dense:
        scale = self.config.init_scale
        init = nn.initializers.xavier_uniform() if scale is None else nn.initializers.normal(scale)
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name=name)
