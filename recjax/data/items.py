"""Columns and relations of the items of one or several catalogs, as arrays on the devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.ops.items.embedding import table_rows
from recjax.ops.mesh_axes import axis_size
from recjax.typing import MODEL_AXIS, Array, Float, InputError, Int

VECTORS, CODES, KNOWN, DENSITY = "vectors", "codes", "known", "density"
"""Columns made of item texts: a text vector, its codes, whether there is a text, and how crowded it is around it."""

FILL = {DENSITY: 1}
"""Value of a column in rows that are no items, where it is not 0."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Relation:
    """Weighted links from each item to a few others, e.g. what users had next.

    Attributes:
        ids: linked items, ids from 1 in the item's own catalog, 0-padded.
        values: weight of each link, 0 where padded.
    """

    ids: Int[Array, "rows k"]
    values: Float[Array, "rows k"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Items:
    """All that models know of the items beside their ids: an argument of loss and scoring, laid out over the mesh.

    It may hold several catalogs one after another: item i of the current one (i from 1) is row `start + i`, so going
    from one catalog to another changes two integers and compiles nothing. Row 0 is padding. A model of item ids gets
    `Items` without columns.

    Attributes:
        start: int32 [], row before the current catalog's first item.
        size: int32 [], items of the current catalog.
        columns: arrays by name with a row for each item, [rows, ...].
        relations: links between items by name.
        prepared: arrays or pytrees of them that a model has made of the items for the parameters in use, see
            `recjax.models.model.Model.prepare`.
    """

    start: Array
    size: Array
    columns: dict[str, Array] = field(default_factory=dict)
    relations: dict[str, Relation] = field(default_factory=dict)
    prepared: dict[str, Any] = field(default_factory=dict)

    def rows(self, items: Int[Array, "..."]) -> Int[Array, "..."]:
        """Rows of items of the current catalog; padding stays 0."""
        return jnp.where(items > 0, self.start + items, 0)

    def __getitem__(self, name: str) -> Array:
        """A column.

        Raises:
            InputError: there is no such column; names those that there are.
        """
        if name not in self.columns:
            known = ", ".join(self.columns) or "none"
            raise InputError(f"the model reads {name!r} of each item, but the items have: {known}")
        return self.columns[name]

    @property
    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each column."""
        return {name: tuple(column.shape[1:]) for name, column in self.columns.items()}

    def relation(self, name: str) -> Relation:
        """A relation; InputError where there is no such one."""
        if name not in self.relations:
            known = ", ".join(self.relations) or "none"
            raise InputError(f"the model reads the relation {name!r} between items, but there are: {known}")
        return self.relations[name]

    def adding(self, features: Mapping[str, Any]) -> "Items":
        """The same with more columns and relations, or other values of those that there are."""
        relations = {name: found for name, found in features.items() if isinstance(found, Relation)}
        columns = {name: found for name, found in features.items() if name not in relations}
        return replace(self, columns={**self.columns, **columns}, relations={**self.relations, **relations})


def bare_items(size: int, columns: Mapping[str, Any] | None = None) -> Items:
    """Items of one catalog on the host: no columns by default, which is all that a model of item ids needs."""
    start, count = np.int32(0), np.int32(size)
    return Items(start, count, dict(columns or {}))  # pyright: ignore[reportArgumentType]


def text_items(
    vectors: np.ndarray, known: np.ndarray, codes: np.ndarray | None = None, density: np.ndarray | None = None
) -> Items:
    """Items of one catalog with the columns made of texts, on the host.

    Args:
        vectors: float [n + 1, d], row 0 padding; zeros where an item has no text.
        known: bool [n + 1], whether an item has text.
        codes: int [n + 1, slots], or None for no slots.
        density: float [n + 1], 1 on average, or None for 1 everywhere.
    """
    rows = len(vectors)
    codes = np.zeros((rows, 0), np.int32) if codes is None else codes.astype(np.int32)
    density = np.ones(rows, np.float32) if density is None else density.astype(np.float32)
    if len(known) != rows or len(codes) != rows or len(density) != rows:
        raise InputError(
            f"{rows} rows of vectors, but {len(known)} of known, {len(codes)} of codes, {len(density)} of density"
        )
    columns = {VECTORS: vectors.astype(np.float32), CODES: codes, KNOWN: known.astype(bool), DENSITY: density}
    return bare_items(rows - 1, columns)


def joined(parts: Sequence[Items]) -> tuple[Items, np.ndarray]:
    """Several catalogs end to end, on the host, and the `start` of each, int32 [catalogs].

    Raises:
        InputError: a column that only some have, or of different widths.
    """
    names = [set(part.columns) for part in parts]
    if any(found != names[0] for found in names):
        lacking = sorted(set.union(*names) - set.intersection(*names))
        raise InputError(f"catalogs of which only some have {', '.join(lacking)} cannot share items")
    for name in names[0]:
        if len(widths := {np.shape(part.columns[name])[1:] for part in parts}) > 1:
            raise InputError(f"catalogs with {name} of different widths cannot share items: {sorted(widths)}")
    sizes = np.array([int(part.size) for part in parts], np.int32)
    starts = np.cumsum(sizes, dtype=np.int32) - sizes
    ends = (sizes + 1).tolist()

    def concatenated(first: Any, *others: Any) -> Any:
        rest = zip(others, ends[1:], strict=True)
        return np.concatenate([np.asarray(first)[: ends[0]], *(np.asarray(x)[1:end] for x, end in rest)])

    columns, relations = (
        jax.tree.map(concatenated, *(getattr(part, what) for part in parts)) for what in ("columns", "relations")
    )
    return Items(starts[0], sizes[0], columns, relations), starts


def padded_rows(rows: int, parts: int) -> int:
    """Rows of a table on `parts` devices: as many on each, and whole registers of them, so that scoring copies none."""
    return -(-table_rows(rows) // parts) * parts


def by_rows(x: Float[Array, "rows d"]) -> Float[Array, "rows d"]:
    """An array with a row for each of the items', laid out as their columns are."""
    return jax.lax.with_sharding_constraint(x, PartitionSpec(MODEL_AXIS)) if axis_size(MODEL_AXIS) > 1 else x


def on_devices(items: Items, *, slack: float = 0.0) -> Items:
    """The items on the current mesh, rows over the model axis; `slack` is the share of rows left free for new ones."""
    mesh = jax.sharding.get_mesh()
    parts = 1 if mesh.empty else mesh.shape[MODEL_AXIS]

    def put(array: Any, axes: tuple[Any, ...], fill: float = 0) -> Any:
        array = np.asarray(array)
        if array.ndim:
            extra = padded_rows(int(len(array) * (1 + slack)), parts) - len(array)
            array = np.pad(array, [(0, extra)] + [(0, 0)] * (array.ndim - 1), constant_values=array.dtype.type(fill))
        return jax.device_put(array, None if mesh.empty else NamedSharding(mesh, PartitionSpec(*axes)))

    def table(array: Any, fill: float = 0) -> Any:
        return put(array, (MODEL_AXIS, *[None] * (np.ndim(array) - 1)), fill)

    return Items(
        put(items.start, ()),
        put(items.size, ()),
        {name: table(column, FILL.get(name, 0)) for name, column in items.columns.items()},
        jax.tree.map(table, items.relations),
    )


def by_catalog(items: Items, starts: Sequence[int], sizes: Sequence[int]) -> tuple[Items, ...]:
    """The joined items as each catalog sees them: the same arrays, another start and size, in place beside them."""
    sharding = getattr(items.start, "sharding", None)

    def scalar(value: int) -> Any:
        return jax.device_put(np.int32(value), sharding)

    return tuple(
        replace(items, start=scalar(start), size=scalar(size)) for start, size in zip(starts, sizes, strict=True)
    )
