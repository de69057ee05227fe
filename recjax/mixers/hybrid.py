"""Attention over items of several tokens: bidirectional inside an item, causal between items."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from recjax.limits import RATE, SIZE, above, divides, require
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.mixers.parts.cache import Cache, attend, empty
from recjax.nn.rotary import rotary
from recjax.ops.attention.dense import attend_keys, attention
from recjax.ops.attention.pairs import Visible
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError

Positions = Literal["rotary", "none"]


@dataclass(frozen=True)
class HybridAttention:
    """Multi-head attention whose units of time are items of `slots` tokens (RecGPT, Jiang et al. 2025).

    A row is item-aligned: its tokens n * slots .. n * slots + slots - 1 belong to its item n. The context is that of
    tokens: `segments` as always, and `positions` the number of the token's ITEM inside its history, the same for all
    of an item's tokens. Rotary positions count these, so only distances between items matter: where a history stands
    in a row, what stands beside it and on which side it is padded change nothing. Histories go on by whole items.

    Attributes:
        heads: number of heads; divides the width.
        slots: tokens of an item; with 1 it is causal attention.
        positions: "rotary", or "none" where the stream carries positions already.
        dropout: rate on the attention weights.
        init_scale: standard deviation of the projections, or None for Xavier uniform.
    """

    heads: int = 1
    slots: int = 1
    positions: Positions = "rotary"
    dropout: float = 0.0
    init_scale: float | None = None

    def __post_init__(self) -> None:
        require(self, heads=SIZE, slots=SIZE, dropout=RATE, init_scale=above(0))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(causal=True, positional=self.positions == "rotary", memory="history", seq_sharded=True)

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "HybridAttentionMixer":
        divides(self, "heads", width, "the width")
        if not causal:
            raise InputError("HybridAttention is causal between items; it cannot be bidirectional")
        return HybridAttentionMixer(self, width, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        """Room for `max_length` items."""
        channels = width // self.heads
        room = max_length * self.slots
        return (empty(rows=rows, heads=self.heads, room=room, channels=(channels, channels), dtype=dtype),)


class HybridAttentionMixer(nn.Module):
    """See `HybridAttention`.

    With `last` int32 [b], the output of those tokens alone, [b, d]; with `last` int32 [b, s], theirs, [b, s, d]. With a
    state, the new tokens are whole items.
    """

    config: HybridAttention
    width: int
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        *,
        source: Array | None = None,
        last: Array | None = None,
        state: tuple[Cache, ...] | None = None,
    ) -> Any:
        if source is not None:
            raise InputError("HybridAttention takes queries, keys and values from one stream")
        batch, heads = x.shape[0], self.config.heads
        tokens = None if last is None else last.reshape(batch, -1)
        asking = x if tokens is None else take_position(x, tokens)
        query, key, value = (
            self._dense(name)(stream).reshape(batch, -1, heads, self.width // heads).swapaxes(1, 2)
            for name, stream in (("query", asking), ("key", x), ("value", x))
        )
        if self.config.positions == "rotary":
            places = context.positions
            query = rotary(query, places if tokens is None else take_position(places, tokens))
            key = rotary(key, places)
        if state is not None:
            mixed, state = attend(query, key, value, context, state, Visible(True, self.config.slots))
            return self._dense("output")(mixed.swapaxes(1, 2).reshape(batch, -1, self.width)), state
        random = self.make_rng("dropout") if self.config.dropout and self.has_rng("dropout") else None
        slots, dropout = self.config.slots, self.config.dropout
        if tokens is None:
            mixed = attention(query, key, value, context.segments, slots=slots, dropout=dropout, key=random)
        else:
            allowed = self._visible(context, tokens)
            mixed = attend_keys(query, (key,), (value,), allowed, dropout=dropout, key=random)
        mixed = self._dense("output")(mixed.swapaxes(1, 2).reshape(batch, -1, self.width))
        return mixed[:, 0] if last is not None and last.ndim == 1 else mixed

    def _visible(self, context: SeqContext, tokens: Array) -> Array:
        """bool [b, s, l]: what the items of tokens [b, s] may see."""
        slots = self.config.slots
        items = jnp.arange(context.segments.shape[1]) // slots
        same = take_position(context.segments, tokens)[:, :, None] == context.segments[:, None]
        return same & (items <= (tokens // slots)[:, :, None])

    def _dense(self, name: str) -> nn.Dense:
        scale = self.config.init_scale
        init = nn.initializers.xavier_uniform() if scale is None else nn.initializers.normal(scale)
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name=name)
