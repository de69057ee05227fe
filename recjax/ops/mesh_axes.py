"""The mesh a sharded form runs on: whatever `jax.set_mesh` made current."""

import jax


def axis_size(name: str) -> int:
    """Devices along a mesh axis that are not taken apart yet.

    1 when no mesh is set, the mesh lacks the axis, or the caller is one of its devices, inside a `shard_map` over it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if name in mesh.manual_axes else dict(mesh.shape).get(name, 1)


def dividing_axis(name: str, size: int) -> str | None:
    """The mesh axis where it has several devices and divides an array's dimension of `size`; otherwise None."""
    devices = axis_size(name)
    return name if devices > 1 and size % devices == 0 else None


def platform() -> str:
    """Platform that is compiled for: that of the current mesh's devices, by default the backend's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
