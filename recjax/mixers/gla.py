"""Gated linear attention: linear attention with a data-dependent decay per key channel."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from recjax.limits import SIZE, above, divides, require
from recjax.mixers.mixer import Capabilities, to_heads
from recjax.mixers.parts.outer import OuterMixer, empty, read
from recjax.typing import Array, Float


@dataclass(frozen=True)
class GatedLinearAttention:
    """Gated linear attention, GLA (Yang et al. 2024).

    S_t = diag(a_t) S_{t-1} + k_t v_t^T with a decay per key channel, a_t = sigmoid(W_2 W_1 x_t + c)^(1/16); queries and
    keys have half the width. What is read is normalised head by head and gated by SiLU.

    Attributes:
        heads: number of heads; divides half the width.
        rank: width between the two matrices of the decay.
        temperature: the decay is the sigmoid to the power 1 / temperature, so that gates start close to 1.
    """

    heads: int = 1
    rank: int = 16
    temperature: float = 16.0

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, positional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE, rank=SIZE, temperature=above(0))

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "GatedLinearAttentionMixer":
        divides(self, "heads", width // 2, "half the width")
        divides(self, "heads", width, "the width")
        return GatedLinearAttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Float[Array, "b h k v"]:
        return empty(rows, self.heads, width // 2 // self.heads, width // self.heads)


class GatedLinearAttentionMixer(OuterMixer):
    """See `GatedLinearAttention`."""

    config: GatedLinearAttention

    def mix(self, x, source, context, last, state):
        c, keys = self.config, self.width // 2
        query, key, value = (
            to_heads(self.dense(name, features)(x), c.heads)
            for name, features in (("query", keys), ("key", keys), ("value", self.width))
        )
        # The logarithm of a decay close to 1 is lost in bfloat16: float32 from the low-rank vector on.
        low = self.dense("decay_low", c.rank)(x)
        decay = self.dense("decay", keys, bias=True, dtype=jnp.float32)(low)
        log_decay = to_heads(jax.nn.log_sigmoid(decay) / c.temperature, c.heads)
        mixed, after = read(query * (keys // c.heads) ** -0.5, key, value, log_decay, context, state)
        return self.gated(mixed, x, last), after
