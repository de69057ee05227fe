"""The mesh a sharded form runs on: whatever `jax.set_mesh` made current."""

import jax


def axis_size(name: str) -> int:
    """Devices along a mesh axis; 1 when no mesh is set or the mesh lacks the axis."""
    mesh = jax.sharding.get_abstract_mesh()
    return dict(mesh.shape).get(name, 1) if mesh is not None else 1
