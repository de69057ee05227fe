"""The axes along which a stream of events can be measured: what positions with several dimensions are made of."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from recjax.limits import SIZE, require
from recjax.mixers.mixer import SeqContext
from recjax.typing import Array, InputError, Int

Of = Literal["position", "item", "slot", "time"]


@dataclass(frozen=True)
class Axis:
    """One coordinate of every event of a history.

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
        """Of every event.

        Raises:
            InputError: an axis of time where the context has no timestamps.
        """
        if self.of == "position":
            return context.positions
        if self.of != "time":
            return context.positions // self.size if self.of == "item" else context.positions % self.size
        if context.timestamps is None:
            raise InputError("an axis of time needs timestamps; the data view has to give them (times=True)")
        return context.timestamps // self.size


def coordinates(axes: tuple[Axis, ...], context: SeqContext) -> Int[Array, "b l m"]:
    return jnp.stack([axis.coordinate(context) for axis in axes], axis=-1)
