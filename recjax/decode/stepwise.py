"""Ranking of a catalog by a model that predicts an item's codes one after another: a beam over the trie.

The score of an item is the sum of the log-probabilities of its codes, each given the codes before it, in float32; items
that share a tuple share its score. A model enters as two plain functions of arrays:

    begin(queries) -> cache                 what the model remembers of each query: a tree of arrays [q, 1, ...]
    step(cache, codes) -> (logits, cache)   codes int32 [q, b] of the last slot, logits [q, b, size of the next slot]

The first call of `step` has the code -1, which no slot has. The search gathers the cache of each kept prefix from its
parent, array by array, except for arrays whose second axis is 1: those serve all prefixes of a query (the keys of
cross-attention are never copied), and `step` broadcasts them. So a cache may hold both, and what `step` returns may
have grown.

The beam is an approximation of `recjax.decode.expansion`. Call both inside `jit`, with parameters among its arguments:
`begin` and `step` are usually closures over them. Queries are not cut into blocks; the caller's batches are.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.decode.beam import listed
from recjax.decode.trie import Trie
from recjax.typing import Array, Bool, Float, InputError, Int

Begin = Callable[[Any], Any]
Step = Callable[[Any, Array], tuple[Array, Any]]

Normalise = Literal["vocabulary", "children"]
"""The codes among which a code's probability is: all of its slot, or those that some item of the trie has after the
prefix. The trie is the one given: a mask of candidates changes no item's score."""

UNRANKED = int(np.iinfo(np.int32).max)
"""Rank of a target that a list does not hold."""


def stepwise_topk(
    begin: Begin,
    step: Step,
    queries: Any,
    trie: Trie,
    k: int,
    *,
    beam: int,
    seen: Int[Array, "q s"] | None = None,
    candidates: Bool[Array, " m"] | None = None,
    spare: int | None = None,
    normalise: Normalise = "vocabulary",
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """The best items of each query that a beam finds. A beam as wide as the widest level finds the exact list.

    Args:
        begin: see the module.
        step: see the module.
        queries: a tree of arrays with the leading axis q, given to `begin`.
        trie: the catalog.
        k: length of the lists; may exceed the beam.
        beam: prefixes kept after each level.
        seen: ids never to be returned, in any order, repeats allowed, padded with 0.
        candidates: the only items that may be returned, by item id, the same for all queries; beams are spent on
            prefixes of theirs alone.
        spare: tuples kept beyond `beam` after the last level, to make up for seen items; by default as many as `seen`
            is wide.
        normalise: see `Normalise`.

    Returns:
        Items and scores, best first, ties by the smaller id. A list that runs out ends in item 0 with score -inf. A
        query with a log-probability that is not finite, of a child of a prefix in the beam, gets items 0, scores NaN.

    Raises:
        InputError: k or beam below 1, or logits of another vocabulary than the trie's.
    """
    if min(k, beam) < 1 or (spare or 0) < 0:
        raise InputError(f"k {k}, beam {beam}, spare {spare}; expected at least 1, 1 and 0")
    rows = jax.tree.leaves(queries)[0].shape[0]
    seen = jnp.zeros((rows, 0), jnp.int32) if seen is None else seen
    spare = seen.shape[1] if spare is None else spare
    leads, lists = (None, trie) if candidates is None else _restricted(trie, candidates)
    prefixes, finite = root(begin, queries), jnp.ones(rows, bool)
    for level in range(trie.slots):
        wanted = beam + (spare if level + 1 == trie.slots else 0)
        keep = None if leads is None else leads[level]
        prefixes, is_finite = _grown(step, prefixes, trie, level, wanted, keep, normalise)
        finite &= is_finite
    items, scores = jax.vmap(lambda s, n, hidden: listed(s, n, hidden, lists, k))(prefixes.scores, prefixes.nodes, seen)
    return jnp.where(finite[:, None], items, 0), jnp.where(finite[:, None], scores, jnp.nan)


def rank_in_list(
    items: Int[Array, "q k"],
    scores: Float[Array, "q k"],
    targets: Int[Array, " q"],
    seen: Int[Array, "q s"] | None = None,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Rank of one item a query in the lists of a beam, and its score.

    Targets compete although they are seen, but a search with `seen` does not list them: search without, for lists as
    much longer as `seen` is wide, and give `seen` here.

    Args:
        items: of the lists, 0 where they have run out.
        scores: of the items.
        targets: item ids from 1.
        seen: ids that do not compete, 0-padded.

    Returns:
        1 + the number of competitors before the target. `UNRANKED` and -inf for a target that is not in its list; 0 and
        NaN for a query whose scores are NaN.
    """
    here = (items == targets[:, None]) & (items > 0)
    held, place = jnp.any(here, axis=1), jnp.argmax(here, axis=1)[:, None]
    ahead = jnp.arange(items.shape[1]) < place
    if seen is not None:
        ahead &= ~jnp.any(items[:, :, None] == seen[:, None, :], axis=2)
    broken = jnp.any(jnp.isnan(scores), axis=1)
    own = jnp.where(held, jnp.take_along_axis(scores, place, axis=1)[:, 0], -jnp.inf)
    ranks = jnp.where(held, 1 + jnp.sum(ahead, axis=1, dtype=jnp.int32), UNRANKED)
    return jnp.where(broken, 0, ranks), jnp.where(broken, jnp.nan, own)


class Prefixes(NamedTuple):
    """Prefixes of each query: scores float32 [q, w], nodes of the trie, last codes, and the model's cache."""

    scores: Array
    nodes: Array
    codes: Array
    cache: Any


def root(begin: Begin, queries: Any) -> Prefixes:
    """The empty prefix of each query."""
    rows = jax.tree.leaves(queries)[0].shape[0]
    start = jnp.full((rows, 1), -1, jnp.int32)
    return Prefixes(jnp.zeros((rows, 1)), jnp.zeros((rows, 1), jnp.int32), start, begin(queries))


def _grown(
    step: Step, prefixes: Prefixes, trie: Trie, level: int, wanted: int, keep: Array | None, normalise: Normalise
) -> tuple[Prefixes, Bool[Array, " q"]]:
    """The best prefixes that are longer by one code, and whether all that they were chosen from was finite."""
    gained, child, cache = gains(step, prefixes, trie, level, normalise)
    live = prefixes.scores > -jnp.inf
    exists = (child >= 0) & live[:, :, None]
    is_finite = jnp.all(jnp.isfinite(gained) | ~exists, axis=(1, 2))
    eligible = exists if keep is None else exists & keep[child]
    scores = jnp.where(eligible, prefixes.scores[:, :, None] + gained, -jnp.inf)
    rows, width, size = scores.shape
    scores, place = jax.lax.top_k(scores.reshape(rows, -1), min(wanted, width * size, trie.codes[level].shape[0]))
    nodes = jnp.maximum(jnp.take_along_axis(child.reshape(rows, -1), place, axis=1), 0)
    # top_k orders NaN above all else: the query is lost, and says so.
    return Prefixes(scores, nodes, place % size, gathered(cache, place // size)), is_finite


def gains(
    step: Step, prefixes: Prefixes, trie: Trie, level: int, normalise: Normalise
) -> tuple[Float[Array, "q w size"], Int[Array, "q w size"], Any]:
    """Log-probabilities of the next code, the child that each leads to (-1 for none), and the model's new cache."""
    logits, cache = step(prefixes.cache, prefixes.codes)
    expected = (*prefixes.codes.shape, trie.sizes[level])
    if logits.shape != expected:
        raise InputError(f"step {level} returned logits of shape {logits.shape}, expected {expected}")
    logits, child = logits.astype(jnp.float32), children(trie, level, prefixes.nodes)
    if normalise == "vocabulary":
        return jax.nn.log_softmax(logits), child, cache
    return jax.nn.log_softmax(logits, where=child >= 0), child, cache


def children(trie: Trie, level: int, nodes: Int[Array, "q w"]) -> Int[Array, "q w size"]:
    """For each code of a slot, the child of a node by it; -1 for none. A binary search: codes of siblings ascend."""
    codes, size = trie.codes[level], trie.sizes[level]
    if level == 0:
        begin, end = jnp.zeros_like(nodes), jnp.sum(trie.first[0][1:] > trie.first[0][:-1]).astype(jnp.int32)
        end = jnp.broadcast_to(end, nodes.shape)
    else:
        begin, end = trie.first[level - 1][nodes], trie.first[level - 1][nodes + 1]
    sought = jnp.arange(size)

    def halved(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        right = (codes[middle] < sought) & (low < high)
        return jnp.where(right, middle + 1, low), jnp.where(right, high, middle)

    shape = (*nodes.shape, size)
    low, high = (jnp.broadcast_to(bound[..., None], shape) for bound in (begin, end))
    found, _ = jax.lax.fori_loop(0, size.bit_length(), halved, (low, high))
    return jnp.where((found < end[..., None]) & (codes[found] == sought), found, -1)


def gathered(cache: Any, parents: Int[Array, "q w"]) -> Any:
    """The cache of each parent; arrays with one entry a query serve all of its prefixes as they are."""

    def gather(x: Array) -> Array:
        if x.shape[1] == 1:
            return x
        return jnp.take_along_axis(x, parents.reshape(*parents.shape, *[1] * (x.ndim - 2)), axis=1, mode="clip")

    return jax.tree.map(gather, cache)


def _restricted(trie: Trie, candidates: Bool[Array, " m"]) -> tuple[tuple[Array, ...], Trie]:
    """Nodes of each level that lead to a candidate, and the same nodes with candidates alone below the last level."""
    open_ = is_among(trie.items, jnp.asarray(candidates)) & (trie.items > 0)
    before = _before(open_)
    place = jnp.where(open_, before[:-1], trie.capacity)
    items = jnp.zeros_like(trie.items).at[place].set(trie.items, mode="drop")
    lists = replace(trie, items=items, first=(*trie.first[:-1], before[trie.first[-1]]))
    leads = []
    for first in reversed(trie.first):
        open_ = before[first[1:]] > before[first[:-1]]
        leads.append(open_)
        before = _before(open_)
    return tuple(leads[::-1]), lists


def _before(mask: Bool[Array, " n"]) -> Int[Array, " m"]:
    """Number of true entries before each place, and before the end."""
    return jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(mask, dtype=jnp.int32)])


def is_among(ids: Int[Array, "*n"], mask: Bool[Array, " m"]) -> Bool[Array, "*n"]:
    """True if a mask by item id allows each item; ids beyond its end are not allowed."""
    return mask.at[ids].get(mode="fill", fill_value=False)
