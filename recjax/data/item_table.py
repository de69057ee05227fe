"""What is known of the items of one or several catalogs, as arrays on the devices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.ops.ambient import axis_size
from recjax.ops.embedding import table_rows
from recjax.typing import MODEL_AXIS, Array, Bool, Float, InputError, Int

COLUMNS = ("vectors", "codes", "known", "density")
"""Fields of an `ItemTable` that have a row for each item."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ItemTable:
    """Vectors and codes of items: what a model that reads texts looks up instead of an embedding per id.

    The table is an argument of every compiled function and stays on the devices; batches carry item ids only. It may
    hold several catalogs one after another: item i of the current one (i from 1) is row `start + i`, so going from one
    catalog to another changes two integers and compiles nothing. Row 0 is padding.

    Attributes:
        vectors: vector of each item, zeros where it has no text.
        codes: code of each item in each slot; no columns where the model uses none.
        known: whether the item has text.
        density: how crowded it is around the item in the space of the vectors, 1 on average.
        start: row before the current catalog's first item.
        size: items of the current catalog.
        represented: what user states are multiplied with to rank the items, where a model has made it beforehand for
            the parameters in use (`recjax.models.model.CatalogPreparer`).
    """

    vectors: Float[Array, "rows d"]
    codes: Int[Array, "rows slots"]
    known: Bool[Array, " rows"]
    density: Float[Array, " rows"]
    start: Int[Array, ""]
    size: Int[Array, ""]
    represented: Float[Array, "rows d"] | None = None

    def rows(self, items: Int[Array, "..."]) -> Int[Array, "..."]:
        """Rows of items of the current catalog; padding stays 0."""
        return jnp.where(items > 0, self.start + items, 0)


def item_table(
    vectors: np.ndarray, known: np.ndarray, codes: np.ndarray | None = None, density: np.ndarray | None = None
) -> ItemTable:
    """The table of one catalog, on the host.

    Args:
        vectors: float [n + 1, d], row 0 padding.
        known: bool [n + 1].
        codes: int [n + 1, slots], or None.
        density: float [n + 1], or None for 1 everywhere.
    """
    rows = len(vectors)
    codes = np.zeros((rows, 0), np.int32) if codes is None else codes.astype(np.int32)
    density = np.ones(rows, np.float32) if density is None else density.astype(np.float32)
    if len(known) != rows or len(codes) != rows or len(density) != rows:
        raise InputError(
            f"{rows} rows of vectors, but {len(known)} of known, {len(codes)} of codes, {len(density)} of density"
        )
    arrays: Any = (vectors.astype(np.float32), codes, known.astype(bool), density, np.int32(0), np.int32(rows - 1))
    return ItemTable(*arrays)


def joined(tables: Sequence[ItemTable]) -> tuple[ItemTable, np.ndarray]:
    """Several catalogs in one table, on the host, and the `start` of each, int32 [catalogs]."""
    columns = {name: [np.asarray(getattr(table, name)) for table in tables] for name in COLUMNS}
    for name in ("vectors", "codes"):
        if len(widths := {array.shape[1] for array in columns[name]}) > 1:
            raise InputError(f"catalogs with {name} of different widths cannot share a table: {sorted(widths)}")
    parts: Any = {name: np.concatenate([arrays[0][:1], *(a[1:] for a in arrays)]) for name, arrays in columns.items()}
    sizes = np.array([len(array) - 1 for array in columns["vectors"]], np.int32)
    starts = np.cumsum(sizes, dtype=np.int32) - sizes
    return ItemTable(**parts, start=starts[0], size=sizes[0]), starts


def padded_rows(rows: int, parts: int) -> int:
    """Rows of a table on `parts` devices: as many on each, and whole registers of them, so that scoring copies none."""
    return -(-table_rows(rows) // parts) * parts


def by_rows(x: Float[Array, "rows d"]) -> Float[Array, "rows d"]:
    """An array with a row for each of the table's, laid out as its columns are."""
    return jax.lax.with_sharding_constraint(x, PartitionSpec(MODEL_AXIS)) if axis_size(MODEL_AXIS) > 1 else x


def on_devices(table: ItemTable, *, slack: float = 0.0) -> ItemTable:
    """The table on the current mesh, rows over the model axis; `slack` is the share of rows left free for new items."""
    mesh = jax.sharding.get_mesh()
    rows = len(table.vectors)
    extra = padded_rows(int(rows * (1 + slack)), 1 if mesh.empty else mesh.shape[MODEL_AXIS]) - rows

    def put(array: Any, axes: tuple[Any, ...], fill: float = 0) -> Any:
        array = np.asarray(array)
        if array.ndim:
            array = np.pad(array, [(0, extra)] + [(0, 0)] * (array.ndim - 1), constant_values=array.dtype.type(fill))
        return jax.device_put(array, None if mesh.empty else NamedSharding(mesh, PartitionSpec(*axes)))

    return replace(
        table,
        vectors=put(table.vectors, (MODEL_AXIS, None)),
        codes=put(table.codes, (MODEL_AXIS, None)),
        known=put(table.known, (MODEL_AXIS,)),
        density=put(table.density, (MODEL_AXIS,), 1),
        start=put(table.start, ()),
        size=put(table.size, ()),
    )
