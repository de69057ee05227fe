"""The device mesh: axes `data`, `model` and `seq`, any of size 1, so that one code path runs on a laptop and a pod."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from recjax.limits import require
from recjax.parallel.processes import barrier
from recjax.typing import MESH_AXES, InputError

ShardState = Literal["none", "optimiser", "all"]
"""See `MeshShape.shard_state`."""


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh.

    Attributes:
        data: rows of a batch; -1 = all the devices that the other axes leave.
        model: item tables and wide layers.
        seq: positions of a row.
        shard_state: what is laid out over the data axis too, beside batches: "optimiser": its moments and the average
            of the parameters, so that a step sends half of an all-reduce for the gradients and the other half for the
            updates (ZeRO, stages 1 and 2; Rajbhandari et al. 2020); "all": the parameters as well, gathered once a
            step (stage 3).
    """

    data: int = -1
    model: int = 1
    seq: int = 1
    shard_state: ShardState = "none"

    def __post_init__(self) -> None:
        require(self)
        asked = [self.data, self.model, self.seq]
        if any(size < 1 and size != -1 for size in asked) or asked.count(-1) > 1:
            raise InputError(f"mesh {self._shown}: sizes are 1 or more, and at most one of them -1 (= the rest)")

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The size of each axis on so many devices.

        Raises:
            InputError: the axes do not multiply to `devices`; names the numbers.
        """
        asked, shown = (self.data, self.model, self.seq), self._shown
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

    def of_one_query(self) -> Mesh:
        """The mesh for one query at a time: its model axis alone where so many devices are here, else one device."""
        parts = self.model if 1 <= self.model <= jax.local_device_count() else 1
        return MeshShape(data=1, model=parts).build(jax.local_devices()[:parts])

    @property
    def _shown(self) -> str:
        return ", ".join(f"{axis}={getattr(self, axis)}" for axis in MESH_AXES)

    def build(self, devices: Sequence[Any] | None = None) -> Mesh:
        """The mesh over `devices` (default: all of them, of every process); activate it with `jax.set_mesh`.

        Axes are `Auto`: `jax.make_mesh` would make them `Explicit`, under which Linen's `Embed` and `Dropout` fail.
        Where devices are those of several TPU slices, the data axis goes over slices and the other axes stay inside
        one, so that only the exchange of gradients crosses the slow network.

        Raises:
            InputError: see `sizes`; or the data axis cannot be divided by the number of slices.
        """
        everywhere = devices is None
        devices = jax.devices() if devices is None else list(devices)
        sizes, types = self.sizes(len(devices)), (AxisType.Auto,) * len(MESH_AXES)
        slices = len({getattr(device, "slice_index", 0) for device in devices})
        if slices == 1:
            mesh = jax.make_mesh(sizes, MESH_AXES, axis_types=types, devices=devices)
            if everywhere:
                _connect(mesh)
            return mesh
        if sizes[0] % slices:
            raise InputError(
                f"mesh.data is {sizes[0]}, which {slices} slices do not divide: the data axis goes over them"
            )
        inside = (sizes[0] // slices, *sizes[1:])
        grid = mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices, allow_split_physical_axes=True)
        return Mesh(grid, MESH_AXES, axis_types=types)


def _connect(mesh: Mesh) -> None:
    """Lets the processes of CPUs connect along every group of axes, when all of them are here.

    XLA connects the members of a group as they first compute together, and gives up where one comes 30 s after another
    (a compilation on a busy host), whatever limits recjax has; once connected, they wait for each other.
    """
    if jax.process_count() == 1 or mesh.devices.flat[0].platform != "cpu":
        return
    whole, none = NamedSharding(mesh, PartitionSpec()), PartitionSpec()
    axes = [axis for axis in mesh.axis_names if mesh.shape[axis] > 1]
    groups = [group for size in range(len(axes)) for group in combinations(axes, size + 1)]
    programs = []
    for group in groups:
        total = partial(jax.lax.psum, axis_name=group)
        total = jax.jit(jax.shard_map(total, mesh=mesh, in_specs=none, out_specs=none, check_vma=False))
        programs.append(total.lower(jax.ShapeDtypeStruct((), np.float32, sharding=whole)).compile())
    barrier("devices")
    one = jax.make_array_from_callback((), whole, lambda _: np.float32(1.0))
    for program in programs:
        program(one).block_until_ready()
