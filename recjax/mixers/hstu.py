"""HSTU: attention without a softmax, gated, with learned biases for gaps in events and in time."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.limits import RATE, SIZE, divides, require
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.mixers.parts.cache import Cache, attend, empty
from recjax.nn.dropout import Dropout
from recjax.ops.attention.dense import attend_keys, pointwise_attention
from recjax.ops.attention.pairs import TIMES, GapBias, Visible
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class HSTU:
    """The mixer of a hierarchical sequential transduction unit (Zhai et al. 2024, eq. 1-3), in its research variant.

    With u, v, q, k = SiLU(W x) and N = `max_length`:

        y = W_o dropout(u * LN(A v)),  A = SiLU(q k^T + bias) / N

    where A has no softmax, the LN no affine part, and N is a constant of the model: rows of another length compute the
    same function. A block of it has no feed-forward network (`Stack.inner` 0). The bias is one for all heads: of the
    gap in events, and of the logarithm of the gap in time. The published code takes as a query's time that of the event
    it is to predict, which nobody knows when recommending; here it is that of the query's own event.

    Attributes:
        heads: number of heads.
        channels: of queries, keys and values, each head; None for width / heads.
        max_length: N, and the gap in events from which gaps are no longer told apart.
        times: the bias of gaps in time, too; the data's view has to carry them (`times=True`).
        window: events that an event sees, itself among them; None for all. The state is then as large as the window.
        dropout: rate on what is projected out.
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
        if not causal:
            raise InputError("HSTU is causal; it cannot be bidirectional")
        return HSTUMixer(self, width, self._channels(width), dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        channels = self._channels(width)
        room = max_length if self.window is None else self.window
        return (
            empty(rows=rows, heads=self.heads, room=room, channels=(channels, channels), dtype=dtype, times=self.times),
        )

    def _channels(self, width: int) -> int:
        if self.channels is None:
            divides(self, "heads", width, "the width, or channels beside it,")
        return self.channels or width // self.heads


class HSTUMixer(nn.Module):
    """See `HSTU`; the norm before it and the residual stream are the block's."""

    config: HSTU
    width: int
    channels: int
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
            raise InputError("HSTU takes queries, keys and values from one stream")
        config, share = self.config, 1.0 / self.config.max_length
        init = nn.initializers.normal(0.02)
        fused = nn.Dense(
            4 * config.heads * self.channels, use_bias=False, dtype=self.dtype, kernel_init=init, name="uvqk"
        )(x)
        gate, value, query, key = (
            part.reshape(*x.shape[:2], config.heads, self.channels).swapaxes(1, 2)
            for part in jnp.split(jax.nn.silu(fused), 4, axis=-1)
        )
        visible, bias = Visible(True, 1, config.window), self._bias(context)
        if state is not None:
            mixed, state = attend(query, key, value, context, state, visible, bias=bias, share=share)
        elif last is not None:
            gate, query = (take_position(part.swapaxes(1, 2), last)[:, :, None] for part in (gate, query))
            mixed = self._at_last(query, key, value, context, last, visible, bias)
        else:
            mixed = pointwise_attention(
                query, key, value, context.segments, share=share, window=config.window, bias=bias
            )
        gate, mixed = (part.swapaxes(1, 2).reshape(part.shape[0], part.shape[2], -1) for part in (gate, mixed))
        gated = Dropout(config.dropout)(gate * _standardised(mixed).astype(self.dtype))
        y = nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="output")(gated)
        if state is not None:
            return y, state
        return y if last is None else y[:, 0]

    def _at_last(self, query, key, value, context: SeqContext, last, visible: Visible, bias: GapBias) -> Array:
        """Attention of the position `last` of each row alone."""
        places = jnp.arange(key.shape[2])[None]
        same = context.segments == take_position(context.segments, last)[:, None]
        allowed = visible.pairs(last[:, None], places) & same[:, None]
        own = None if bias.seconds is None else take_position(bias.seconds, last)[:, None]
        found = bias.pairs(last[:, None], places, own, bias.seconds)
        return attend_keys(query, (key,), (value,), allowed, found, 1.0 / self.config.max_length)

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
