"""Retention: linear attention with a fixed decay per head."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from recjax.limits import SIZE, above, divides, require
from recjax.mixers.mixer import Capabilities, to_heads
from recjax.mixers.parts.outer import OuterMixer, empty, read
from recjax.nn.rotary import rotary
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class Retention:
    """Multi-scale retention (RetNet, Sun et al. 2023).

    Head h weighs the event i of the past of t by <q_t, k_i> decay_h^(t-i), with queries and keys turned by their
    positions and decay_h = 1 - 2^(-5-h): heads look back 32, 64, 128, ... events. Readings are normalised head by
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
        divides(self, "heads", width, "the width")
        if width // self.heads % 2:
            raise InputError(f"rotary positions need an even width of heads, not {width} / {self.heads}")
        return RetentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Float[Array, "b h k v"]:
        channels = width // self.heads
        return empty(rows, self.heads, channels, channels * self.expand)

    @property
    def log_decays(self) -> np.ndarray:
        """Logarithms of the decays of the heads, [h]."""
        return np.log1p(-(2.0 ** (-5.0 - np.arange(self.heads)))).astype(np.float32)


class RetentionMixer(OuterMixer):
    """See `Retention`."""

    config: Retention

    def mix(self, x, source, context, last, state):
        c = self.config
        query, key = (
            rotary(to_heads(self.dense(name)(x), c.heads), context.positions, c.base) for name in ("query", "key")
        )
        value = to_heads(self.dense("value", self.width * c.expand)(x), c.heads)
        decays = jnp.broadcast_to(c.log_decays[:, None], query.shape[:3])
        mixed, after = read(query * (self.width // c.heads) ** -0.5, key, value, decays, context, state)
        return self.gated(mixed, x, last), after
