"""Attention over items of several tokens: bidirectional inside an item, causal between items."""

from dataclasses import dataclass
from typing import Any, Literal

from recjax.limits import RATE, SIZE, above, divides, require
from recjax.mixers.mixer import Capabilities, Mixer, at_last, from_heads, to_heads
from recjax.mixers.parts.cache import Cache, attend, empty
from recjax.mixers.parts.last import attend_last
from recjax.nn.rotary import rotary
from recjax.ops.attention.dense import attention
from recjax.ops.attention.pairs import Visible

Positions = Literal["rotary", "none"]


@dataclass(frozen=True)
class HybridAttention:
    """Multi-head attention whose units of time are items of `slots` tokens (RecGPT, Jiang et al. 2025).

    A row is item-aligned: its tokens n * slots .. n * slots + slots - 1 belong to its item n. The context is that of
    tokens: `segments` as always, and `positions` the number of the token's ITEM inside its history, the same for all
    of an item's tokens. Rotary positions count these, so only distances between items matter: a history's place in its
    row, its neighbours and the side of the padding change nothing. Histories resume by whole items.

    Attributes:
        heads: number of heads; divides the width.
        slots: tokens of an item; 1 = causal attention.
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
        return HybridAttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        """Room for `max_length` items."""
        channels = width // self.heads
        room = max_length * self.slots
        return (empty(rows=rows, heads=self.heads, room=room, channels=(channels, channels), dtype=dtype),)


class HybridAttentionMixer(Mixer):
    """See `HybridAttention`. With a state, the new tokens are whole items."""

    config: HybridAttention

    def mix(self, x, source, context, last, state):
        config, visible = self.config, Visible(True, self.config.slots)
        query, key, value = (
            to_heads(self.dense(name, scale=config.init_scale)(stream), config.heads)
            for name, stream in (("query", at_last(x, last)), ("key", x), ("value", x))
        )
        if config.positions == "rotary":
            query = rotary(query, at_last(context.positions, last))
            key = rotary(key, context.positions)
        random = self.make_rng("dropout") if config.dropout and self.has_rng("dropout") else None
        if state is not None:
            mixed, state = attend(query, key, value, context, state, visible)
        elif last is not None:
            mixed = attend_last(query, key, value, context, last, visible, dropout=config.dropout, random=random)
        else:
            mixed = attention(
                query, key, value, context.segments, slots=config.slots, dropout=config.dropout, key=random
            )
        return self.dense("output", scale=config.init_scale)(from_heads(mixed)), state
