"""The encoder: a stack of blocks, each a mixer and a feed-forward network."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.limits import LAYERS, RATE, SIZE, WIDEST, above, refuse, require, within
from recjax.mixers.mixer import MixerConfig, SeqContext, State, at_last, kernel_init
from recjax.nn.dropout import Dropout
from recjax.nn.feed_forward import Activation, FeedForward
from recjax.nn.norm import LayerNorm
from recjax.ops.items.embedding import take_position
from recjax.ops.scan.short_conv import short_conv
from recjax.typing import Array, Dtype, Float, InputError

Norm = Literal["sasrec", "pre", "post"]


@dataclass(frozen=True)
class Stack:
    """An encoder of `layers` blocks whose mixers follow `pattern`, repeated.

    Norm placements, with M the mixer and F the feed-forward network:

    * `sasrec` (Kang & McAuley 2018): q = LN(x); x = q + M(q; keys and values x); x = LN(x); x = x + F(x);
    * `pre`: x = x + M(LN(x)); x = x + F(LN(x));
    * `post` (Vaswani et al. 2017): x = LN(x + M(x)); x = LN(x + F(x)).

    Blocks without a feed-forward network end before F and its LN.

    `sasrec` and `pre` end in one more LN.

    Attributes:
        pattern: mixer configs.
        layers: number of blocks.
        width: model width.
        causal: forbid the future.
        norm: placement of the normalisations.
        inner: width inside the feed-forward network; 0 for blocks of a mixer alone.
        activation: of the feed-forward network.
        dropout: rate on the output of mixer and feed-forward network.
        init_scale: standard deviation of kernels, or None for Xavier uniform.
        remat: recompute each block in the backward pass instead of keeping its activations.
        query_window: last inputs of its history whose mean is the query of an event, in blocks of norm "sasrec"
            (L-query attention, Zhu et al. 2024); 1 for the event itself. Else the encoder reads whole histories.
        scan: compile one period of the pattern and scan over its stacked parameters, so that a deep encoder compiles
            as fast as a shallow one; `layers` is then a multiple of the pattern's length.
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
    query_window: int = 1
    scan: bool = False
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        require(self, layers=LAYERS, width=SIZE, inner=within(0, WIDEST), dropout=RATE, init_scale=above(0))
        require(self, query_window=SIZE)
        if self.query_window > 1 and self.norm != "sasrec":
            refuse(self, "query_window", f'1 where the norm is "{self.norm}", whose blocks have no query of their own')
        if not self.pattern:
            refuse(self, "pattern", "at least one mixer")
        if self.scan and self.layers % len(self.pattern):
            raise InputError(
                f"{self.layers} layers are no multiple of the pattern's {len(self.pattern)} mixers, as `scan` needs"
            )
        for mixer in dict.fromkeys(self.pattern):
            able, name = mixer.capabilities, type(mixer).__name__
            if self.norm == "sasrec" and not able.separate_query:
                raise InputError(f'norm "sasrec" needs a mixer with a separate query; {name} has none')
            if not (able.causal if self.causal else able.bidirectional):
                raise InputError(f"{name} cannot be {'causal' if self.causal else 'bidirectional'}")

    def check(self) -> None:
        """Raises InputError where a mixer refuses the width; for use outside of modules."""
        for mixer in dict.fromkeys(self.pattern):
            mixer.build(width=self.width, causal=self.causal, dtype=self.dtype, name="mixer")

    def mixer(self, layer: int) -> MixerConfig:
        return self.pattern[layer % len(self.pattern)]

    @property
    def used(self) -> tuple[MixerConfig, ...]:
        """The mixers of the layers; a pattern may be longer than the stack."""
        return self.pattern[: self.layers]

    @property
    def packing(self) -> bool:
        """True if every mixer keeps the histories of a packed row apart."""
        return all(mixer.capabilities.packing for mixer in self.used)

    @property
    def positional(self) -> bool:
        """True if some mixer knows the order of events, so that no position embeddings are needed."""
        return any(mixer.capabilities.positional for mixer in self.used)

    def init_state(self, rows: int, max_length: int) -> tuple[State, ...]:
        """The states of `rows` empty histories, one a layer.

        Args:
            rows: histories.
            max_length: room of a mixer with memory "history", in events.

        Raises:
            InputError: a mixer cannot be advanced event by event, or the encoder is not causal.
        """
        unable = [type(mixer).__name__ for mixer in self.used if mixer.capabilities.memory == "none"]
        unable += ["attention by means of windows"] * (self.query_window > 1)
        if unable or not self.causal:
            who = f"{', '.join(dict.fromkeys(unable))} cannot" if unable else "an encoder that sees both sides cannot"
            raise InputError(f"{who} be advanced event by event; causal mixers with a memory can")
        dtype = jnp.dtype(self.dtype)
        return tuple(
            self.mixer(layer).init_state(width=self.width, rows=rows, max_length=max_length, dtype=dtype)
            for layer in range(self.layers)
        )


def window_mean(x: Float[Array, "b l d"], context: SeqContext, window: int) -> Float[Array, "b l d"]:
    """Mean of the last `window` positions of the same history, of fewer at its beginning."""
    totals, counts = (
        short_conv(y, jnp.ones((window, y.shape[2])), starts=context.starts)[0] for y in (x, jnp.ones_like(x[..., :1]))
    )
    return totals / counts


class Block(nn.Module):
    """One mixer and one feed-forward network; see `Stack` for the norm placements.

    Returns x and, given the mixer's state, the pair of x and the new state.
    """

    stack: Stack
    layer: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        last: Array | None = None,
        state: State | None = None,
    ) -> Any:
        s = self.stack
        dtype = jnp.dtype(s.dtype)
        mixer = s.mixer(self.layer).build(width=s.width, causal=s.causal, dtype=dtype, name="mixer")
        mixer_norm = LayerNorm(dtype=dtype, name="mixer_norm")
        dropout = Dropout(s.dropout)

        def mix(x: Array, **streams: Array) -> Array:
            nonlocal state
            if state is None:
                return dropout(mixer(x, context, last=last, **streams))
            mixed, state = mixer(x, context, state=state, **streams)
            return dropout(mixed)

        resumes = state is not None
        if s.norm == "sasrec":
            query = mixer_norm(x if s.query_window == 1 else window_mean(x, context, s.query_window))
            x = at_last(query, last) + mix(query, source=x)
        elif s.norm == "pre":
            x = at_last(x, last) + mix(mixer_norm(x))
        else:
            x = mixer_norm(at_last(x, last) + mix(x))
        if s.inner:
            inner_norm = LayerNorm(dtype=dtype, name="inner_norm")
            init = kernel_init(s.init_scale)
            feed_forward = FeedForward(s.inner, s.activation, s.dropout, init, dtype, name="feed_forward")
            if s.norm == "sasrec":
                x = inner_norm(x)
                x = x + feed_forward(x)
            elif s.norm == "pre":
                x = x + feed_forward(inner_norm(x))
            else:
                x = inner_norm(x + feed_forward(x))
        return (x, state) if resumes else x


class Period(nn.Module):
    """The blocks of one pass over a stack's pattern, as the body of a scan over their stacked parameters."""

    stack: Stack

    @nn.compact
    def __call__(self, x: Array, states: tuple[State, ...] | None, context: SeqContext) -> Any:
        block = nn.remat(Block) if self.stack.remat else Block
        after = []
        for layer in range(len(self.stack.pattern)):
            run = block(self.stack, layer, name=f"block_{layer}")
            if states is None:
                x = run(x, context)
            else:
                x, state = run(x, context, None, states[layer])
                after.append(state)
        return x, (tuple(after) if states is not None else None)


class Encoder(nn.Module):
    """The blocks of a `Stack`, [b, l, d] -> [b, l, d].

    With `last` int32 [b] or [b, s], only those positions of each row, [b, d] or [b, s, d]. With `state`, of
    `Stack.init_state` or of an earlier call, rows are histories that resume (see `Mixer`), and the result is the pair
    of the output and the new state.
    """

    stack: Stack

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        last: Array | None = None,
        state: tuple[State, ...] | None = None,
    ) -> Any:
        x, state = self._scanned(x, context, last, state) if self.stack.scan else self._blocks(x, context, last, state)
        if self.stack.norm != "post":
            x = LayerNorm(dtype=jnp.dtype(self.stack.dtype), name="norm")(x)
        return x if state is None else (x, state)

    def _blocks(self, x, context, last, state):
        block = nn.remat(Block) if self.stack.remat else Block
        after = []
        for layer in range(self.stack.layers):
            run = block(self.stack, layer, name=f"block_{layer}")
            if state is None:
                x = run(x, context, last if layer == self.stack.layers - 1 else None)
            else:
                x, new = run(x, context, None, state[layer])
                after.append(new)
        if state is not None and last is not None:
            x = take_position(x, last)
        return x, tuple(after) if state is not None else None

    def _scanned(self, x, context, last, state):
        width = len(self.stack.pattern)
        periods = self.stack.layers // width
        # Stacked behind the rows, so that a state's first axis is the row here too.
        states = None
        if state is not None:
            states = tuple(
                jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *state[layer::width]) for layer in range(width)
            )
        run = nn.scan(
            Period,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(1, nn.broadcast),  # pyright: ignore[reportArgumentType]
            out_axes=1,
            length=periods,
        )
        x, after = run(self.stack, name="periods")(x, states, context)
        if last is not None:
            x = take_position(x, last)
        if state is None:
            return x, None
        split = [
            jax.tree.map(lambda leaf, period=period: leaf[:, period], after[layer])
            for period in range(periods)
            for layer in range(width)
        ]
        return x, tuple(split)
