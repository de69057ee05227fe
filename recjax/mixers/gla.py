"""Gated linear attention: linear attention whose channels forget as the events say."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.limits import SIZE, above, require
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.mixers.parts.outer import at_last, dense, empty, events_only, from_heads, per_head, read, to_heads
from recjax.nn.norm import RMSNorm
from recjax.typing import Array, Float


@dataclass(frozen=True)
class GatedLinearAttention:
    """Gated linear attention, GLA (Yang et al. 2024).

    S_t = diag(a_t) S_{t-1} + k_t v_t^T with a decay per key channel, a_t = sigmoid(W_2 W_1 x_t + c)^(1/16); queries and
    keys have half the width. What is read is normalised head by head and gated by SiLU.

    Attributes:
        heads: number of heads; divides half the width.
        rank: width between the two matrices of the decay.
        temperature: the decay is that root of the sigmoid, so that gates begin close to 1.
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
        per_head(width // 2, self.heads, "half a width")
        per_head(width, self.heads, "a width")
        return GatedLinearAttentionMixer(self, width, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Float[Array, "b h k v"]:
        return empty(rows, self.heads, width // 2 // self.heads, width // self.heads)


class GatedLinearAttentionMixer(nn.Module):
    """See `GatedLinearAttention`."""

    config: GatedLinearAttention
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
        c, keys = self.config, self.width // 2
        x = events_only(x, context, source, "GatedLinearAttention")
        query, key, value = (
            to_heads(dense(features, self.dtype, name)(x), c.heads)
            for name, features in (("query", keys), ("key", keys), ("value", self.width))
        )
        # The logarithm of a decay close to 1 is lost in bfloat16: float32 from the low-rank vector on.
        low = dense(c.rank, self.dtype, "decay_low")(x)
        decay = dense(keys, jnp.float32, "decay", bias=True)(low)
        log_decay = to_heads(jax.nn.log_sigmoid(decay) / c.temperature, c.heads)
        mixed, after = read(query * (keys // c.heads) ** -0.5, key, value, log_decay, context, state)
        mixed = RMSNorm(dtype=self.dtype, name="norm")(from_heads(mixed, last))
        gate = jax.nn.silu(dense(self.width, self.dtype, "gate")(at_last(x, last)))
        mixed = dense(self.width, self.dtype, "output")(mixed.reshape(gate.shape) * gate)
        return mixed if state is None else (mixed, after)
