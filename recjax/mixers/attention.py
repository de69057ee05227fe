"""Multi-head softmax attention as a mixer."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from recjax.limits import RATE, SIZE, above, at_least, divides, refuse, require
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.mixers.parts.cache import Cache, attend, empty
from recjax.nn.rotary import rotary
from recjax.ops.attention.dense import attend_keys, attention
from recjax.ops.attention.pairs import DISTANCES, TIMES, GapBias, Visible
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError

Positions = Literal["none", "rotary"]
Relative = Literal["none", "events", "times", "both"]


@dataclass(frozen=True)
class Attention:
    """Multi-head scaled dot-product attention (Vaswani et al. 2017) and what has been added to it since.

    Attributes:
        heads: number of heads; divides the width.
        dropout: rate on the attention weights.
        init_scale: standard deviation of the projections, or None for Xavier uniform.
        kv_heads: heads of keys and values, a divisor of `heads`: as many heads of queries share each (grouped queries,
            Ainslie et al. 2023; 1 is Shazeer 2019's multi-query). None for one each.
        positions: "rotary" turns queries and keys by their positions (Su et al. 2021); "none" where the stream carries
            positions already or `relative` tells them.
        relative: learned terms of the scores, one a head, for gaps in "events" (Raffel et al. 2020), in "times" (Zhai
            et al. 2024) or "both"; gaps share logarithmic buckets. Times are those of the events themselves.
        window: events that an event sees, itself among them, to each side it may see; None for all. The state is then
            as large as the window, however long the history.
        first: events at the beginning of a history that all its events see, whatever the window (the global tokens of
            Longformer, Beltagy et al. 2020). In rows of `recjax.ops.attention.dense.LONG` positions and more, dropout
            spares the ones that the window hides.
    """

    heads: int = 1
    dropout: float = 0.0
    init_scale: float | None = None
    kv_heads: int | None = None
    positions: Positions = "none"
    relative: Relative = "none"
    window: int | None = None
    first: int = 0

    def __post_init__(self) -> None:
        require(self, heads=SIZE, kv_heads=SIZE, window=SIZE, dropout=RATE, init_scale=above(0), first=at_least(0))
        if self.kv_heads is not None and self.heads % self.kv_heads:
            refuse(self, "kv_heads", f"a number that divides the {self.heads} attention heads")
        if self.first and self.window is None:
            refuse(self, "first", "0 where there is no window to hide the first events")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            causal=True,
            bidirectional=not self.first,
            separate_query=True,
            positional=self.positions == "rotary" or self.relative in ("events", "both"),
            memory="history" if self.window is None else "constant",
            seq_sharded=True,
            times=self.times,
        )

    @property
    def times(self) -> bool:
        """Whether scores depend on gaps in time."""
        return self.relative in ("times", "both")

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "AttentionMixer":
        divides(self, "heads", width, "the width")
        if self.first and not causal:
            raise InputError(f"first is {self.first}: only causal attention has events that a window never hides")
        return AttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        channels = width // self.heads
        return self.caches((channels, channels), rows, max_length, dtype)

    def caches(self, channels: tuple[int, int], rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        """Empty caches for keys and values of so many channels: of the newest events and of the first."""

        def of(room: int, wraps: bool) -> Cache:
            heads = self.kv_heads or self.heads
            return empty(
                rows=rows, heads=heads, room=room, channels=channels, dtype=dtype, times=self.times, wraps=wraps
            )

        recent = of(max_length if self.window is None else self.window, True)
        return (recent, of(self.first, False)) if self.first else (recent,)


class AttentionMixer(nn.Module):
    """See `Attention`. More events than there is room for in the state leave it as a window would."""

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
        state: tuple[Cache, ...] | None = None,
    ) -> Any:
        config = self.config
        source = x if source is None else source
        asking = x if last is None else take_position(x, last)[:, None]
        query, key = self.compared(asking, source)
        value = self.heads("value", source, config.kv_heads or config.heads)
        if config.positions == "rotary":
            at = context.positions if last is None else take_position(context.positions, last)[:, None]
            query, key = rotary(query, at), rotary(key, context.positions)
        bias = self._bias(context)
        visible = Visible(self.causal, 1, config.window)
        if state is not None:
            mixed, state = attend(query, key, value, context, state, visible, bias=bias)
            return self._output(mixed), state
        if last is not None:
            return self._output(self._at_last(query, key, value, context, last, visible, bias))[:, 0]
        random = self.make_rng("dropout") if config.dropout and self.has_rng("dropout") else None
        mixed = attention(
            query,
            key,
            value,
            context.segments,
            causal=self.causal,
            window=config.window,
            first=config.first,
            bias=bias,
            dropout=config.dropout,
            key=random,
        )
        return self._output(mixed)

    def compared(self, asking: Array, source: Array) -> tuple[Array, Array]:
        """Queries [b, h, q, c] and keys [b, g, l, c]."""
        config = self.config
        return self.heads("query", asking, config.heads), self.heads("key", source, config.kv_heads or config.heads)

    def heads(self, name: str, stream: Array, heads: int) -> Array:
        """A projection of [b, l, d] to [b, heads, l, c]."""
        channels = self.width // self.config.heads
        return self._dense(name, heads * channels)(stream).reshape(*stream.shape[:2], heads, channels).swapaxes(1, 2)

    def _at_last(self, query, key, value, context: SeqContext, last, visible: Visible, bias: GapBias | None) -> Array:
        """Attention of the position `last` of each row alone."""
        places = jnp.arange(key.shape[2])[None]
        same = context.segments == take_position(context.segments, last)[:, None]
        allowed = visible.pairs(last[:, None], places)
        if self.config.first:
            begins = jnp.argmax(same, axis=1)[:, None]
            allowed |= ((places < begins + self.config.first) & (places <= last[:, None]))[:, None]
        found = None
        if bias is not None:
            seconds = bias.seconds
            own = None if seconds is None else take_position(seconds, last)[:, None]
            found = bias.pairs(last[:, None], places, own, seconds)
        return attend_keys(query, (key,), (value,), allowed & same[:, None], found)

    def _bias(self, context: SeqContext) -> GapBias | None:
        relative, sides = self.config.relative, 1 if self.causal else 2
        if relative == "none":
            return None
        init = nn.initializers.normal(0.02)
        events = times = None
        if relative != "times":
            events = self.param("event_bias", init, (self.config.heads, sides * DISTANCES))
        if relative != "events":
            times = self.param("time_bias", init, (self.config.heads, sides * TIMES))
        seconds = context.seconds("attention with relative times") if self.config.times else None
        return GapBias(events, times, seconds, signed=not self.causal)

    def _output(self, mixed: Array) -> Array:
        mixed = mixed.swapaxes(1, 2).reshape(mixed.shape[0], mixed.shape[2], self.width)
        return self._dense("output", self.width)(mixed)

    def _dense(self, name: str, width: int) -> nn.Dense:
        scale = self.config.init_scale
        init = nn.initializers.xavier_uniform() if scale is None else nn.initializers.normal(scale)
        return nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)
