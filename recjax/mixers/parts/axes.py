"""Axes along which events are counted: the coordinates of multi-dimensional positions."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from recjax.limits import SIZE, require
from recjax.mixers.mixer import SeqContext
from recjax.typing import Array, Int

Of = Literal["position", "item", "slot", "time"]


@dataclass(frozen=True)
class Axis:
    """One coordinate of the events of a history.

    Attributes:
        of: "position", as the view numbers them; "item" and "slot", the number of the item and the place in it, where
            positions number tokens of which `size` make an item; "time", the number of the time bucket.
        size: tokens of an item; seconds of a time bucket (86,400: calendar days in UTC).
    """

    of: Of = "position"
    size: int = 1

    def __post_init__(self) -> None:
        require(self, size=SIZE)

    def coordinate(self, context: SeqContext) -> Int[Array, "b l"]:
        """The coordinate of every event.

        Raises:
            InputError: an axis of time and a batch without timestamps.
        """
        if self.of == "position":
            return context.positions
        if self.of != "time":
            return context.positions // self.size if self.of == "item" else context.positions % self.size
        return context.seconds("an axis of time") // self.size


def coordinates(axes: tuple[Axis, ...], context: SeqContext) -> Int[Array, "b l m"]:
    """The coordinates of every event on all axes."""
    return jnp.stack([axis.coordinate(context) for axis in axes], axis=-1)
