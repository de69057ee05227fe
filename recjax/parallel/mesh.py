"""The device mesh: axes `data`, `model` and `seq`, any of size 1, so that one code path runs on a laptop and a pod."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from recjax.typing import MESH_AXES, InputError


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh.

    Attributes:
        data: rows of a batch; -1 = all the devices that the other axes leave.
        model: item tables and wide layers.
        seq: positions of a row.
    """

    data: int = -1
    model: int = 1
    seq: int = 1

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The size of each axis on so many devices.

        Raises:
            InputError: the axes do not multiply to `devices`; names the numbers.
        """
        asked = (self.data, self.model, self.seq)
        shown = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, asked, strict=True))
        if any(size < 1 and size != -1 for size in asked) or asked.count(-1) > 1:
            raise InputError(f"mesh {shown}: sizes are 1 or more, and at most one of them -1 (= the rest)")
        fixed = math.prod(size for size in asked if size != -1)
        rest, remainder = divmod(devices, fixed)
        if -1 in asked and remainder:
            raise InputError(f"mesh {shown}: {devices} devices cannot be divided by {fixed}")
        if -1 not in asked and fixed != devices:
            raise InputError(
                f"mesh {shown} is made of {fixed} devices, but there are {devices}; -1 for one axis takes the rest"
            )
        data, model, seq = (rest if size == -1 else size for size in asked)
        return data, model, seq

    def build(self, devices: Sequence[Any] | None = None) -> Mesh:
        """The mesh over `devices` (default: all of them, of every process); activate it with `jax.set_mesh`.

        Axes are `Auto`: `jax.make_mesh` would make them `Explicit`, under which Linen's `Embed` and `Dropout` fail.

        Raises:
            InputError: see `sizes`.
        """
        devices = jax.devices() if devices is None else list(devices)
        return jax.make_mesh(
            self.sizes(len(devices)), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices
        )
