"""Block-memory attention for very long histories: a window, the first events, and the best matching other blocks."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from recjax.limits import SIZE, WIDEST, divides, refuse, require, within
from recjax.mixers.mixer import Capabilities, Mixer, at_last, from_heads, to_heads
from recjax.mixers.parts.cache import Cache, empty
from recjax.ops.attention.block_memory import Reach, block_memory_attention
from recjax.typing import Array


@dataclass(frozen=True)
class MemoryAttention:
    """Causal attention with the reach of InfLLM (Xiao et al. 2024), selected for every event.

    An event sees the first `initial` events of its history, the newest `window`, and of the others the `top` blocks of
    `block` events whose mean key matches its query best. Where they cover the history it is attention. InfLLM selects
    for 512 queries together, by four keys per block, with blocks in host memory; here each query selects (so none
    depends on a later one), by the mean of a block's keys, and everything stays on the device.

    Blocks count from the beginning of a row, so a row holds one history (its events at the left).

    Attributes:
        heads: number of heads; divides the width.
        initial: first events of the history, always seen.
        window: newest events, itself among them, always seen.
        block: events of a block; at most `window`.
        top: blocks that a query selects.
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
        return MemoryAttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Cache:
        channels = width // self.heads
        return empty(
            rows=rows, heads=self.heads, room=max_length, channels=(channels, channels), dtype=dtype, wraps=False
        )


class MemoryAttentionMixer(Mixer):
    """See `MemoryAttention`."""

    config: MemoryAttention

    def mix(self, x, source, context, last, state: Cache | None):
        query, key, value = (
            to_heads(self.dense(name)(stream), self.config.heads)
            for name, stream in (("query", at_last(x, last)), ("key", source), ("value", source))
        )
        first = jnp.zeros(x.shape[0], jnp.int32)
        if state is not None:
            first = state.length
            state = state.extended(key, value, context)
            key, value = state.key, state.value

        def attend(query: Array, first: Array) -> Array:
            return block_memory_attention(query, key, value, first, self.config.reach)

        if last is None:
            mixed = attend(query, first)
        else:
            mixed = jax.vmap(attend, (2, 1), 2)(query[:, :, :, None], last)[:, :, :, 0]
        return self.dense("output")(from_heads(mixed)), state
