"""Attention for very long histories: a window, the beginning, and the best matching blocks of what lies between."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from recjax.limits import SIZE, WIDEST, divides, refuse, require, within
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.mixers.parts.cache import Cache, empty
from recjax.ops.attention.block_memory import Reach, block_memory_attention
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class MemoryAttention:
    """Causal attention with the reach of InfLLM (Xiao et al. 2024), chosen anew by every event.

    An event sees the first `initial` events of its history, the newest `window`, and of the others the `top` blocks of
    `block` events whose mean key matches its query best. Where they cover the history it is attention. InfLLM chooses
    for 512 queries together, by four keys a block and with blocks held by the host; here each query chooses (no query
    then depends on a later one), by the mean of a block's keys, and everything stays on the device.

    Blocks count from the beginning of a row, so a row holds one history (its events at the left).

    Attributes:
        heads: number of heads; divides the width.
        initial: first events of the history, always seen.
        window: newest events, itself among them, always seen.
        block: events of a block; at most `window`.
        top: blocks that a query chooses.
    """

    heads: int = 1
    initial: int = 4
    window: int = 128
    block: int = 32
    top: int = 4

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, packing=False, separate_query=True, memory="history"
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE, initial=within(0, WIDEST), window=SIZE, block=SIZE, top=SIZE)
        if self.block > self.window:
            refuse(self, "block", f"at most the window's {self.window} events")

    @property
    def reach(self) -> Reach:
        return Reach(self.initial, self.window, self.block, self.top)

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "MemoryAttentionMixer":
        divides(self, "heads", width, "the width")
        if not causal:
            raise InputError("MemoryAttention looks back; it cannot be bidirectional")
        return MemoryAttentionMixer(self, width, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Cache:
        channels = width // self.heads
        return empty(
            rows=rows, heads=self.heads, room=max_length, channels=(channels, channels), dtype=dtype, wraps=False
        )


class MemoryAttentionMixer(nn.Module):
    """See `MemoryAttention`."""

    config: MemoryAttention
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
        state: Cache | None = None,
    ) -> Any:
        source = x if source is None else source
        asking = x if last is None else take_position(x, last)[:, None]
        query, key, value = (
            self._dense(name)(stream)
            .reshape(x.shape[0], -1, self.config.heads, self.width // self.config.heads)
            .swapaxes(1, 2)
            for name, stream in (("query", asking), ("key", source), ("value", source))
        )
        first = jnp.zeros(x.shape[0], jnp.int32) if last is None else last
        if state is not None:
            first = state.length
            state = state.extended(key, value, context)
            key, value = state.key, state.value
        mixed = block_memory_attention(query, key, value, first, self.config.reach)
        y = self._dense("output")(mixed.swapaxes(1, 2).reshape(x.shape[0], -1, self.width))
        if state is not None:
            return y, state
        return y if last is None else y[:, 0]

    def _dense(self, name: str) -> nn.Dense:
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)
