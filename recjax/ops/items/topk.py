"""Best items of a catalog, and the rank of one item in it, without ever holding `[queries, items]` scores.

The score of an item is `user . item (+ bias)`, in float32 at the highest matmul precision, on every backend; `topk_by`
and `rank_by` take any other `Scorer`. All walk over blocks of queries and, inside them, over chunks of items, so that
no more than `QUERY_BLOCK x chunk` scores exist at a time. The order of items is total: higher score first, then smaller
id; equal scores (0.0 and -0.0 are equal) never help anyone.

With a mesh, queries are sharded over the data axis and table rows over the model axis: each device ranks its own rows,
and only lists of `k` items, or counts, cross the model axis.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.items.chunks import REGISTER_ROWS, Rows, length_of, lists_and_ranks
from recjax.ops.mesh_axes import axis_size, platform
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Bool, Float, Int

QUERY_BLOCK = 256
"""Most queries scored at a time on a device."""

ACROSS_BLOCKS = 4
"""Blocks of queries from which on a CPU scores item vectors that have been laid across once for all of them."""

ITEM_CHUNK = 16_384
"""Most items scored at a time on a device: 16 MB of scores for a block of queries."""


class Scorer(NamedTuple):
    """A function that scores rows of a table for queries; both are pytrees of arrays with a common leading axis.

    Attributes:
        rows: (queries [q, ...], rows [c, ...]) -> float32 [q, c].
        pairs: (queries [q, ...], rows [q, c, ...]) -> float32 [q, c], each query with rows of its own.
        multiple: the number of queries scored at a time is a multiple of this.
        columns: `rows` of arrays [..., c] whose last axis is that of rows, or None.
    """

    rows: Callable[[Any, Any], Array]
    pairs: Callable[[Any, Any], Array]
    multiple: int = 1
    columns: Callable[[Any, Any], Array] | None = None


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
    last = table.shape[0] - 1 if n_items is None else n_items
    return topk_by(DOT_PRODUCT, users, (table, bias), seen, k, candidates=candidates, n_items=last, chunk=chunk)


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
    last = table.shape[0] - 1 if n_items is None else n_items
    return rank_by(DOT_PRODUCT, users, (table, bias), targets, seen, candidates=candidates, n_items=last, chunk=chunk)


def topk_by(
    scorer: Scorer,
    users: Any,
    table: Any,
    seen: Int[Array, "q s"],
    k: int,
    *,
    candidates: Bool[Array, " n"] | None = None,
    start: Array | int = 0,
    n_items: Array | int,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """`masked_topk` with any scores: item i (1 to `n_items`) is row `start + i` of `table`; both may be traced."""
    part = partial(_topk_part, k=k, chunk=chunk)
    return _over_mesh(part, scorer, users, (seen,), table, candidates, start, n_items)


def rank_by(
    scorer: Scorer,
    users: Any,
    table: Any,
    targets: Int[Array, " q"],
    seen: Int[Array, "q s"],
    *,
    candidates: Array | None = None,
    start: Array | int = 0,
    n_items: Array | int,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """`masked_rank` with any scores: item i (1 to `n_items`) is row `start + i` of `table`; both may be traced."""
    if candidates is not None and candidates.dtype != jnp.bool_:
        inputs = (seen, targets, candidates)
        return _over_mesh(_rank_among_part, scorer, users, inputs, table, None, start, n_items)
    ranks, scores = ranks_by(
        scorer, users, table, targets[:, None], seen, candidates=candidates, start=start, n_items=n_items, chunk=chunk
    )
    return ranks[:, 0], scores[:, 0]


def topk_and_rank_by(
    scorer: Scorer,
    users: Any,
    table: Any,
    targets: Int[Array, " q"],
    seen: Int[Array, "q s"],
    k: int,
    *,
    start: Array | int = 0,
    n_items: Array | int,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, "q k"], Int[Array, " q"]]:
    """The items of `topk_by` and the ranks of `rank_by`, of scores that are made once."""
    part = partial(_both_part, k=k, chunk=chunk)
    items, ranks = _over_mesh(part, scorer, users, (seen, targets[:, None]), table, None, start, n_items)
    return items, ranks[:, 0]


def ranks_by(
    scorer: Scorer,
    users: Any,
    table: Any,
    targets: Int[Array, "q t"],
    seen: Int[Array, "q s"],
    *,
    candidates: Bool[Array, " n"] | None = None,
    start: Array | int = 0,
    n_items: Array | int,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, "q t"], Float[Array, "q t"]]:
    """`rank_by` of several targets a query, each as if it were alone: targets compete with each other too."""
    part = partial(_ranks_part, chunk=chunk)
    return _over_mesh(part, scorer, users, (seen, targets), table, candidates, start, n_items)


def scores_by(
    scorer: Scorer,
    users: Any,
    table: Any,
    items: Int[Array, "q c"],
    *,
    start: Array | int = 0,
    n_items: Array | int,
) -> Float[Array, "q c"]:
    """Scores of a few items of each query, ids 0-padded: 0 there. The rest of the table is not read."""
    return _over_mesh(_scores_part, scorer, users, (items,), table, None, start, n_items)


def _over_mesh(
    part: Callable,
    scorer: Scorer,
    users: Any,
    queries: tuple,
    table: Any,
    candidates: Array | None,
    start: Array | int,
    last: Array | int,
):
    """Runs `part(users, *queries, rows)` over blocks of queries, inside a `shard_map` island where there is a mesh."""
    candidates = _by_row(candidates, length_of(table), start)
    data, model = axis_size(DATA_AXIS), axis_size(MODEL_AXIS)
    if data * model == 1:
        return _over_blocks(part, users, queries, Rows(scorer, table, candidates, -start, last, None))

    def local(users: Any, queries: tuple, table: Any, candidates: Array | None, start: Array, last: Array):
        first = jax.lax.axis_index(MODEL_AXIS) * length_of(table) - start
        return _over_blocks(part, users, queries, Rows(scorer, table, candidates, first, last, MODEL_AXIS))

    def padded(tree: Any, parts: int) -> Any:
        return jax.tree.map(lambda x: jnp.pad(x, [(0, -x.shape[0] % parts)] + [(0, 0)] * (x.ndim - 1)), tree)

    count = length_of(users)
    by_data, by_model, everywhere = PartitionSpec(DATA_AXIS), PartitionSpec(MODEL_AXIS), PartitionSpec()
    # Lists are equal on all devices of the model axis after the exchange, which the checker cannot see.
    island: Any = jax.shard_map(
        local,
        in_specs=(by_data, by_data, by_model, by_model, everywhere, everywhere),
        out_specs=by_data,
        check_vma=False,
    )
    bounds = (jnp.asarray(start, jnp.int32), jnp.asarray(last, jnp.int32))
    result = island(*padded((users, queries), data), *padded((table, candidates), model), *bounds)
    return jax.tree.map(lambda x: x[:count], result)


def _by_row(candidates: Array | None, rows: int, start: Array | int) -> Array | None:
    """Candidates by row of the table, from candidates by item id."""
    if candidates is None:
        return None
    if isinstance(start, int) and start == 0:
        return jnp.pad(candidates, (0, rows - candidates.shape[0]))
    item = jnp.arange(rows) - start
    item = jnp.where(item < 0, candidates.shape[0], item)
    return candidates.at[item].get(mode="fill", fill_value=False)


def _over_blocks(part: Callable, users: Any, queries: tuple, rows: Rows):
    """Runs `part` on at most `QUERY_BLOCK` queries at a time and joins the results."""
    count, multiple = length_of(users), rows.scorer.multiple
    block = min(QUERY_BLOCK, -(-count // multiple) * multiple)
    blocks = -(-count // block)

    def blocked(x: Array) -> Array:
        x = jnp.pad(x, [(0, blocks * block - count)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, block, *x.shape[1:])

    if blocks >= ACROSS_BLOCKS and platform() == "cpu" and rows.scorer.columns is not None:
        rows = rows.laid_across()

    def ranked(inputs):
        return part(inputs[0], *inputs[1], rows)

    inputs = jax.tree.map(blocked, (users, queries))
    if blocks == 1:
        return jax.tree.map(lambda x: x[:count], ranked(jax.tree.map(lambda x: x[0], inputs)))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], jax.lax.map(ranked, inputs))


def _row_scores(users: Array, rows: tuple[Array, Array | None]) -> Array:
    vectors, bias = rows
    return _column_scores(users, (vectors.T, bias))


def _column_scores(users: Array, columns: tuple[Array, Array | None]) -> Array:
    vectors, bias = columns
    count = vectors.shape[1]
    # Rows that do not fill a vector register are summed in another order on some processors (AVX2), so that equal items
    # would no longer tie; none are left over when there are a multiple of `REGISTER_ROWS`.
    filled = jnp.pad(vectors.astype(jnp.float32), [(0, 0), (0, -count % REGISTER_ROWS)])
    scores = jnp.matmul(users.astype(jnp.float32), filled, precision=jax.lax.Precision.HIGHEST)[:, :count]
    return scores if bias is None else scores + bias


def _pair_scores(users: Array, rows: tuple[Array, Array | None]) -> Array:
    vectors, bias = rows
    users, vectors = users.astype(jnp.float32), vectors.astype(jnp.float32)
    scores = jnp.einsum("qd,qcd->qc", users, vectors, precision=jax.lax.Precision.HIGHEST)
    return scores if bias is None else scores + bias


# A product with a single vector may sum the last few items in another order than the rest, so that equal items no
# longer tie; one with several vectors does not.
DOT_PRODUCT = Scorer(_row_scores, _pair_scores, 8, _column_scores)
"""Users [q, d] with tables (vectors [n, d], bias [n] or None)."""


def _topk_part(users: Any, seen: Array, rows: Rows, *, k: int, chunk: int) -> tuple[Array, Array]:
    return lists_and_ranks(users, seen, jnp.zeros((seen.shape[0], 0), jnp.int32), rows, k=k, chunk=chunk)[0]


def _ranks_part(users: Any, seen: Array, targets: Array, rows: Rows, *, chunk: int) -> tuple[Array, Array]:
    return lists_and_ranks(users, seen, targets, rows, k=0, chunk=chunk)[1]


def _both_part(users: Any, seen: Array, targets: Array, rows: Rows, *, k: int, chunk: int) -> tuple[Array, Array]:
    (items, _), (ranks, _) = lists_and_ranks(users, seen, targets, rows, k=k, chunk=chunk)
    return items, ranks


def _scores_part(users: Any, ids: Array, rows: Rows) -> Array:
    """Scores of a few items [q, c] of each query, gathered; 0 where padded."""
    place = ids - rows.first
    mine = (place >= 0) & (place < rows.length)
    place = jnp.where(mine, place, 0)
    scores = rows.scorer.pairs(users, jax.tree.map(lambda x: jnp.asarray(x)[place], rows.table))
    return rows.total(jnp.where(mine & (ids > 0), scores, 0.0))


def _rank_among_part(users: Any, seen: Array, targets: Array, candidates: Array, rows: Rows) -> tuple[Array, Array]:
    """Rank among a few items of each query, gathered; the target stands in the first column."""
    ids = jnp.concatenate([targets[:, None], candidates], axis=1)
    scores = _scores_part(users, ids, rows)
    target = scores[:, :1]
    competes = (ids >= 1) & (ids <= rows.last) & (ids != targets[:, None])
    hidden = jax.lax.map(lambda pair: jnp.isin(pair[0], pair[1]), (ids, jnp.where(seen > 0, seen, -1)))
    ahead = (scores > target) | ((scores == target) & (ids < targets[:, None]))
    counted = jnp.sum(ahead & competes & ~hidden, axis=1, dtype=jnp.int32)
    finite = jnp.all(jnp.isfinite(scores) | (ids < 1), axis=1)
    return jnp.where(finite, 1 + counted, 0), jnp.where(finite, target[:, 0], jnp.nan)
