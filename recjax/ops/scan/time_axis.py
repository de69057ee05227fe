"""Recurrences over a time axis that the mesh's `seq` axis shards: who holds what, and what crosses between devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.mesh_axes import axis_size
from recjax.typing import DATA_AXIS, SEQ_AXIS, Array


class TimeLayout(NamedTuple):
    """Layout of arrays of rows and positions on the ambient mesh.

    Attributes:
        sharded: whether positions are divided among devices.
        axes: mesh axes that a device's part of the work then handles itself; the others stay with the partitioner.
    """

    sharded: bool
    axes: tuple[str, ...]

    whole = PartitionSpec()

    @property
    def row(self) -> PartitionSpec:
        """Of arrays [b, ...]."""
        return PartitionSpec(DATA_AXIS if DATA_AXIS in self.axes else None)

    def along(self, axis: int) -> PartitionSpec:
        """Of arrays whose first axis are rows and whose axis `axis` are positions."""
        return PartitionSpec(*self.row, *(None,) * (axis - 1), SEQ_AXIS)

    def sum(self, x: Array) -> Array:
        """Over all devices; for use inside an island. Complex numbers by their parts: XLA:TPU refuses their sum."""
        if not self.sharded:
            return x
        if jnp.iscomplexobj(x):
            return jax.lax.complex(*jax.lax.psum((x.real, x.imag), self.axes))
        return jax.lax.psum(x, self.axes)

    def island(self, local: Any, in_specs: Any, out_specs: Any) -> Any:
        """`local`, on each device's own part where positions are sharded. It does its own communication, and
        its caller its own gradient.
        """
        if not self.sharded:
            return local
        return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs, axis_names=set(self.axes), check_vma=False)


def time_layout(x: Array, axis: int = 1) -> TimeLayout:
    """Of an array whose first axis are rows and whose axis `axis` are positions.

    Positions are sharded where the mesh has a `seq` axis that divides them, and single events therefore never.
    """
    rows, positions = axis_size(DATA_AXIS), axis_size(SEQ_AXIS)
    sharded = positions > 1 and x.shape[axis] % positions == 0
    return TimeLayout(sharded, (SEQ_AXIS,) if x.shape[0] % rows else (DATA_AXIS, SEQ_AXIS))


class AffineMaps(NamedTuple):
    """Maps h -> scale * h + offset of a state, or h -> offset where `cut`: what stretches of a row do to it.

    Attributes:
        scale: broadcasts to `offset`.
        offset: of the states' shape.
        cut: flags with the leading axes of `offset`, or None where nothing is cut. A cut state is not multiplied by 0,
            so that not even an infinity passes.
    """

    scale: Array
    offset: Array
    cut: Array | None

    def __call__(self, h: Array) -> Array:
        moved = self.scale * h
        return self.offset + (moved if self.cut is None else jnp.where(wide(self.cut, moved.ndim), 0, moved))

    def then(self, later: "AffineMaps") -> "AffineMaps":
        """These first, and the later ones on what they give."""
        scale = later.scale * self.scale
        if self.cut is None or later.cut is None:
            return AffineMaps(scale, later(self.offset), None)
        scale = jnp.where(wide(later.cut, scale.ndim), 0, scale)
        return AffineMaps(scale, later(self.offset), self.cut | later.cut)


def carry_over(maps: Callable[[Array], Array], h0: Array, reverse: bool) -> tuple[Array, Array]:
    """Inside an island: the state that reaches this device's positions, and the one that leaves the last device's.

    Args:
        maps: what this device's positions together do to a state; a tree of arrays, as `AffineMaps`.
        h0: the state before the first device's positions, known to all.
        reverse: the run goes from the last device to the first.
    """
    every = jax.tree.map(lambda x: jax.lax.all_gather(x, SEQ_AXIS), maps)
    last, before = jax.lax.scan(lambda h, maps: (maps(h), h), h0, every, reverse=reverse)
    return before[jax.lax.axis_index(SEQ_AXIS)], last


def wide(flags: Array, ndim: int) -> Array:
    """Flags with axes added behind, up to `ndim`, to select among arrays with as many."""
    return jnp.expand_dims(flags, tuple(range(flags.ndim, ndim)))
