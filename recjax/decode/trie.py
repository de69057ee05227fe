"""The items of a catalog as a trie of their codes, in arrays of fixed length.

A node of level d is a distinct prefix of d codes. Nodes of a level are sorted by prefix, so the children of a node are
neighbours: two integers say which. Below the last level the children are the items with that tuple of codes, sorted by
id; items that share a tuple are all kept. The first level, or the first two where their vocabularies are small, is a
dense table from codes to nodes.

All arrays are padded to what `capacity` items could need, so another catalog of the same capacity has the same shapes
and compiles nothing. A sub-catalog (`Trie.only`) is again such a trie: nodes without allowed items are not in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from recjax.typing import Array, Bool, InputError, Int

DENSE_TABLE = 2**16
"""Most entries of a dense table over two levels: all of them are scored for each query."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trie:
    """See the module; made by `build_trie`.

    Attributes:
        items: int32 [capacity], item ids sorted by codes, then by id; 0 where there are fewer.
        codes: of each level, int32 [nodes]: last code of each node's prefix.
        first: of each level, int32 [nodes + 1]: children of node j are first[j]..first[j + 1] - 1 of the next level, or
            of `items` below the last.
        table: int32 [size] or [size of slot 0, size of slot 1]: node of each prefix of so many codes; -1 where none.
        used: of each slot, bool [size]: codes of any item of the catalog, also of those not in a sub-catalog.
        count: int32 [], number of items.
    """

    items: Int[Array, " capacity"]
    codes: tuple[Array, ...]
    first: tuple[Array, ...]
    table: Array
    used: tuple[Array, ...]
    count: Int[Array, ""]

    @property
    def capacity(self) -> int:
        """Most items that arrays of these lengths can hold."""
        return self.items.shape[0]

    @property
    def slots(self) -> int:
        return len(self.codes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Vocabulary of each slot."""
        return tuple(used.shape[0] for used in self.used)

    def updated(self, codes: np.ndarray) -> "Trie":
        """The trie of a changed catalog, in arrays of the same lengths: functions compiled for this one serve it too.

        Args:
            codes: int [n + 1, slots], row 0 padding; all items, not only the new ones.

        Raises:
            InputError: more items than the capacity, or codes outside the vocabularies.
        """
        return build_trie(codes, self.sizes, capacity=self.capacity, dense=self.table.ndim)

    def only(self, allowed: Bool[Array, " m"]) -> "Trie":
        """The trie of a sub-catalog, made on the device and of the same shapes; once per mask, not per query.

        Args:
            allowed: by item id (entry 0 is padding); ids beyond its end are not allowed.
        """
        return _only(self, jnp.asarray(allowed))


def build_trie(
    codes: np.ndarray, sizes: Sequence[int], *, capacity: int | None = None, dense: int | None = None
) -> Trie:
    """Sorts a catalog on the host.

    Args:
        codes: int [n + 1, slots]: codes of item i in row i, row 0 padding.
        sizes: vocabulary of each slot.
        capacity: items to leave room for; n by default.
        dense: levels in the dense table, 1 or 2; by default 2 where that needs no more than `DENSE_TABLE` entries.

    Raises:
        InputError: more items than `capacity`, codes outside the vocabularies, or as many sizes as there are no slots.
    """
    codes = np.asarray(codes)
    sizes = tuple(int(size) for size in sizes)
    count, slots = len(codes) - 1, len(sizes)
    _check(codes, sizes, count if capacity is None else capacity)
    capacity = max(1, count if capacity is None else capacity)
    dense = _dense_levels(sizes) if dense is None else dense

    order = _order(codes[1:], sizes)
    ranked = codes[1:][order]
    starts = _starts(ranked)
    room = [min(capacity, math.prod(sizes[: level + 1])) for level in range(slots)]
    node_codes, first = [], []
    for level, begin in enumerate(starts):
        children = np.searchsorted(starts[level + 1], begin) if level + 1 < slots else begin
        total = len(starts[level + 1]) if level + 1 < slots else count
        node_codes.append(_padded(ranked[begin, level], room[level], 0))
        first.append(_padded(children, room[level] + 1, total))
    table = np.full(sizes[:dense], -1, np.int32)
    nodes = starts[dense - 1]
    table[tuple(ranked[nodes, level] for level in range(dense))] = np.arange(len(nodes))
    used = [np.isin(np.arange(size), ranked[:, slot]) for slot, size in enumerate(sizes)]
    return Trie(
        items=jnp.asarray(_padded(order + 1, capacity, 0)),
        codes=tuple(map(jnp.asarray, node_codes)),
        first=tuple(map(jnp.asarray, first)),
        table=jnp.asarray(table),
        used=tuple(map(jnp.asarray, used)),
        count=jnp.asarray(count, jnp.int32),
    )


def device_trie(
    codes: Int[Array, "rows slots"], sizes: Sequence[int], start: Array | int = 0, size: Array | int | None = None
) -> Trie:
    """The trie of one of the catalogs that share an array, made on the device; for use inside `jit`.

    It is that of `build_trie` for the rows of the catalog, with a capacity of all rows but the first. Codes are not
    checked: those outside the vocabularies lead nowhere sensible.

    Args:
        codes: of item i of the catalog in row `start + i`; row 0 is padding.
        sizes: vocabulary of each slot.
        start: row before the first item's; may be traced.
        size: items of the catalog, by default all rows but the first; may be traced.
    """
    sizes, slots, capacity = tuple(sizes), len(sizes), codes.shape[0] - 1
    if codes.shape[1] != slots or not slots or capacity < 1:
        raise InputError(f"codes of shape {codes.shape}; expected [items + 1, {slots}], one column a slot")
    if not jax.sharding.get_abstract_mesh().empty:
        codes = jax.lax.with_sharding_constraint(codes, PartitionSpec())  # sorted whole on every device
    place = jnp.arange(capacity)
    count = jnp.asarray(capacity if size is None else size, jnp.int32)
    codes = codes[jnp.minimum(start + 1 + place, capacity)].astype(jnp.int32)
    order = jnp.lexsort((*codes.T[::-1], place >= count))
    ranked, real = codes[order], place < count

    # Number of nodes up to each place, by level; a place where it grows begins one.
    new, nodes, begins = place == 0, [], []
    for level in range(slots):
        new |= ranked[:, level] != jnp.roll(ranked[:, level], 1)
        nodes.append(jnp.cumsum(new & real, dtype=jnp.int32) - 1)
        room = min(capacity, math.prod(sizes[: level + 1]))
        begins.append((room, jnp.where(new & real, nodes[-1], room + 1)))
    below = [*((node, node[-1] + 1) for node in nodes[1:]), (place.astype(jnp.int32), count)]
    dense = _dense_levels(sizes)
    room, begin = begins[dense - 1]
    table = jnp.full(sizes[:dense], -1, jnp.int32)
    outside = jnp.where(begin < room, ranked[:, 0], sizes[0])
    return Trie(
        items=jnp.where(real, order + 1, 0).astype(jnp.int32),
        codes=tuple(
            jnp.zeros(room, jnp.int32).at[begin].set(ranked[:, level], mode="drop")
            for level, (room, begin) in enumerate(begins)
        ),
        first=tuple(
            jnp.full(room + 1, total, jnp.int32).at[begin].set(children, mode="drop")
            for (room, begin), (children, total) in zip(begins, below, strict=True)
        ),
        table=table.at[outside, *(ranked[:, level] for level in range(1, dense))].set(nodes[dense - 1], mode="drop"),
        used=tuple(
            jnp.zeros(size, bool).at[jnp.where(real, ranked[:, slot], size)].set(True, mode="drop")
            for slot, size in enumerate(sizes)
        ),
        count=count,
    )


def _dense_levels(sizes: tuple[int, ...]) -> int:
    return 2 if len(sizes) > 1 and sizes[0] * sizes[1] <= DENSE_TABLE else 1


def _check(codes: np.ndarray, sizes: tuple[int, ...], capacity: int) -> None:
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or not len(codes) or not sizes:
        raise InputError(f"codes of shape {codes.shape}; expected [items + 1, {len(sizes)}], one column a slot")
    if len(codes) - 1 > capacity:
        raise InputError(
            f"{len(codes) - 1:,} items do not fit into a trie with a capacity of {capacity:,}; build one with more room"
        )
    for slot, size in enumerate(sizes):
        column = codes[1:, slot]
        if len(column) and (column.min() < 0 or column.max() >= size):
            item = 1 + int(np.flatnonzero((column < 0) | (column >= size))[0])
            raise InputError(f"item {item} has code {codes[item, slot]} in slot {slot}; expected 0 to {size - 1}")


def _order(codes: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Rows sorted by their codes, equal ones in their order."""
    if math.prod(sizes) < 2**63:
        keys = np.zeros(len(codes), np.int64)
        for slot, size in enumerate(sizes):
            keys = keys * size + codes[:, slot]
        return np.argsort(keys, kind="stable")
    return np.lexsort(codes.T[::-1])


def _starts(ranked: np.ndarray) -> list[np.ndarray]:
    """Of each level, the places in sorted codes [n, slots] where a new prefix begins."""
    new = np.zeros(len(ranked), bool)
    new[:1] = True
    starts = []
    for column in ranked.T:
        new[1:] |= column[1:] != column[:-1]
        starts.append(np.flatnonzero(new))
    return starts


def _padded(array: np.ndarray, length: int, fill: int) -> np.ndarray:
    out = np.full(length, fill, np.int32)
    out[: len(array)] = array
    return out


@jax.jit
def _only(trie: Trie, allowed: Array) -> Trie:
    open_ = allowed.at[trie.items].get(mode="fill", fill_value=False) & (trie.items > 0)
    keep, items = _kept(open_, trie.items)
    codes, first, table = [], [], trie.table
    # From the last level up: a node stays where a child does, and moves up by the nodes before it that do not.
    for level in reversed(range(trie.slots)):
        begin = keep[trie.first[level]]
        alive = begin[1:] > begin[:-1]
        total = begin[-1]
        keep, kept_codes, kept_first = _kept(alive, trie.codes[level], begin[:-1])
        nodes = jnp.arange(len(alive)) < keep[-1]
        codes.append(kept_codes)
        first.append(jnp.append(jnp.where(nodes, kept_first, total), total))
        if level + 1 == trie.table.ndim:
            node = jnp.maximum(trie.table, 0)
            table = jnp.where((trie.table >= 0) & alive[node], keep[node], -1)
    return replace(
        trie, items=items, codes=tuple(codes[::-1]), first=tuple(first[::-1]), table=table, count=jnp.sum(open_)
    )


def _kept(mask: Array, *arrays: Array) -> tuple[Array, ...]:
    """Number of true entries before each place (and the end), and the arrays without the others, 0-padded."""
    keep = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(mask, dtype=jnp.int32)])
    place = jnp.where(mask, keep[:-1], len(mask))
    return keep, *(jnp.zeros_like(x).at[place].set(x, mode="drop") for x in arrays)
