"""What one training sample is, and what the model is asked at evaluation time."""

from dataclasses import dataclass

import jax

from recjax.typing import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Packed rows: several histories share a row, told apart by `segments`.

    Attributes:
        items: item ids, 0 where padded.
        segments: 1, 2, ... for the histories of a row in order, 0 = padding.
        positions: index into the position table, as the view numbers it.
        targets: the item to predict at each position, 0 = none.
        weights: loss weight of each position, 0 = none.
        timestamps: unix seconds of each event, or None.
    """

    items: Int[Array, "b l"]
    segments: Int[Array, "b l"]
    positions: Int[Array, "b l"]
    targets: Int[Array, "b l"]
    weights: Float[Array, "b l"]
    timestamps: Int[Array, "b l"] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Queries:
    """Histories to recommend for, one a row, aligned to the left.

    Attributes:
        items: item ids (or the mask id a cloze view appends), 0 beyond `lengths`.
        positions: index into the position table, as the view numbers it.
        lengths: tokens of each row; 0 marks a row that only fills the batch up.
        seen: items never to be recommended to this user (the whole history, not only the window), 0-padded.
        timestamps: unix seconds of each event, or None.
    """

    items: Int[Array, "q l"]
    positions: Int[Array, "q l"]
    lengths: Int[Array, " q"]
    seen: Int[Array, "q s"]
    timestamps: Int[Array, "q l"] | None = None

    @property
    def valid(self) -> Bool[Array, " q"]:
        return self.lengths > 0
