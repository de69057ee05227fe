"""Multi-head softmax attention as a mixer."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn

from recjax.limits import RATE, SIZE, above, at_least, divides, refuse, require
from recjax.mixers.mixer import Capabilities, Mixer, SeqContext, at_last, from_heads, to_heads
from recjax.mixers.parts.cache import Cache, attend, empty
from recjax.mixers.parts.gaps import IntervalQuery, log_days
from recjax.mixers.parts.last import attend_last
from recjax.nn.rotary import rotary
from recjax.ops.attention.dense import attention
from recjax.ops.attention.pairs import DISTANCES, TIMES, GapBias, Visible
from recjax.typing import Array

Positions = Literal["none", "rotary"]
Relative = Literal["none", "events", "times", "both"]
Query = Literal["event", "interval"]


@dataclass(frozen=True)
class Attention:
    """Multi-head scaled dot-product attention (Vaswani et al. 2017) with optional later additions.

    Attributes:
        heads: number of heads; divides the width.
        dropout: rate on the attention weights.
        init_scale: standard deviation of the projections, or None for Xavier uniform.
        kv_heads: heads of keys and values, a divisor of `heads`: as many heads of queries share each (grouped queries,
            Ainslie et al. 2023; 1 is Shazeer 2019's multi-query). None for one each.
        positions: "rotary" turns queries and keys by their positions (Su et al. 2021); "none" where the stream carries
            positions already or `relative` tells them.
        relative: learned terms of the scores, one per head, for gaps in "events" (Raffel et al. 2020), in "times" (Zhai
            et al. 2024) or "both"; gaps share logarithmic buckets. Times are those of the events themselves.
        query: what queries are made of: the "event", or the "interval" alone, log(1 + days) since the event before
            (the interval-infused attention of IntervalLLM, 2025): which earlier events count then depends on how long
            the user has been away. Projections have no biases there, and an event without interval sees all alike.
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
    query: Query = "event"
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
        """True if scores depend on gaps in time."""
        return self.relative in ("times", "both") or self.query == "interval"

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "AttentionMixer":
        divides(self, "heads", width, "the width")
        return AttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        channels = width // self.heads
        return self.caches((channels, channels), rows, max_length, dtype)

    def caches(self, channels: tuple[int, int], rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        """Empty caches of the newest events and of the first, for keys and values of these channels."""

        def of(room: int, wraps: bool) -> Cache:
            heads = self.kv_heads or self.heads
            return empty(
                rows=rows, heads=heads, room=room, channels=channels, dtype=dtype, times=self.times, wraps=wraps
            )

        recent = of(max_length if self.window is None else self.window, True)
        return (recent, of(self.first, False)) if self.first else (recent,)


class AttentionMixer(Mixer):
    """See `Attention`. More events than the state has room for leave it as a window would."""

    config: Attention

    def mix(self, x, source, context, last, state):
        config = self.config
        if config.query == "interval":
            x = IntervalQuery(self.width, self.dtype, name="interval")(log_days(context, state and state[0]))
        query, key = self.compared(at_last(x, last), source)
        value = self.heads("value", source, config.kv_heads or config.heads)
        if config.positions == "rotary":
            query = rotary(query, at_last(context.positions, last))
            key = rotary(key, context.positions)
        bias, visible = self._bias(context), Visible(self.causal, 1, config.window)
        if state is not None:
            mixed, state = attend(query, key, value, context, state, visible, bias=bias)
        elif last is not None:
            mixed = attend_last(query, key, value, context, last, visible, first=config.first, bias=bias)
        else:
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
                key=self.make_rng("dropout") if config.dropout and self.has_rng("dropout") else None,
            )
        return self.dense("output", scale=config.init_scale)(from_heads(mixed)), state

    def compared(self, queries: Array, source: Array) -> tuple[Array, Array]:
        """Queries [b, h, q, c] and keys [b, g, l, c]."""
        config = self.config
        return self.heads("query", queries, config.heads), self.heads("key", source, config.kv_heads or config.heads)

    def heads(self, name: str, stream: Array, heads: int) -> Array:
        """A projection of [b, l, d] to [b, heads, l, c]."""
        features = heads * (self.width // self.config.heads)
        bias = False if self.config.query == "interval" else None
        return to_heads(self.dense(name, features, bias=bias, scale=self.config.init_scale)(stream), heads)

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
        seconds = context.seconds("attention with relative times") if relative in ("times", "both") else None
        return GapBias(events, times, seconds, signed=not self.causal)
