"""The encoder: blocks of a mixer and a feed-forward network, repeated."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from recjax.mixers.mixer import MixerConfig, SeqContext
from recjax.nn.dropout import Dropout
from recjax.nn.feed_forward import Activation, FeedForward
from recjax.nn.norm import LayerNorm
from recjax.ops.embedding import take_position
from recjax.typing import Array, Float, InputError

Norm = Literal["sasrec", "pre", "post"]


@dataclass(frozen=True)
class Stack:
    """An encoder of `layers` blocks whose mixers follow `pattern`, repeated as often as needed.

    Norm placements, with M the mixer and F the feed-forward network:

    * `sasrec` (Kang & McAuley 2018): q = LN(x); x = q + M(q; keys and values x); x = LN(x); x = x + F(x);
    * `pre`: x = x + M(LN(x)); x = x + F(LN(x));
    * `post` (Vaswani et al. 2017): x = LN(x + M(x)); x = LN(x + F(x)).

    `sasrec` and `pre` end in one more LN.

    Attributes:
        pattern: mixer configs.
        layers: number of blocks.
        width: model width.
        causal: forbid the future.
        norm: placement of the normalisations.
        inner: width inside the feed-forward network.
        activation: of the feed-forward network.
        dropout: rate on the output of mixer and feed-forward network.
        init_scale: standard deviation of kernels, or None for Xavier uniform.
        remat: recompute each block in the backward pass instead of keeping its activations.
        dtype: compute type.
    """

    pattern: tuple[MixerConfig, ...]
    layers: int
    width: int
    causal: bool
    norm: Norm
    inner: int
    activation: Activation = "relu"
    dropout: float = 0.0
    init_scale: float | None = None
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        if self.layers < 1:
            raise InputError(f"an encoder needs at least one layer, not {self.layers}")
        for mixer in self.pattern:
            able, name = mixer.capabilities, type(mixer).__name__
            if self.norm == "sasrec" and not able.separate_query:
                raise InputError(f'norm "sasrec" needs a mixer with a separate query; {name} has none')
            if not (able.causal if self.causal else able.bidirectional):
                raise InputError(f"{name} cannot be {'causal' if self.causal else 'bidirectional'}")

    def mixer(self, layer: int) -> MixerConfig:
        return self.pattern[layer % len(self.pattern)]


class Block(nn.Module):
    """One mixer and one feed-forward network; see `Stack` for the norm placements."""

    stack: Stack
    layer: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], context: SeqContext, last: Array | None = None) -> Array:
        s = self.stack
        dtype = jnp.dtype(s.dtype)
        mixer = s.mixer(self.layer).build(width=s.width, causal=s.causal, dtype=dtype, name="mixer")
        init = nn.initializers.xavier_uniform() if s.init_scale is None else nn.initializers.normal(s.init_scale)
        feed_forward = FeedForward(s.inner, s.activation, s.dropout, init, dtype, name="feed_forward")
        mixer_norm, inner_norm = LayerNorm(dtype=dtype, name="mixer_norm"), LayerNorm(dtype=dtype, name="inner_norm")
        dropout = Dropout(s.dropout)

        def at_last(x: Array) -> Array:
            return x if last is None else take_position(x, last)

        if s.norm == "sasrec":
            query = mixer_norm(x)
            x = inner_norm(at_last(query) + dropout(mixer(query, context, source=x, last=last)))
            return x + feed_forward(x)
        if s.norm == "pre":
            x = at_last(x) + dropout(mixer(mixer_norm(x), context, last=last))
            return x + feed_forward(inner_norm(x))
        x = mixer_norm(at_last(x) + dropout(mixer(x, context, last=last)))
        return inner_norm(x + feed_forward(x))


class Encoder(nn.Module):
    """The blocks of a `Stack`, [b, l, d] -> [b, l, d]; with `last` int32 [b], only those positions, [b, d]."""

    stack: Stack

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"], context: SeqContext, last: Array | None = None) -> Any:
        block = nn.remat(Block) if self.stack.remat else Block
        for layer in range(self.stack.layers):
            final = layer == self.stack.layers - 1
            x = block(self.stack, layer, name=f"block_{layer}")(x, context, last if final else None)
        if self.stack.norm == "post":
            return x
        return LayerNorm(dtype=jnp.dtype(self.stack.dtype), name="norm")(x)
