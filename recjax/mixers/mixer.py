"""The one interface of sequence mixers, and the context they share."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax

from recjax.typing import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SeqContext:
    """What every mixer of a stack needs to know of the batch, computed once.

    Attributes:
        segments: which history a position belongs to; 0 = padding.
        positions: index of a position inside its history, as the view numbers it.
        timestamps: unix seconds of each event, or None.
    """

    segments: Int[Array, "b l"]
    positions: Int[Array, "b l"]
    timestamps: Int[Array, "b l"] | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a mixer can do; a stack refuses a composition its mixers cannot serve.

    Attributes:
        causal: may be restricted to the past.
        bidirectional: may see both sides.
        packing: keeps the histories of a packed row apart.
        separate_query: may take its query from another stream than keys and values (SASRec's norm placement).
        positional: knows the order of events without position embeddings.
    """

    causal: bool = True
    bidirectional: bool = False
    packing: bool = True
    separate_query: bool = False
    positional: bool = False


class SequenceMixer(Protocol):
    """A Linen module that moves information along time.

    Input is normalised by the block; the result is neither added to the residual stream nor normalised. With `last`
    (int32 [b], the index of one position a row) only that position's output is returned, [b, d]: what ranking needs
    of the last layer. `source` gives keys and values from another stream where the capability says so.
    """

    def __call__(
        self, x: Float[Array, "b l d"], context: SeqContext, *, source: Array | None = None, last: Array | None = None
    ) -> Array: ...


class MixerConfig(Protocol):
    """The recipe of a mixer: a frozen dataclass."""

    capabilities: ClassVar[Capabilities]

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> SequenceMixer: ...
