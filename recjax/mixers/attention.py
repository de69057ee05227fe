"""Multi-head softmax attention as a mixer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.ops.attention import attend_last, attention
from recjax.ops.embedding import take_position
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class Attention:
    """Multi-head scaled dot-product attention (Vaswani et al. 2017).

    Attributes:
        heads: number of heads; divides the width.
        dropout: rate on the attention weights.
        init_scale: standard deviation of the projections, or None for Xavier uniform.
    """

    heads: int = 1
    dropout: float = 0.0
    init_scale: float | None = None

    capabilities: ClassVar[Capabilities] = Capabilities(causal=True, bidirectional=True, separate_query=True)

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "AttentionMixer":
        if width % self.heads:
            raise InputError(f"{self.heads} attention heads do not divide a width of {width}")
        return AttentionMixer(self, width, causal, dtype, name=name)


class AttentionMixer(nn.Module):
    """See `Attention`."""

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
    ) -> Array:
        source = x if source is None else source
        batch, length, heads = source.shape[0], source.shape[1], self.config.heads
        if last is not None:
            x = take_position(x, last)[:, None]

        query, key, value = (
            self._dense(name)(stream).reshape(batch, -1, heads, self.width // heads).swapaxes(1, 2)
            for name, stream in (("query", x), ("key", source), ("value", source))
        )
        if last is None:
            random = self.make_rng("dropout") if self.config.dropout and self.has_rng("dropout") else None
            mixed = attention(
                query, key, value, context.segments, causal=self.causal, dropout=self.config.dropout, key=random
            )
            mixed = mixed.swapaxes(1, 2).reshape(batch, length, self.width)
        else:
            allowed = context.segments == take_position(context.segments, last)[:, None]
            if self.causal:
                allowed &= jnp.arange(length)[None] <= last[:, None]
            mixed = attend_last(query[:, :, 0], key, value, allowed).reshape(batch, self.width)
        return self._dense("output")(mixed)

    def _dense(self, name: str) -> nn.Dense:
        scale = self.config.init_scale
        init = nn.initializers.xavier_uniform() if scale is None else nn.initializers.normal(scale)
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name=name)
