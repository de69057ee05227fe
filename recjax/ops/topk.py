"""Best items of a catalog, and the rank of one item in it, without ever holding `[queries, items]` scores.

The score of an item is `user . item (+ bias)`, in float32 at the highest matmul precision, on every backend. Both
functions walk over blocks of queries and, inside them, over chunks of items, so that no more than `QUERY_BLOCK x chunk`
scores exist at a time. The order of items is total: higher score first, then smaller id; equal scores (0.0 and -0.0
are equal) never help anyone.

With a mesh, queries are sharded over the data axis and table rows over the model axis: each device ranks its own rows,
and only lists of `k` items, or counts, cross the model axis.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.ambient import axis_size
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Bool, Float, Int

QUERY_BLOCK = 256
"""Most queries scored at a time on a device."""

ITEM_CHUNK = 16_384
"""Most items scored at a time on a device: 16 MB of scores for a block of queries."""


@partial(jax.jit, static_argnames=("k", "n_items", "chunk"))
def masked_topk(
    users: Float[Array, "q d"],
    table: Float[Array, "v d"],
    seen: Int[Array, "q s"],
    k: int,
    *,
    bias: Float[Array, " v"] | None = None,
    candidates: Bool[Array, " n"] | None = None,
    n_items: int | None = None,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """The `k` best items of each query.

    Args:
        users: user states.
        table: item vectors; row 0 and rows above `n_items` are no items.
        seen: ids never to be returned, in any order, repeats allowed, padded with 0.
        k: length of the lists; may exceed the catalog.
        bias: added to each item's score.
        candidates: the only items that may be returned, by id; shorter than the table where that is padded.
        n_items: largest item id; `v - 1` by default.
        chunk: most items scored at a time.

    Returns:
        Items and scores, best first. A list that runs out ends in item 0 with score -inf. A query with a score that is
        not finite gets items 0 and scores NaN.
    """
    part = partial(_topk_part, k=k, n_items=table.shape[0] - 1 if n_items is None else n_items, chunk=chunk)
    return _over_mesh(part, users, (seen,), table, bias, candidates)


@partial(jax.jit, static_argnames=("n_items", "chunk"))
def masked_rank(
    users: Float[Array, "q d"],
    table: Float[Array, "v d"],
    targets: Int[Array, " q"],
    seen: Int[Array, "q s"],
    *,
    bias: Float[Array, " v"] | None = None,
    candidates: Array | None = None,
    n_items: int | None = None,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Rank of one item a query: 1 + unseen items with a higher score + unseen items with that score and a smaller id.

    No list is sorted: better items are counted. The target competes even where it is seen or no candidate.

    Args:
        users: user states.
        table: item vectors; row 0 and rows above `n_items` are no items.
        targets: item ids in 1..n_items (a query that only fills the batch up may have 0).
        seen: ids that do not compete, in any order, repeats allowed, padded with 0.
        bias: added to each item's score.
        candidates: the only items that compete: bool by item id, the same for all queries; or int32 [q, c] ids of
            each query without repeats, 0-padded.
        n_items: largest item id; `v - 1` by default.
        chunk: most items scored at a time.

    Returns:
        Ranks, and scores of the targets. A query with a score that is not finite gets rank 0 and score NaN.
    """
    limit = table.shape[0] - 1 if n_items is None else n_items
    if candidates is not None and candidates.dtype != jnp.bool_:
        part = partial(_rank_among_part, n_items=limit)
        return _over_mesh(part, users, (seen, targets, candidates), table, bias, None)
    part = partial(_rank_part, n_items=limit, chunk=chunk)
    return _over_mesh(part, users, (seen, targets), table, bias, candidates)


class _Rows(NamedTuple):
    """The rows of the table that this device owns.

    Attributes:
        table: [r, d].
        bias: [r] or None.
        candidates: bool [r] or None.
        first: global id of row 0.
        axis: name of the mesh axis that rows are sharded over, or None.
    """

    table: Array
    bias: Array | None
    candidates: Array | None
    first: Array | int
    axis: str | None

    def total(self, x: Array) -> Array:
        """Sum over all owners of rows."""
        return x if self.axis is None else jax.lax.psum(x, self.axis)


def _over_mesh(
    part: Callable, users: Array, queries: tuple, table: Array, bias: Array | None, candidates: Array | None
):
    """Runs `part(users, *queries, rows)` over blocks of queries, inside a `shard_map` island where there is a mesh."""
    if candidates is not None:
        candidates = jnp.pad(candidates, (0, table.shape[0] - candidates.shape[0]))
    data, model = axis_size(DATA_AXIS), axis_size(MODEL_AXIS)
    if data * model == 1:
        return _over_blocks(part, users, queries, _Rows(table, bias, candidates, 0, None))

    def local(users: Array, queries: tuple, table: Array, bias: Array | None, candidates: Array | None):
        first = jax.lax.axis_index(MODEL_AXIS) * table.shape[0]
        return _over_blocks(part, users, queries, _Rows(table, bias, candidates, first, MODEL_AXIS))

    def padded(tree: Any, parts: int) -> Any:
        return jax.tree.map(lambda x: jnp.pad(x, [(0, -x.shape[0] % parts)] + [(0, 0)] * (x.ndim - 1)), tree)

    count = users.shape[0]
    by_data, by_model = PartitionSpec(DATA_AXIS), PartitionSpec(MODEL_AXIS)
    # Lists are equal on all devices of the model axis after the exchange, which the checker cannot see.
    island = jax.shard_map(
        local, in_specs=(by_data, by_data, by_model, by_model, by_model), out_specs=by_data, check_vma=False
    )
    result = island(*padded((users, queries), data), *padded((table, bias, candidates), model))
    return jax.tree.map(lambda x: x[:count], result)


def _over_blocks(part: Callable, users: Array, queries: tuple, rows: _Rows):
    """Runs `part` on at most `QUERY_BLOCK` queries at a time and joins the results."""
    count = users.shape[0]
    # A product with a single vector may sum the last few items in another order than the rest, so that equal items
    # no longer tie; one with several vectors does not.
    block = min(QUERY_BLOCK, -(-count // 8) * 8)
    blocks = -(-count // block)

    def blocked(x: Array) -> Array:
        x = jnp.pad(x, [(0, blocks * block - count)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, block, *x.shape[1:])

    def ranked(inputs):
        return part(inputs[0], *inputs[1], rows)

    inputs = jax.tree.map(blocked, (users, queries))
    if blocks == 1:
        return jax.tree.map(lambda x: x[:count], ranked(jax.tree.map(lambda x: x[0], inputs)))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], jax.lax.map(ranked, inputs))


class _Scored(NamedTuple):
    """Scores of a block of queries for a chunk of rows.

    Attributes:
        scores: float32 [q, c].
        ids: int32 [c], global item ids.
        items: bool [c]: rows that are items, each counted in one chunk only.
        open: bool [c]: items that may compete.
    """

    scores: Array
    ids: Array
    items: Array
    open: Array

    def finite(self) -> Bool[Array, " q"]:
        return jnp.all(jnp.isfinite(self.scores) | ~self.items, axis=1)

    def unmasked(self, seen: Array) -> Bool[Array, "q c"]:
        """Where an item competes for a query: open and not in `seen` [q, s]."""
        size = self.ids.shape[0]
        index = seen - self.ids[0]
        index = jnp.where((seen > 0) & (index >= 0) & (index < size), index, size)  # others fall off the end
        hidden = jax.vmap(lambda i: jnp.zeros(size, bool).at[i].set(True, mode="drop"))(index)
        return self.open & ~hidden


def _chunks(users: Array, rows: _Rows, n_items: int, chunk: int) -> tuple[int, Callable[[Array | int], _Scored]]:
    """How many chunks the rows fall into, and a function that scores chunk number i."""
    size = rows.table.shape[0]
    count = max(1, -(-size // max(chunk, 1)))
    width = -(-size // count)

    def scored(i: Array | int) -> _Scored:
        # The last chunk is moved back inside the table; rows that it shares with the one before count only there.
        start = jnp.minimum(i * width, size - width)

        def cut(x: Array) -> Array:
            return x if count == 1 else jax.lax.dynamic_slice_in_dim(x, start, width)

        scores = _dot("qd,cd->qc", users, cut(rows.table))
        if rows.bias is not None:
            scores += cut(rows.bias)
        ids = rows.first + start + jnp.arange(width)
        items = (ids >= 1) & (ids <= n_items) & (ids >= rows.first + i * width)
        # XLA's top-k orders -0.0 below 0.0.
        scores = jnp.where(scores == 0, 0.0, scores)
        return _Scored(scores, ids, items, items if rows.candidates is None else items & cut(rows.candidates))

    return count, scored


def _dot(equation: str, users: Array, vectors: Array) -> Array:
    users, vectors = users.astype(jnp.float32), vectors.astype(jnp.float32)
    return jnp.einsum(equation, users, vectors, precision=jax.lax.Precision.HIGHEST)


def _topk_part(users: Array, seen: Array, rows: _Rows, *, k: int, n_items: int, chunk: int) -> tuple[Array, Array]:
    count, scored = _chunks(users, rows, n_items, chunk)

    def step(best, i):
        scores, ids, finite = best
        part = scored(i)
        masked = jnp.where(part.unmasked(seen), part.scores, -jnp.inf)
        top, place = jax.lax.top_k(masked, min(k, masked.shape[1]))
        scores, ids = _merge(scores, ids, top, part.ids[place])
        return (scores, ids, finite & part.finite()), None

    queries = users.shape[0]
    best = (jnp.full((queries, k), -jnp.inf), jnp.zeros((queries, k), jnp.int32), jnp.ones(queries, bool))
    scores, ids, finite = jax.lax.scan(step, best, jnp.arange(count))[0] if count > 1 else step(best, 0)[0]
    if rows.axis is not None:
        gathered = [jax.lax.all_gather(x, rows.axis, axis=1, tiled=True) for x in (scores, ids)]
        scores, ids = _merge(scores[:, :0], ids[:, :0], *gathered, k=k)
        finite = jax.lax.pmin(finite.astype(jnp.int32), rows.axis) > 0
    usable = finite[:, None] & (scores > -jnp.inf)
    return jnp.where(usable, ids, 0).astype(jnp.int32), jnp.where(finite[:, None], scores, jnp.nan)


def _merge(scores: Array, ids: Array, more: Array, more_ids: Array, k: int | None = None) -> tuple[Array, Array]:
    """Best `k` (default: as many as `scores` has) of two lists.

    Ids of `more` are larger, so the top-k, which prefers the earlier of equals, obeys the tie rule.
    """
    k = scores.shape[1] if k is None else k
    scores, place = jax.lax.top_k(jnp.concatenate([scores, more], axis=1), k)
    return scores, jnp.take_along_axis(jnp.concatenate([ids, more_ids], axis=1), place, axis=1)


def _rank_part(
    users: Array, seen: Array, targets: Array, rows: _Rows, *, n_items: int, chunk: int
) -> tuple[Array, Array]:
    count, scored = _chunks(users, rows, n_items, chunk)

    def target_score(part: _Scored) -> Array:
        # Read out of the very product that others are compared in: a dot product of its own may differ in the last
        # bit, and then equal items would no longer tie. The rows of a repeated chunk are read once.
        place = targets - part.ids[0]
        mine = (place >= 0) & (place < part.ids.shape[0])
        place = jnp.where(mine, place, 0)
        mine &= part.items[place]
        return jnp.where(mine, jnp.take_along_axis(part.scores, place[:, None], axis=1)[:, 0], 0.0)

    def better(part: _Scored, target: Array) -> Array:
        ahead = part.scores > target[:, None]
        ahead |= (part.scores == target[:, None]) & (part.ids < targets[:, None])
        return jnp.sum(ahead & part.unmasked(seen), axis=1, dtype=jnp.int32)

    if count == 1:
        part = scored(0)
        target = rows.total(target_score(part))
        counted, finite = better(part, target), part.finite()
    else:
        # Other chunks must be compared with the target's score, so chunks are scored twice.
        zeros = jnp.zeros(users.shape[0])
        target = rows.total(
            jax.lax.scan(lambda sum_, i: (sum_ + target_score(scored(i)), None), zeros, jnp.arange(count))[0]
        )

        def step(carry, i):
            part = scored(i)
            return (carry[0] + better(part, target), carry[1] & part.finite()), None

        start = (jnp.zeros(users.shape[0], jnp.int32), jnp.ones(users.shape[0], bool))
        counted, finite = jax.lax.scan(step, start, jnp.arange(count))[0]
    broken = rows.total((~finite).astype(jnp.int32)) > 0
    return jnp.where(broken, 0, 1 + rows.total(counted)), jnp.where(broken, jnp.nan, target)


def _rank_among_part(
    users: Array, seen: Array, targets: Array, candidates: Array, rows: _Rows, *, n_items: int
) -> tuple[Array, Array]:
    """Rank among a few items of each query, gathered; the target stands in the first column."""
    ids = jnp.concatenate([targets[:, None], candidates], axis=1)
    place = ids - rows.first
    mine = (place >= 0) & (place < rows.table.shape[0])
    place = jnp.where(mine, place, 0)
    scores = _dot("qd,qcd->qc", users, rows.table[place])
    if rows.bias is not None:
        scores += rows.bias[place]
    scores = rows.total(jnp.where(mine, scores, 0.0))
    target = scores[:, :1]
    competes = (ids >= 1) & (ids <= n_items) & (ids != targets[:, None])
    hidden = jax.lax.map(lambda pair: jnp.isin(pair[0], pair[1]), (ids, jnp.where(seen > 0, seen, -1)))
    ahead = (scores > target) | ((scores == target) & (ids < targets[:, None]))
    counted = jnp.sum(ahead & competes & ~hidden, axis=1, dtype=jnp.int32)
    finite = jnp.all(jnp.isfinite(scores) | (ids < 1), axis=1)
    return jnp.where(finite, 1 + counted, 0), jnp.where(finite, target[:, 0], jnp.nan)
