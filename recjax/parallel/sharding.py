"""Layout of arrays on the mesh: parameters and optimiser state by rules, batches by rows."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from recjax.typing import DATA_AXIS, InputError

Axes = Sequence[Any]
"""Of each dimension: a mesh axis, a tuple of axes, or None; a `PartitionSpec` or a plain tuple."""


@dataclass(frozen=True)
class ShardingRules:
    """Ordered (path pattern, axes) pairs; the first pattern found in an array's path says how it is laid out.

    A path is the array's place in its tree, joined by slashes (`encoder/layer_0/mlp/kernel`); patterns are regular
    expressions, searched for anywhere in it. There is no default: an array that no pattern matches is an error, and so
    is a dimension that its mesh axes do not divide. End with `(".*", ())` to replicate the rest.

    Attributes:
        rules: the pairs.
    """

    rules: tuple[tuple[str, tuple[Any, ...]], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple((pattern, tuple(axes)) for pattern, axes in self.rules))
        for pattern, _ in self.rules:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"sharding rule {pattern!r} is not a regular expression: {error}") from None

    def spec(self, path: str, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
        """Layout of one array.

        Raises:
            InputError: no rule matches; or the one that does names an axis that the mesh lacks, names more dimensions
                than there are, or does not divide one. Says the path, shape and axis.
        """
        for pattern, axes in self.rules:
            if re.search(pattern, path):
                _check(path, tuple(shape), axes, mesh, f"rule {pattern!r}")
                return PartitionSpec(*axes)
        known = ", ".join(repr(pattern) for pattern, _ in self.rules) or "none"
        raise InputError(f"no sharding rule matches {path} {tuple(shape)}; rules: {known}")

    def shard(self, params: Any, mesh: Mesh) -> Any:
        """A tree of `NamedSharding` for a tree of parameters, real or abstract."""
        return jax.tree.map_with_path(
            lambda path, leaf: NamedSharding(mesh, self.spec(_text(path), leaf.shape, mesh)), params
        )

    def shard_state(self, state: Any, params: Any, mesh: Mesh) -> Any:
        """A tree of `NamedSharding` for a training state: anything that holds trees shaped like `params`.

        Moments, averages and accumulated gradients carry the parameter's path at the end of their own
        (`opt_state/0/mu/` + `encoder/...`) and its shape, and get its layout. An array that stands in a parameter's
        place with another shape (a factored second moment) and all scalars, keys and counters are replicated; any
        other array needs a rule of its own.

        Args:
            state: the state, real or abstract (`jax.eval_shape`).
            params: the parameters, real or abstract.
            mesh: where to.

        Raises:
            InputError: see `spec`.
        """
        specs = {
            _text(path): (leaf.shape, self.spec(_text(path), leaf.shape, mesh))
            for path, leaf in jax.tree.leaves_with_path(params)
        }

        def place(path, leaf) -> NamedSharding:
            if not leaf.shape:
                return NamedSharding(mesh, PartitionSpec())
            found = _trailing(_text(path), specs)
            if found is None:
                return NamedSharding(mesh, self.spec(_text(path), leaf.shape, mesh))
            shape, spec = found
            return NamedSharding(mesh, spec if shape == leaf.shape else PartitionSpec())

        return jax.tree.map_with_path(place, state)


def over_data(sharding: NamedSharding, shape: Sequence[int]) -> NamedSharding:
    """A layout that is cut over the data axis as well.

    It is cut along the dimension that is longest on a device among those that the axis divides; an array without one
    (norms and biases of odd sizes, scalars) stays as it is.
    """
    mesh, spec = sharding.mesh, [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    held = [() if names is None else names if isinstance(names, tuple) else (names,) for names in spec]
    if mesh.shape[DATA_AXIS] == 1 or any(DATA_AXIS in names for names in held):
        return sharding
    local = sharding.shard_shape(tuple(shape))
    fitting = [place for place, size in enumerate(local) if size % mesh.shape[DATA_AXIS] == 0]
    if not fitting:
        return sharding
    chosen = max(fitting, key=lambda place: local[place])
    spec[chosen] = (*held[chosen], DATA_AXIS) if held[chosen] else DATA_AXIS
    return NamedSharding(mesh, PartitionSpec(*spec))


def _text(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _trailing(path: str, known: Mapping[str, Any]) -> Any:
    """The entry of `known` whose key is the longest end of `path`."""
    parts = path.split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[end] for end in ends if end in known), None)


def _check(path: str, shape: tuple[int, ...], axes: tuple[Any, ...], mesh: Mesh, rule: str) -> None:
    if len(axes) > len(shape):
        raise InputError(f"{rule} lays out {len(axes)} dimensions, but {path} has shape {shape}")
    for dimension, names in enumerate(axes):
        names = () if names is None else names if isinstance(names, tuple) else (names,)
        for name in names:
            if name not in mesh.shape:
                raise InputError(f"{rule} for {path} names axis {name!r}, but the mesh has {', '.join(mesh.shape)}")
        parts = math.prod(mesh.shape[name] for name in names)
        if shape[dimension] % parts:
            raise InputError(
                f"{path} {shape}: dimension {dimension} ({shape[dimension]}) cannot be divided by "
                f"mesh axis {'+'.join(names)} ({parts}), as {rule} asks"
            )


def row_sharding() -> NamedSharding | None:
    """Rows over the data axis of the current mesh; None when no mesh is set.

    Raises:
        InputError: several processes and no mesh.
    """
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        if jax.process_count() > 1:
            raise InputError(f"there are {jax.process_count()} processes but no mesh: set one with jax.set_mesh")
        return None
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def batch_sharding(rows: int) -> NamedSharding | None:
    """`row_sharding` for batches of so many rows.

    Raises:
        InputError: the mesh's data axis does not divide them; names the nearest numbers that it does.
    """
    sharding = row_sharding()
    size = data_size(sharding)
    if rows % size:
        assert sharding is not None
        shape = ", ".join(f"{axis}={n}" for axis, n in sharding.mesh.shape.items())
        below = rows - rows % size
        near = f"{below} or {below + size}" if below else f"{size}"
        raise InputError(
            f"rows = {rows} cannot be divided by the data axis of the mesh ({shape}; "
            f"{jax.process_count()} process(es)); rows = {near} can"
        )
    return sharding


def data_size(sharding: NamedSharding | None) -> int:
    """Devices along the data axis."""
    return 1 if sharding is None else sharding.mesh.shape[DATA_AXIS]


def local_rows(sharding: NamedSharding | None, rows: int) -> np.ndarray:
    """int64, the rows of a global batch of `rows` that this process's devices hold, in order."""
    if sharding is None:
        return np.arange(rows)
    held = {part[0].indices(rows)[:2] for part in sharding.addressable_devices_indices_map((rows,)).values() if part}
    return np.concatenate([np.arange(*bounds) for bounds in sorted(held)])


def to_devices(local: Any, sharding: NamedSharding | None, rows: int) -> Any:
    """A tree of NumPy arrays holding this process's rows -> global arrays of `rows` rows, still on their way."""
    if sharding is None or jax.process_count() == 1:
        return jax.device_put(local, sharding)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array, (rows, *array.shape[1:])), local
    )
