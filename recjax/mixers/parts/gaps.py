"""Times since the event before, and queries made of them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.mixers.mixer import SeqContext
from recjax.mixers.parts.cache import Cache
from recjax.nn.dense import Dense
from recjax.nn.norm import LayerNorm
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float

DAY = 86_400


def log_days(context: SeqContext, cache: Cache | None = None) -> Float[Array, "b l"]:
    """log(1 + days since the event before); 0 for the first of a history.

    Args:
        context: segments and times of the events.
        cache: of the tokens before, where rows continue histories.
    """
    seconds = context.seconds("attention by intervals")
    before = seconds[:, :1]
    if cache is not None and cache.seconds is not None:
        before = take_position(cache.seconds, jnp.maximum(cache.length - 1, 0) % cache.room)[:, None]
    gap = seconds - jnp.concatenate([before, seconds[:, :-1]], axis=1)
    return jnp.where(context.starts | ~context.valid, 0.0, jnp.log1p(jnp.maximum(gap, 0).astype(jnp.float32) / DAY))


class IntervalQuery(nn.Module):
    """Queries of times alone: two layers without biases, so that no time since the event before is no query.

    Attributes:
        width: of the queries.
        dtype: compute type.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, days: Float[Array, "b l"]) -> Float[Array, "b l d"]:
        inner = Dense(max(self.width // 4, 1), use_bias=False, dtype=self.dtype, name="inner")(days[..., None])
        outer = Dense(self.width, use_bias=False, dtype=self.dtype, name="outer")(jax.nn.gelu(inner))
        return LayerNorm(dtype=self.dtype, name="norm")(outer)
