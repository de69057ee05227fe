"""Lists and ranks of a block of queries over the rows that a device owns, chunk by chunk.

A chunk's best `k` are looked for among few of its scores. Columns are folded into groups, of which each has its largest
score, and only the `k` groups with the largest are looked into: whatever beats the `k`-th of these is in one of them.
Where further groups have the very score of the `k`-th, their ids would decide, so all scores are sorted.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recjax.ops.products import transposed
from recjax.typing import Array, Bool, Float, Int

FOLDS = 16
"""Scores of a group: as many slices of a chunk are laid over each other."""

REGISTER_ROWS = 64
"""Rows of a chunk come in multiples of this."""

WIDE = 256
"""Rows from which on a chunk is filled up."""


class Rows(NamedTuple):
    """The rows of the table that this device owns.

    Attributes:
        scorer: what scores them, a `recjax.ops.items.topk.Scorer`.
        table: pytree of arrays [r, ...].
        candidates: bool [r] or None.
        first: id of row 0, below 1 where the catalog starts further down.
        last: largest item id.
        axis: name of the mesh axis that rows are sharded over, or None.
        across: `table` as arrays [..., r], where chunks are scored by the scorer's `columns`; or None.
    """

    scorer: Any
    table: Any
    candidates: Array | None
    first: Array | int
    last: Array | int
    axis: str | None
    across: Any = None

    @property
    def length(self) -> int:
        return length_of(self.table)

    def laid_across(self) -> "Rows":
        """The same rows, scored by the scorer's `columns`."""
        if self.length < WIDE:
            return self
        filled = self.length + -self.length % REGISTER_ROWS
        return self._replace(across=jax.tree.map(lambda x: transposed(_padded_to(x, filled, 0)), self.table))

    def total(self, x: Array) -> Array:
        """Sum over all owners of rows."""
        return x if self.axis is None else jax.lax.psum(x, self.axis)


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
        """Queries whose items all have finite scores."""
        return jnp.all(_folded(jnp.isfinite(self.scores) | ~self.items, jnp.all), axis=1)

    def unmasked(self, seen: Array) -> Bool[Array, "q c"]:
        """Mask of the items that compete for a query: open and not in `seen` [q, s]."""
        size = self.ids.shape[0]
        index = seen - self.ids[0]
        index = jnp.where((seen > 0) & (index >= 0) & (index < size), index, size)  # others fall off the end
        return jax.vmap(lambda i: self.open.at[i].set(False, mode="drop"))(index)

    def scores_of(self, targets: Int[Array, "q t"]) -> Float[Array, "q t"]:
        """The targets' scores, 0 where their rows are elsewhere; the rows of a repeated chunk are read once."""
        place = targets - self.ids[0]
        mine = (place >= 0) & (place < self.ids.shape[0])
        place = jnp.where(mine, place, 0)
        mine &= self.items[place]
        return jnp.where(mine, jnp.take_along_axis(self.scores, place, axis=1), 0.0)

    def ahead(
        self, competing: Bool[Array, "q c"], targets: Int[Array, "q t"], own: Float[Array, "q t"]
    ) -> Int[Array, "q t"]:
        """The number of competing items before each target, whose score is `own`."""

        def count(column: tuple[Array, Array]) -> Array:
            score, target = (x[:, None] for x in column)
            before = (self.scores > score) | ((self.scores == score) & (self.ids < target))
            counted = (before & competing).astype(jnp.int32)
            part = counted.shape[1] // FOLDS
            # Slices are joined a register at a time, faster than `_folded` where much is computed for each.
            joined = reduce(jnp.add, [counted[:, i * part : (i + 1) * part] for i in range(FOLDS)])
            return jnp.sum(joined, axis=1) + jnp.sum(counted[:, part * FOLDS :], axis=1)

        if targets.shape[1] == 1:
            return count((own[:, 0], targets[:, 0]))[:, None]
        return jax.lax.map(count, (own.T, targets.T)).T  # one by one: all at once would hold [q, t, c]


class _Found(NamedTuple):
    """Findings of the chunks so far.

    Attributes:
        scores: float32 [q, k], best first.
        ids: int32 [q, k].
        own: float32 [q, t], the targets' scores as they stand in the chunks.
        ahead: int32 [q, t], items before each target.
        finite: bool [q].
    """

    scores: Array
    ids: Array
    own: Array
    ahead: Array
    finite: Array


def lists_and_ranks(
    users: Any, seen: Int[Array, "q s"], targets: Int[Array, "q t"], rows: Rows, *, k: int, chunk: int
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The best items and their scores [q, k], and the ranks of the targets and their scores [q, t].

    Either of `k` and `t` may be 0, and costs nothing then. Chunks are scored once, for both.
    """
    chunks, scored = _chunks(users, rows, chunk)
    count = length_of(chunks)
    queries = seen.shape[0]

    def add(found: _Found, part: _Scored, own: Array | None) -> _Found:
        competing = part.unmasked(seen)
        mine = part.scores_of(targets)
        if own is None:  # a single chunk: nothing is compared before all targets have been read
            mine = own = rows.total(mine)
        scores, ids = found.scores, found.ids
        if k:
            top, place, finite = _best(part, competing, k)
            scores, ids = _merge(scores, ids, top, part.ids[place], k)
        else:
            finite = part.finite()
        ahead = found.ahead + part.ahead(competing, targets, own)
        return _Found(scores, ids, found.own + mine, ahead, found.finite & finite)

    no_list = jnp.full((queries, k), -jnp.inf), jnp.zeros((queries, k), jnp.int32)
    none = jnp.zeros(targets.shape, jnp.int32)
    found = _Found(*no_list, jnp.zeros(targets.shape), none, jnp.ones(queries, bool))
    if count == 1:
        found = add(found, scored(jax.tree.map(lambda x: x[0], chunks)), None)
        return _exchanged(found, rows, k)

    # Chunks are compared with the targets' scores before these have been read out of the very products that others are
    # compared in. A product of the targets' rows alone may differ in the last bit, and then equal items would no longer
    # tie: where it does, better items are counted once more.
    guess = rows.total(_scored_alone(users, targets, rows))
    found = jax.lax.scan(lambda found, one: (add(found, scored(one), guess), None), found, chunks)[0]
    own = rows.total(found.own)

    def counted_again() -> Array:
        def step(ahead: Array, one: Any) -> tuple[Array, None]:
            part = scored(one)
            return ahead + part.ahead(part.unmasked(seen), targets, own), None

        return jax.lax.scan(step, none, chunks)[0]

    if targets.shape[1]:
        differs = jnp.any((guess != own) & jnp.isfinite(own))
        found = found._replace(own=own, ahead=jax.lax.cond(differs, counted_again, lambda: found.ahead))
    return _exchanged(found, rows, k)


def length_of(tree: Any) -> int:
    """The common leading axis."""
    return jax.tree.leaves(tree)[0].shape[0]


def _padded_to(x: Array, size: int, axis: int) -> Array:
    """The array with zeros behind it up to a size along one axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)


def _exchanged(found: _Found, rows: Rows, k: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Results from the findings of all owners of rows."""
    scores, ids, finite = found.scores, found.ids, found.finite
    if rows.axis is not None:
        if k:
            gathered = [jax.lax.all_gather(x, rows.axis, axis=1, tiled=True) for x in (scores, ids)]
            scores, ids = _merge(scores[:, :0], ids[:, :0], gathered[0], gathered[1], k)
        finite = jax.lax.pmin(finite.astype(jnp.int32), rows.axis) > 0
    finite = finite[:, None]
    ids = jnp.where(finite & (scores > -jnp.inf), ids, 0).astype(jnp.int32)
    ranks = jnp.where(finite, 1 + rows.total(found.ahead), 0)
    return (ids, jnp.where(finite, scores, jnp.nan)), (ranks, jnp.where(finite, _signless(found.own), jnp.nan))


def _chunks(users: Any, rows: Rows, chunk: int) -> tuple[Any, Callable[[Any], _Scored]]:
    """The chunks that the rows fall into, as arrays to scan over, and a function that scores one."""
    size = rows.length
    count = max(1, -(-size // max(chunk, 1)))
    width = -(-size // count)
    if width >= WIDE:  # so that it folds without a rest
        width += -width % REGISTER_ROWS
        count = -(-size // width)

    # The last chunk is moved back inside the table; rows that it shares with the one before count only there.
    starts = jnp.minimum(width * jnp.arange(count), max(size - width, 0))
    place = starts[:, None] + jnp.arange(width)
    ids = rows.first + place
    items = (ids >= 1) & (ids <= rows.last) & (place >= width * jnp.arange(count)[:, None]) & (place < size)
    open_ = items if rows.candidates is None else items & rows.candidates.at[place].get(mode="clip")

    def scored(masks: tuple[Array, Array, Array, Array]) -> _Scored:
        start, ids, items, open_ = masks

        def cut(x: Array, axis: int) -> Array:
            if count == 1:
                return _padded_to(x, width, axis)
            return jax.lax.dynamic_slice_in_dim(x, start, width, axis)

        across = rows.across is not None
        score, table, axis = (rows.scorer.columns, rows.across, -1) if across else (rows.scorer.rows, rows.table, 0)
        return _Scored(score(users, jax.tree.map(partial(cut, axis=axis), table)), ids, items, open_)

    # Masks are made before the loop: in it, XLA would compare ids anew for each query.
    return (starts, ids, items, open_), scored


def _scored_alone(users: Any, targets: Int[Array, "q t"], rows: Rows) -> Float[Array, "q t"]:
    """The targets' scores from a product with their rows, gathered; 0 for those that another device owns."""
    if not targets.shape[1]:
        return jnp.zeros(targets.shape)

    def column(targets: Array) -> Array:
        place = targets - rows.first
        mine = (place >= 0) & (place < rows.length)
        place = jnp.where(mine, place, 0)
        scores = rows.scorer.rows(users, jax.tree.map(lambda x: jnp.asarray(x)[place], rows.table))
        return jnp.where(mine & (targets > 0), jnp.diagonal(scores), 0.0)

    return jax.lax.map(column, targets.T).T


def _best(part: _Scored, competing: Bool[Array, "q c"], k: int) -> tuple[Array, Array, Array]:
    """The at most `k` best of the competing, best first, their columns, and `part.finite()`."""
    scores = part.scores
    width = scores.shape[1]
    groups = width // FOLDS

    def masked(scores: Array, competing: Array) -> Array:
        # XLA's top-k orders -0.0 below 0.0.
        return _signless(jnp.where(competing, scores, -jnp.inf))

    def among_all() -> tuple[Array, Array]:
        top, place = jax.lax.top_k(masked(scores, competing), min(k, width))
        return top, place

    if 2 * k >= groups or width % FOLDS:
        return *among_all(), part.finite()
    # What is not finite is the largest of its group, so that one pass over the scores is enough.
    broken = part.items & ~jnp.isfinite(scores)
    largest = _signless(_folded(jnp.where(broken, jnp.inf, jnp.where(competing, scores, -jnp.inf)), jnp.max))
    # The barriers keep XLA from slicing less out of the sort that a top-k is at first, and sorting everything then. One
    # barrier for both makes XLA:CPU (jaxlib 0.10.2) abort where it takes a top-k apart.
    bound, chosen = (jax.lax.optimization_barrier(found) for found in jax.lax.top_k(largest, k + 1))
    chosen = jnp.sort(chosen[:, :k], axis=1)

    def among_chosen() -> tuple[Array, Array]:
        folds = groups * jnp.arange(FOLDS, dtype=jnp.int32)
        # Ascending, so that the earlier of equals is the smaller id.
        place = (folds[:, None] + chosen[:, None, :]).reshape(len(chosen), -1)
        top, among = jax.lax.top_k(masked(*(jnp.take_along_axis(x, place, axis=1) for x in (scores, competing))), k)
        return top, jnp.take_along_axis(place, among, axis=1)

    tied = (bound[:, k] == bound[:, k - 1]) & jnp.isfinite(bound[:, k])
    return *jax.lax.cond(jnp.any(tied), among_all, among_chosen), bound[:, 0] < jnp.inf


def _folded(x: Array, join: Callable[..., Array]) -> Array:
    """Columns [q, c] joined to some `c / FOLDS`, as slices that lie over each other.

    XLA:CPU takes a number at a time where it reduces the last axis, and a register where it reduces another.
    """
    part = x.shape[1] // FOLDS
    folded, rest = join(x[:, : part * FOLDS].reshape(len(x), FOLDS, part), axis=1), x[:, part * FOLDS :]
    return jnp.concatenate([folded, rest], axis=1) if rest.shape[1] else folded


def _signless(x: Array) -> Array:
    return jnp.where(x == 0, 0.0, x)


def _merge(scores: Array, ids: Array, more: Array, more_ids: Array, k: int) -> tuple[Array, Array]:
    """Best `k` of two lists.

    Ids of `more` are larger, so the top-k, which prefers the earlier of equals, obeys the tie rule.
    """
    scores, place = jax.lax.top_k(jnp.concatenate([scores, more], axis=1), k)
    return scores, jnp.take_along_axis(jnp.concatenate([ids, more_ids], axis=1), place, axis=1)
