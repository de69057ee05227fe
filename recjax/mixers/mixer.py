"""The interface of sequence mixers: the batch context, capabilities, the base module and the recipe."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.nn.dense import Dense
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Bool, Float, InputError, Int

State = Any
"""State of a mixer: a tree of arrays whose first axis is the row."""

Memory = Literal["none", "constant", "history"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SeqContext:
    """Segments, positions and times of a batch, computed once and shared by all mixers of a stack.

    Attributes:
        segments: number of the history that a position belongs to; 0 = padding.
        positions: index of a position inside its history, as the view numbers it.
        timestamps: unix seconds of each event, or None.
        continues: whether a row's first position continues the history of the given state; None = no row does.
    """

    segments: Int[Array, "b l"]
    positions: Int[Array, "b l"]
    timestamps: Int[Array, "b l"] | None = None
    continues: Bool[Array, " b"] | None = None

    @property
    def valid(self) -> Bool[Array, "b l"]:
        """Mask of events; a recurrence passes over the other positions."""
        return self.segments > 0

    @property
    def events(self) -> Int[Array, " b"]:
        """Number of events in each row."""
        return jnp.sum(self.valid, axis=1, dtype=jnp.int32)

    @property
    def starts(self) -> Bool[Array, "b l"]:
        """First events of histories, at which a recurrence resets."""
        first = jnp.ones_like(self.segments[:, 0], bool) if self.continues is None else ~self.continues
        changes = self.segments[:, 1:] != self.segments[:, :-1]
        return jnp.concatenate([first[:, None], changes], axis=1) & self.valid

    @property
    def ends(self) -> Bool[Array, "b l"]:
        """Last events of histories, at which a recurrence that runs backwards resets."""
        changes = self.segments[:, 1:] != self.segments[:, :-1]
        return jnp.concatenate([changes, jnp.ones_like(changes[:, :1])], axis=1) & self.valid

    def seconds(self, reader: str) -> Int[Array, "b l"]:
        """Timestamps for a mixer that requires them.

        Raises:
            InputError: the batch has no timestamps, which `reader` needs.
        """
        if self.timestamps is None:
            raise InputError(f"{reader} reads timestamps and the batch has none: set data.view.times=true")
        return self.timestamps


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a mixer; a stack refuses a composition that its mixers cannot serve.

    Attributes:
        causal: may be restricted to the past.
        bidirectional: may see both sides.
        packing: keeps the histories of a packed row apart.
        separate_query: takes queries from another stream than keys and values (SASRec's norm placement).
        positional: knows the order of events without position embeddings.
        memory: memory of the past when it runs event by event: "constant" (a state of fixed size), "history"
            (a cache of a given length), "none" (it cannot).
        seq_sharded: its positions may be sharded over the mesh's `seq` axis.
        times: reads timestamps.
    """

    causal: bool = True
    bidirectional: bool = False
    packing: bool = True
    separate_query: bool = False
    positional: bool = False
    memory: Memory = "none"
    seq_sharded: bool = False
    times: bool = False


class Mixer(nn.Module, ABC):
    """Base of sequence mixers, the modules that move information along time; a subclass writes `mix`.

    Input is normalised by the block; the output is neither added to the residual stream nor normalised. Gates, short
    convolutions and norms inside the mixer are the mixer's own.

    Attributes:
        config: the recipe that built the mixer.
        width: d, features of the input and the output.
        causal: forbid the future.
        dtype: compute type.
        zero_padding: whether `mix` sees zeros at padding, so that nothing there reaches a value or a gradient.
        use_bias: whether projections have a bias by default.

    Raises:
        InputError: a direction that the recipe's capabilities rule out.
    """

    config: Any
    width: int
    causal: bool
    dtype: Any

    zero_padding: ClassVar[bool] = False
    use_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        able = self.config.capabilities
        if not (able.causal if self.causal else able.bidirectional):
            direction = "causal" if self.causal else "bidirectional"
            raise InputError(f"{type(self.config).__name__} cannot be {direction}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        *,
        source: Float[Array, "b l d"] | None = None,
        last: Int[Array, "b *s"] | None = None,
        state: State | None = None,
    ) -> Any:
        """Mixes each history of the rows.

        With a state, each row is one history that resumes: its events are left-aligned, `context.continues` is set and
        padding changes nothing. For any cut of a history, x = x1 + x2:

            mixer(x) = mixer(x1) + mixer(x2, state after x1)

        so whole histories, chunks of any length and single events give the same outputs.

        Args:
            x: the stream, and the queries where keys and values have a stream of their own.
            context: segments, positions and times of the batch.
            source: the stream of keys and values, if it is not `x`.
            last: positions of each row whose output is needed, [b] or [b, s]; ranking needs few of the last layer.
            state: of `MixerConfig.init_state`, or of an earlier call.

        Returns:
            The output: [b, l, d], or [b, d] or [b, s, d] of the positions `last`. With a state, the pair of the output
            and the new state.

        Raises:
            InputError: a second stream for a mixer without a separate query.
        """
        if source is not None and not self.config.capabilities.separate_query:
            raise InputError(f"{type(self.config).__name__} takes queries, keys and values from one stream")
        if self.zero_padding:
            x = jnp.where(context.valid[..., None], x, 0)
        positions = None if last is None else last.reshape(last.shape[0], -1)
        y, after = self.mix(x, x if source is None else source, context, positions, state)
        if last is not None and last.ndim == 1:
            y = y[:, 0]
        return y if state is None else (y, after)

    @abstractmethod
    def mix(
        self,
        x: Float[Array, "b l d"],
        source: Float[Array, "b l d"],
        context: SeqContext,
        last: Int[Array, "b s"] | None,
        state: Any,
    ) -> tuple[Float[Array, "b *l d"], State | None]:
        """The mixer proper, inside the compact `__call__`.

        Args:
            x: the stream of queries.
            source: the stream of keys and values; `x` itself for a mixer without a separate query.
            context: segments, positions and times of the batch.
            last: positions of each row whose output is needed; None = all.
            state: of the rows' histories, or None.

        Returns:
            The output, [b, l, d], or [b, s, d] with `last`; and the new state, unused where none was given.
        """

    def dense(
        self,
        name: str,
        features: int | None = None,
        *,
        bias: bool | None = None,
        dtype: Any = None,
        scale: float | None = None,
    ) -> Dense:
        """A projection to `features`, by default `width`; `scale` is that of `kernel_init`."""
        return Dense(
            self.width if features is None else features,
            use_bias=self.use_bias if bias is None else bias,
            dtype=self.dtype if dtype is None else dtype,
            kernel_init=kernel_init(scale),
            name=name,
        )


class MixerConfig(Protocol):
    """The recipe of a mixer: a frozen dataclass.

    Parameters that need a smaller learning rate and no weight decay are declared by `recjax.nn.groups.ssm_params`.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the mixer as configured; a class attribute where they never change."""
        ...

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> Mixer: ...

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> State:
        """The state of `rows` empty histories; where memory is "history", with room for `max_length` events.

        Called only where `capabilities.memory` is not "none".
        """
        ...


def kernel_init(scale: float | None) -> nn.initializers.Initializer:
    """Normal with this standard deviation, or Xavier uniform without one."""
    return nn.initializers.xavier_uniform() if scale is None else nn.initializers.normal(scale)


def at_last(x: Array, last: Int[Array, "b *s"] | None) -> Array:
    """The positions `last` of each row, [b, l, ...] -> [b, s, ...], or all of them where it is None."""
    return x if last is None else take_position(x, last)


def to_heads(x: Float[Array, "b l d"], heads: int) -> Float[Array, "b h l c"]:
    """Features split into heads, which lead positions."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def from_heads(x: Float[Array, "b h l c"]) -> Float[Array, "b l d"]:
    """Heads joined to features again: the inverse of `to_heads`."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
