"""HSTU: attention without a softmax, gated, with learned biases for gaps in events and in time."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.limits import RATE, SIZE, divides, require
from recjax.mixers.mixer import Capabilities, Mixer, SeqContext, at_last, from_heads, to_heads
from recjax.mixers.parts.cache import Cache, attend, empty
from recjax.mixers.parts.last import attend_last
from recjax.nn.dropout import Dropout
from recjax.ops.attention.dense import pointwise_attention
from recjax.ops.attention.pairs import TIMES, GapBias, Visible
from recjax.typing import Array


@dataclass(frozen=True)
class HSTU:
    """The mixer of a hierarchical sequential transduction unit (Zhai et al. 2024, eq. 1-3), in its research variant.

    With u, v, q, k = SiLU(W x) and N = `max_length`:

        y = W_o dropout(u * LN(A v)),  A = SiLU(q k^T + bias) / N

    where A has no softmax, the LN no affine part, and N is a constant of the model: rows of any length compute the
    same function. A block of it has no feed-forward network (`Stack.inner` 0). The bias is one for all heads: of the
    gap in events, and of the logarithm of the gap in time. The published code takes as a query's time that of the event
    to predict, which is unknown at recommendation time; here it is that of the query's own event.

    Attributes:
        heads: number of heads.
        channels: of queries, keys and values, each head; None for width / heads.
        max_length: N, and the gap in events from which all gaps share one bias.
        times: add the bias of gaps in time; needs timestamps (`data.view.times=true`).
        window: events that an event sees, itself among them; None for all. The state is then as large as the window.
        dropout: rate on the input of the output projection.
    """

    heads: int = 1
    channels: int | None = None
    max_length: int = 200
    times: bool = True
    window: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(self, heads=SIZE, channels=SIZE, max_length=SIZE, window=SIZE, dropout=RATE)

    @property
    def capabilities(self) -> Capabilities:
        memory = "history" if self.window is None else "constant"
        return Capabilities(causal=True, positional=True, memory=memory, seq_sharded=True, times=self.times)

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "HSTUMixer":
        self.of_head(width)
        return HSTUMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        channels = self.of_head(width)
        room = max_length if self.window is None else self.window
        return (
            empty(rows=rows, heads=self.heads, room=room, channels=(channels, channels), dtype=dtype, times=self.times),
        )

    def of_head(self, width: int) -> int:
        """Channels of queries, keys and values, each head."""
        if self.channels is None:
            divides(self, "heads", width, "the width, or channels beside it,")
        return self.channels or width // self.heads


class HSTUMixer(Mixer):
    """See `HSTU`; the norm before it and the residual stream are the block's."""

    config: HSTU

    def mix(self, x, source, context, last, state):
        config, share = self.config, 1.0 / self.config.max_length
        fused = self.dense("uvqk", 4 * config.heads * config.of_head(self.width), bias=False, scale=0.02)(x)
        gate, value, query, key = jnp.split(jax.nn.silu(fused), 4, axis=-1)
        gate, query = at_last(gate, last), at_last(query, last)
        query, key, value = (to_heads(part, config.heads) for part in (query, key, value))
        visible, bias = Visible(True, 1, config.window), self._bias(context)
        if state is not None:
            mixed, state = attend(query, key, value, context, state, visible, bias=bias, share=share)
        elif last is not None:
            mixed = attend_last(query, key, value, context, last, visible, bias=bias, share=share)
        else:
            mixed = pointwise_attention(
                query, key, value, context.segments, share=share, window=config.window, bias=bias
            )
        gated = Dropout(config.dropout)(gate * _standardised(from_heads(mixed)).astype(self.dtype))
        return self.dense("output")(gated), state

    def _bias(self, context: SeqContext) -> GapBias:
        init, config = nn.initializers.normal(0.02), self.config
        events = self.param("event_bias", init, (1, config.max_length))
        if not config.times:
            return GapBias(events, exact=True)
        return GapBias(events, self.param("time_bias", init, (1, TIMES)), context.seconds("hstu"), exact=True)


def _standardised(x: Array) -> Array:
    """Layer normalisation without an affine part, in float32."""
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-6)
