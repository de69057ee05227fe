"""The one interface of sequence mixers, and the context they share."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from recjax.typing import Array, Bool, Float, InputError, Int

State = Any
"""State of a mixer: a tree of arrays whose first axis is the row."""

Memory = Literal["none", "constant", "history"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SeqContext:
    """Context that every mixer of a stack needs of the batch, computed once.

    Attributes:
        segments: which history a position belongs to; 0 = padding.
        positions: index of a position inside its history, as the view numbers it.
        timestamps: unix seconds of each event, or None.
        continues: whether the first position of a row goes on with the history whose state the mixer is given, or None
            where no row does.
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
    def starts(self) -> Bool[Array, "b l"]:
        """First events of histories: where a recurrence forgets what stands before it in the row."""
        first = jnp.ones_like(self.segments[:, 0], bool) if self.continues is None else ~self.continues
        changes = self.segments[:, 1:] != self.segments[:, :-1]
        return jnp.concatenate([first[:, None], changes], axis=1) & self.valid

    @property
    def ends(self) -> Bool[Array, "b l"]:
        """Last events of histories, where a recurrence that runs backwards begins."""
        changes = self.segments[:, 1:] != self.segments[:, :-1]
        return jnp.concatenate([changes, jnp.ones_like(changes[:, :1])], axis=1) & self.valid

    def seconds(self, reader: str) -> Int[Array, "b l"]:
        """The timestamps, for a mixer that cannot do without; InputError where there are none."""
        if self.timestamps is None:
            raise InputError(f"{reader} reads timestamps and the batch has none: set data.view.times=true")
        return self.timestamps


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a mixer; a stack refuses a composition its mixers cannot serve.

    Attributes:
        causal: may be restricted to the past.
        bidirectional: may see both sides.
        packing: keeps the histories of a packed row apart.
        separate_query: may take its query from another stream than keys and values (SASRec's norm placement).
        positional: knows the order of events without position embeddings.
        memory: what it keeps of the past when it goes on event by event: "constant" (a state of one size), "history"
            (a cache that grows with the history, of a length given beforehand), "none" (it cannot).
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


class SequenceMixer(Protocol):
    """A Linen module that moves information along time.

    Input is normalised by the block; the result is neither added to the residual stream nor normalised. Gates, short
    convolutions and norms inside the mixer are the mixer's own.

    With `last` (int32 [b], the index of one position a row) only that position's output is returned, [b, d]: what
    ranking needs of the last layer. `source` gives keys and values from another stream where the capability says so.

    With `state` (of `MixerConfig.init_state`, or what an earlier call returned) each row is one history that goes on:
    its events stand at the left, `context.continues` is set, padding (segment 0) changes nothing, and the result is the
    pair (y, state). For any cut of a history, x = x1 + x2:

        mixer(x) = mixer(x1) + mixer(x2, state after x1)

    so a whole history, chunks of any length and single events give the same outputs.
    """

    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        *,
        source: Array | None = None,
        last: Array | None = None,
        state: State | None = None,
    ) -> Any: ...


class MixerConfig(Protocol):
    """The recipe of a mixer: a frozen dataclass.

    Parameters that want a smaller learning rate and no weight decay are declared by `recjax.nn.groups.ssm_params`.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Of the mixer as configured; a class attribute where they never change."""
        ...

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> SequenceMixer: ...

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> State:
        """The state of `rows` empty histories; where memory is "history", with room for `max_length` events.

        Called only where `capabilities.memory` is not "none".
        """
        ...
