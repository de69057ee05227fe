"""Retention: linear attention that forgets at a fixed rate per head."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import SIZE, above, require
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.mixers.parts.outer import at_last, dense, empty, events_only, from_heads, per_head, read, to_heads
from recjax.nn.norm import RMSNorm
from recjax.nn.rotary import rotary
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class Retention:
    """Multi-scale retention (RetNet, Sun et al. 2023).

    Head h weighs the event i of the past of t by <q_t, k_i> decay_h^(t-i), with queries and keys turned by their
    positions and decay_h = 1 - 2^(-5-h): heads look back 32, 64, 128, ... events. What is read is normalised head by
    head and gated by SiLU.

    Attributes:
        heads: number of heads; divides the width.
        expand: width of the values, in widths; the paper has 2.
        base: of the rotary positions.
    """

    heads: int = 1
    expand: int = 2
    base: float = 10_000.0

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, positional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE, expand=SIZE, base=above(1))

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "RetentionMixer":
        if per_head(width, self.heads, "a width") % 2:
            raise InputError(f"rotary positions need an even width of heads, not {width} / {self.heads}")
        return RetentionMixer(self, width, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Float[Array, "b h k v"]:
        channels = per_head(width, self.heads, "a width")
        return empty(rows, self.heads, channels, channels * self.expand)

    @property
    def log_decays(self) -> np.ndarray:
        """Of each head, [h]."""
        return np.log1p(-(2.0 ** (-5.0 - np.arange(self.heads)))).astype(np.float32)


class RetentionMixer(nn.Module):
    """See `Retention`."""

    config: Retention
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
        state: Array | None = None,
    ) -> Any:
        heads, inner = self.config.heads, self.width * self.config.expand
        x = events_only(x, context, source, "Retention")
        query, key = (
            rotary(to_heads(dense(self.width, self.dtype, name)(x), heads), context.positions, self.config.base)
            for name in ("query", "key")
        )
        value = to_heads(dense(inner, self.dtype, "value")(x), heads)
        decays = jnp.broadcast_to(self.config.log_decays[:, None], query.shape[:3])
        mixed, after = read(query * (self.width // heads) ** -0.5, key, value, decays, context, state)
        mixed = RMSNorm(dtype=self.dtype, name="norm")(from_heads(mixed, last))
        gate = jax.nn.silu(dense(inner, self.dtype, "gate")(at_last(x, last)))
        mixed = dense(self.width, self.dtype, "output")(mixed.reshape(gate.shape) * gate)
        return mixed if state is None else (mixed, after)
