"""Linear attention: attention without softmax, whose state has a fixed size."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax

from recjax.limits import SIZE, divides, require
from recjax.mixers.mixer import Capabilities, to_heads
from recjax.mixers.parts.outer import OuterMixer, empty, read
from recjax.ops.attention.segment_product import segment_product
from recjax.typing import Array, Float

Feature = Literal["elu", "relu", "identity"]


@dataclass(frozen=True)
class LinearAttention:
    """Linear attention (Katharopoulos et al. 2020) that normalises readings instead of weights.

    With a feature map f, o_t = norm(sum over i <= t of <f(q_t), f(k_i)> v_i), head by head: the root mean square norm
    takes the place of the sum of weights, which makes gradients explode where it is small (Qin et al. 2022, "The Devil
    in Linear Transformer"). It does not know the order of events.

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
        divides(self, "heads", width, "the width")
        return LinearAttentionMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Float[Array, "b h k v"]:
        channels = width // self.heads
        return empty(rows, self.heads, channels, channels)


class LinearAttentionMixer(OuterMixer):
    """See `LinearAttention`."""

    config: LinearAttention

    def mix(self, x, source, context, last, state):
        query, key, value = (to_heads(self.dense(name)(x), self.config.heads) for name in ("query", "key", "value"))
        query, key = self._features(query), self._features(key)
        if self.causal:
            mixed, after = read(query, key, value, None, context, state)
        else:
            mixed, after = segment_product(query, key, value, context.segments), None
        return self.dense("output")(self.normed(mixed, last)), after

    def _features(self, x: Array) -> Array:
        if self.config.feature == "elu":
            return nn.elu(x) + 1
        return jax.nn.relu(x) if self.config.feature == "relu" else x
