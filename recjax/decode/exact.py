"""Exact ranking of a catalog by the logits of its items' codes.

A model that predicts all codes of the next item at once scores an item by the sum of the logits of its codes. The
softmax of a slot and a temperature shift or scale all items of a query alike, so they change no ranking; and the sum is
a gather over the catalog's code table, so no search is needed: every item is scored, in chunks, with the masks, the tie
rule and the sharding over items of `recjax.ops.items.topk`.
"""

from collections.abc import Sequence
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from recjax.ops.items.topk import DOT_PRODUCT, ITEM_CHUNK, Scorer, rank_by, topk_by
from recjax.typing import Array, Bool, Float, InputError, Int

Logits: TypeAlias = Array | Sequence[Array]
"""float32 [q, slots, size], or one [q, size] for each slot where vocabularies differ."""

TOGETHER = 16
"""Queries whose logits are gathered at a time."""


@partial(jax.jit, static_argnames=("k", "chunk"))
def exact_topk(
    logits: Logits,
    codes: Int[Array, "n slots"],
    seen: Int[Array, "q s"],
    k: int,
    *,
    users: Float[Array, "q d"] | None = None,
    vectors: Float[Array, "n d"] | None = None,
    candidates: Bool[Array, " m"] | None = None,
    start: Array | int = 0,
    n_items: Array | int | None = None,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """The `k` best items of each query by the sum of the logits of their codes.

    Args:
        logits: logits of each slot.
        codes: codes of the items: item i is row `start + i`; other rows may hold anything.
        seen: ids never to be returned, in any order, repeats allowed, padded with 0.
        k: length of the lists; may exceed the catalog.
        users: with `vectors`, adds `users . vectors` to the scores.
        vectors: one for each row of `codes`.
        candidates: the only items that may be returned, by item id.
        start: row before the first item's; may be traced.
        n_items: items of the catalog; may be traced, so that catalogs in a table of one length share a compilation. By
            default all rows after `start`.
        chunk: most items scored at a time.

    Returns:
        Items and scores, best first, ties by the smaller id. A list that runs out ends in item 0 with score -inf. A
        query with a score that is not finite gets items 0 and scores NaN.
    """
    queries, table = code_scores(logits, codes, users, vectors)
    last = codes.shape[0] - 1 - start if n_items is None else n_items
    scorer = code_scorer(users)
    return topk_by(scorer, queries, table, seen, k, candidates=candidates, start=start, n_items=last, chunk=chunk)


@partial(jax.jit, static_argnames=("chunk",))
def exact_rank(
    logits: Logits,
    codes: Int[Array, "n slots"],
    targets: Int[Array, " q"],
    seen: Int[Array, "q s"],
    *,
    users: Float[Array, "q d"] | None = None,
    vectors: Float[Array, "n d"] | None = None,
    candidates: Array | None = None,
    start: Array | int = 0,
    n_items: Array | int | None = None,
    chunk: int = ITEM_CHUNK,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Rank of one item a query: 1 + unseen items with a higher score + unseen items with that score and a smaller id.

    The target competes even where it is seen or no candidate.

    Args:
        logits: logits of each slot.
        codes: codes of the items: item i is row `start + i`.
        targets: item ids from 1 (a query that only fills the batch up may have 0).
        seen: ids that do not compete, 0-padded.
        users: with `vectors`, adds `users . vectors` to the scores.
        vectors: one for each row of `codes`.
        candidates: the only items that compete: bool by item id, the same for all queries; or int32 [q, c] ids of
            each query without repeats, 0-padded.
        start: row before the first item's; may be traced.
        n_items: items of the catalog; may be traced.
        chunk: most items scored at a time.

    Returns:
        Ranks, and scores of the targets. A query with a score that is not finite gets rank 0 and score NaN.
    """
    queries, table = code_scores(logits, codes, users, vectors)
    last = codes.shape[0] - 1 - start if n_items is None else n_items
    scorer = code_scorer(users)
    return rank_by(scorer, queries, table, targets, seen, candidates=candidates, start=start, n_items=last, chunk=chunk)


def by_slot(logits: Logits, slots: int) -> tuple[Array, ...]:
    """The logits of each slot, float32 [q, size].

    Raises:
        InputError: the logits are of another number of slots.
    """
    parts = [logits[:, slot] for slot in range(logits.shape[1])] if isinstance(logits, Array) else list(logits)
    if len(parts) != slots:
        raise InputError(f"logits of {len(parts)} slots, but items have {slots} codes each")
    return tuple(part.astype(jnp.float32) for part in parts)


class _Queries(NamedTuple):
    """A block of queries: logits [q, size] of each slot, and vectors [q, d] or None."""

    logits: tuple[Array, ...]
    users: Array | None


class _Table(NamedTuple):
    """A chunk of items: codes [c, slots] (or [q, c, slots]) and vectors or None."""

    codes: Array
    vectors: Array | None


def code_scores(
    logits: Logits, codes: Array, users: Array | None = None, vectors: Array | None = None
) -> tuple[_Queries, _Table]:
    """Queries and table for `code_scorer`; arguments as in `exact_topk`."""
    if (users is None) != (vectors is None):
        raise InputError("users and vectors add to the scores together: one was given without the other")
    if vectors is not None and len(vectors) != len(codes):
        raise InputError(f"{len(vectors)} rows of vectors, but {len(codes)} of codes")
    return _Queries(by_slot(logits, codes.shape[1]), users), _Table(codes, vectors)


def code_scorer(users: Array | None) -> Scorer:
    """Scores by the sum of code logits, and by a dot product beside it where there are `users`."""
    return Scorer(
        partial(_scores, pairs=False), partial(_scores, pairs=True), 1 if users is None else DOT_PRODUCT.multiple
    )


def _scores(queries: _Queries, table: _Table, *, pairs: bool) -> Array:
    # Slot by slot from the first, as a beam adds them up, so that both give an item the very same bits.
    def summed(logits: tuple[Array, ...], codes: Array) -> Array:
        return reduce(add, (row.at[codes[:, slot]].get(mode="clip") for slot, row in enumerate(logits)))

    if pairs:
        scores = jax.vmap(summed)(queries.logits, table.codes)
    else:
        # The results of a loop are written to memory: XLA:CPU would otherwise gather again, and five times as slowly,
        # inside every reduction that reads the scores.
        scores = jax.lax.map(lambda row: summed(row, table.codes), queries.logits, batch_size=TOGETHER)
    if queries.users is None:
        return scores
    dot: Any = DOT_PRODUCT.pairs if pairs else DOT_PRODUCT.rows
    return scores + dot(queries.users, (table.vectors, None))
