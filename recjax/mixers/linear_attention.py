"""Attention without softmax: the sum over the past becomes a state of one size."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax

from recjax.limits import SIZE, require
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.mixers.parts.outer import dense, empty, events_only, from_heads, per_head, read, to_heads
from recjax.nn.norm import RMSNorm
from recjax.ops.attention.segment_product import segment_product
from recjax.typing import Array, Float

Feature = Literal["elu", "relu", "identity"]


@dataclass(frozen=True)
class LinearAttention:
    """Linear attention (Katharopoulos et al. 2020) that normalises what it reads, not the weights.

    With a feature map f, o_t = norm(sum over i <= t of <f(q_t), f(k_i)> v_i), head by head: the root mean square norm
    takes the place of the sum of weights, which makes gradients explode where it is small (Qin et al. 2022, "The Devil
    in Linear Transformer"). It knows no order of events.

    Attributes:
        heads: number of heads; divides the width.
        feature: feature map: "elu" (elu(x) + 1), "relu" or "identity".
    """

    heads: int = 1
    feature: Feature = "elu"

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, bidirectional=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE)

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "LinearAttentionMixer":
        per_head(width, self.heads, "a width")
        return LinearAttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Float[Array, "b h k v"]:
        channels = per_head(width, self.heads, "a width")
        return empty(rows, self.heads, channels, channels)


class LinearAttentionMixer(nn.Module):
    """See `LinearAttention`."""

    config: LinearAttention
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
        state: Array | None = None,
    ) -> Any:
        x = events_only(x, context, source, "LinearAttention")
        query, key, value = (
            to_heads(dense(self.width, self.dtype, name)(x), self.config.heads) for name in ("query", "key", "value")
        )
        query, key = self._features(query), self._features(key)
        if self.causal:
            mixed, after = read(query, key, value, None, context, state)
        else:
            mixed, after = segment_product(query, key, value, context.segments), None
        mixed = RMSNorm(dtype=self.dtype, name="norm")(from_heads(mixed, last))
        mixed = dense(self.width, self.dtype, "output")(mixed.reshape(*mixed.shape[:-2], self.width))
        return mixed if state is None else (mixed, after)

    def _features(self, x: Array) -> Array:
        if self.config.feature == "elu":
            return nn.elu(x) + 1
        return jax.nn.relu(x) if self.config.feature == "relu" else x
