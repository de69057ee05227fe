"""Beam search over the trie of a catalog, for all queries and beams in one compiled function.

Level by level, the children of a query's beams are laid end to end and scored a strip of fixed width at a time, each
strip merged into the best so far; the number of strips follows the data, all shapes are static. So no child is left out
however unevenly nodes branch, and no array depends on what the catalog looks like, only on its capacity. Prefixes that
lead to no item are not in the trie, hence every list holds items of the catalog and of the mask only.

A beam is an approximation of `recjax.decode.exact`: an item is lost when a prefix of its codes scores too low. It looks
at fewer items than there are, which pays on large catalogs.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from recjax.decode.exact import Logits, by_slot
from recjax.decode.trie import Trie
from recjax.ops.items.topk import QUERY_BLOCK
from recjax.ops.mesh_axes import axis_size
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Bool, Float, InputError, Int

STRIP = 1_024
"""Children of one query scored at a time."""


@partial(jax.jit, static_argnames=("k", "beam", "spare", "strip"))
def beam_topk(
    logits: Logits,
    trie: Trie,
    k: int,
    *,
    beam: int,
    seen: Int[Array, "q s"] | None = None,
    allowed: Bool[Array, " m"] | None = None,
    spare: int | None = None,
    strip: int = STRIP,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """The best items of each query that a beam finds, by the sum of the logits of their codes.

    A beam as wide as every level has nodes finds the exact list. The items of one query do not depend on the others.

    Args:
        logits: logits of each slot: float32 [q, slots, size], or one [q, size] a slot.
        trie: the catalog; see `Trie.only` for a sub-catalog that serves more than one call.
        k: length of the lists; may exceed the beam.
        beam: prefixes kept after each level.
        seen: ids never to be returned, in any order, repeats allowed, padded with 0. They differ between queries and
            are dropped below the last level only, where `spare` more tuples are kept to make up for them.
        allowed: the only items that may be returned, by item id, the same for all queries. The trie is pruned by it
            first, so that beams are spent on allowed items alone.
        spare: tuples kept beyond `beam` after the last level; by default as many as `seen` is wide.
        strip: children of one query scored at a time; more is faster where beams have many children.

    Returns:
        Items and scores, best first, ties by the smaller id. A list that runs out ends in item 0 with score -inf. A
        query with a logit that is not finite, of a code that any item of the catalog has, gets items 0 and scores NaN.

    Raises:
        InputError: logits and trie are of different slots or vocabularies, or a beam below 1.
    """
    if min(k, beam, strip) < 1 or (spare or 0) < 0:
        raise InputError(f"k {k}, beam {beam}, strip {strip}, spare {spare}; expected at least 1, 1, 1 and 0")
    parts = by_slot(logits, trie.slots)
    if (found := tuple(part.shape[1] for part in parts)) != trie.sizes:
        raise InputError(f"logits of vocabularies {found}, but the trie's are {trie.sizes}")
    trie = trie if allowed is None else trie.only(allowed)
    hidden = jnp.zeros((len(parts[0]), 0), jnp.int32) if seen is None else seen
    plan = _Plan(k, beam, hidden.shape[1] if spare is None else spare, strip)
    queries = (parts, hidden)

    def blocks(queries: tuple[tuple[Array, ...], Array], trie: Trie) -> tuple[Array, Array]:
        size = min(QUERY_BLOCK, len(queries[1]))
        return jax.lax.map(lambda query: _search(query[0], query[1], trie, plan), queries, batch_size=size)

    data = axis_size(DATA_AXIS)
    if data * axis_size(MODEL_AXIS) == 1:
        return blocks(queries, trie)
    count = len(hidden)
    queries = jax.tree.map(lambda x: jnp.pad(x, ((0, -count % data), (0, 0))), queries)
    by_data = PartitionSpec(DATA_AXIS)
    # Lists are equal on all devices of the model axis, which the checker cannot see.
    island: Any = jax.shard_map(blocks, in_specs=(by_data, PartitionSpec()), out_specs=by_data, check_vma=False)
    return jax.tree.map(lambda x: x[:count], island(queries, trie))


class Agreement(NamedTuple):
    """Share of the exact lists that a beam finds; means over queries whose exact list is not empty.

    Attributes:
        overlap: share of the first k exact items that are among the first k of the beam.
        top1: share of queries whose first item is the same.
        queries: how many were compared.
    """

    overlap: float
    top1: float
    queries: int


def agreement(beam_items: np.ndarray | Array, exact_items: np.ndarray | Array, k: int) -> Agreement:
    """Compares lists [q, at least k], 0-padded, on the host; NaN where no query has an exact list."""
    found, exact = np.asarray(beam_items)[:, :k], np.asarray(exact_items)[:, :k]
    if found.shape != exact.shape or found.shape[1] != k:
        raise InputError(f"lists of shapes {found.shape} and {exact.shape} cannot be compared over {k} places")
    full = (exact > 0).any(axis=1)
    found, exact = found[full], exact[full]
    if not len(exact):
        return Agreement(float("nan"), float("nan"), 0)
    hits = ((exact[:, :, None] == found[:, None, :]).any(axis=2) & (exact > 0)).sum(axis=1)
    return Agreement(
        float(np.mean(hits / (exact > 0).sum(axis=1))), float(np.mean(found[:, 0] == exact[:, 0])), len(exact)
    )


class _Plan(NamedTuple):
    """The static numbers of a search: see `beam_topk`."""

    k: int
    beam: int
    spare: int
    strip: int


def _search(logits: tuple[Array, ...], seen: Array, trie: Trie, plan: _Plan) -> tuple[Array, Array]:
    """One query: logits [size] a slot, seen [s]."""
    finite = jnp.array(True)
    for row, used in zip(logits, trie.used, strict=True):
        finite &= jnp.all(jnp.isfinite(row) | ~used)
    scores, nodes = _begin(logits, trie, _width(plan, trie, trie.table.ndim))
    for level in range(trie.table.ndim, trie.slots):
        row, codes = logits[level], trie.codes[level]
        counts, place = _children(trie.first[level - 1], scores, nodes)

        def score(slot: Array, parents: Array = scores, row: Array = row, codes: Array = codes, place=place):
            parent, child, valid = place(slot)
            return jnp.where(valid, parents[parent] + row[codes[child]], -jnp.inf), child

        scores, nodes = _best(score, jnp.sum(counts), _width(plan, trie, level + 1), plan.strip)
    items, scores = listed(scores, nodes, seen, trie, plan.k)
    scores = jnp.where(scores == 0, 0.0, scores)
    return jnp.where(finite, items, 0), jnp.where(finite, scores, jnp.nan)


def _width(plan: _Plan, trie: Trie, level: int) -> int:
    """Prefixes kept after so many slots; never more than there can be."""
    wanted = plan.beam + (plan.spare if level == trie.slots else 0)
    return min(wanted, trie.codes[level - 1].shape[0])


def _begin(logits: tuple[Array, ...], trie: Trie, width: int) -> tuple[Array, Array]:
    """Scores and nodes of the best prefixes in the dense table."""
    scores = logits[0] if trie.table.ndim == 1 else logits[0][:, None] + logits[1][None, :]
    scores = jnp.where(trie.table >= 0, scores, -jnp.inf).ravel()
    scores, place = jax.lax.top_k(scores, width)
    return scores, trie.table.ravel()[place]


def _children(first: Array, scores: Array, nodes: Array, most: int | None = None):
    """Lays the children of nodes [w] end to end.

    Returns:
        How many each node has (at most `most`), and a function from places in the row of all of them to (which node,
        which child, whether there is one).
    """
    nodes = jnp.maximum(nodes, 0)
    begin = first[nodes]
    counts = jnp.where(scores > -jnp.inf, first[nodes + 1] - begin, 0)
    counts = counts if most is None else jnp.minimum(counts, most)
    end = jnp.cumsum(counts)
    shift = begin - (end - counts)

    def place(slot: Array) -> tuple[Array, Array, Array]:
        parent = jnp.searchsorted(end, slot, side="right")
        valid = parent < len(end)
        parent = jnp.minimum(parent, len(end) - 1)
        return parent, jnp.where(valid, slot + shift[parent], 0), valid

    return counts, place


def _best(score, total: Array, width: int, strip: int) -> tuple[Array, Array]:
    """The best `width` of `total` candidates, a strip at a time; `score` gives scores and ids of places."""

    def step(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        new = score(i * strip + jnp.arange(strip))
        scores, ids = (jnp.concatenate(pair) for pair in zip(best, new, strict=True))
        scores, place = jax.lax.top_k(scores, width)
        return scores, ids[place]

    start = (jnp.full(width, -jnp.inf), jnp.zeros(width, jnp.int32))
    return jax.lax.fori_loop(0, -(-total // strip), step, start)


def listed(scores: Array, nodes: Array, seen: Array, trie: Trie, k: int) -> tuple[Array, Array]:
    """The best `k` unseen items of full tuples [w], by score and then by id; `seen` [s] are those of one query."""
    # A tuple's items are sorted by id, so no more than the first k unseen ones can be among the best k.
    counts, place = _children(trie.first[-1], scores, nodes, most=k + len(seen))
    strip = len(nodes) + k

    def step(i: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        parent, where, valid = place(i * strip + jnp.arange(strip))
        items = trie.items[where]
        valid &= ~jnp.any(items[:, None] == seen[None, :], axis=1)
        loss = jnp.append(best[0], jnp.where(valid, -scores[parent], jnp.inf))
        loss, items = jax.lax.sort((loss, jnp.append(best[1], jnp.where(valid, items, 0))), num_keys=2)
        return loss[:k], items[:k]

    start = (jnp.full(k, jnp.inf), jnp.zeros(k, jnp.int32))
    loss, items = jax.lax.fori_loop(0, -(-jnp.sum(counts) // strip), step, start)
    return items, -loss
