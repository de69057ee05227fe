"""The exact ranking by a model that predicts codes one after another: the oracle of `recjax.decode.stepwise`'s beam.

Every node of the trie is expanded once, a chunk of nodes at a time and depth first, so that no more caches exist than a
chunk for each level. Scores of all items of the given queries exist at once: give a few queries at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp

from recjax.decode.stepwise import UNRANKED, Begin, Normalise, Prefixes, Step, gains, gathered, is_among, root
from recjax.decode.trie import Trie
from recjax.ops.items.topk import Scorer, rank_by, topk_by
from recjax.typing import Array, Bool, Float, InputError, Int

NODE_CHUNK = 256
"""Nodes of the trie expanded at a time."""


def expanded_topk(
    begin: Begin,
    step: Step,
    queries: Any,
    trie: Trie,
    k: int,
    *,
    seen: Int[Array, "q s"] | None = None,
    candidates: Bool[Array, " m"] | None = None,
    normalise: Normalise = "vocabulary",
    chunk: int = NODE_CHUNK,
) -> tuple[Int[Array, "q k"], Float[Array, "q k"]]:
    """The best items of each query, exactly: `stepwise_topk`'s contract, with every node of the trie expanded."""
    scores, inside = item_scores(begin, step, queries, trie, normalise=normalise, chunk=chunk)
    seen = jnp.zeros((len(scores), 0), jnp.int32) if seen is None else seen
    allowed = inside if candidates is None else inside & is_among(jnp.arange(len(inside)), candidates)
    ids = jnp.arange(len(inside))
    return topk_by(_LOOKED_UP, scores, ids, seen, k, candidates=allowed, n_items=trie.capacity)


def expanded_rank(
    begin: Begin,
    step: Step,
    queries: Any,
    trie: Trie,
    targets: Int[Array, " q"],
    *,
    seen: Int[Array, "q s"] | None = None,
    candidates: Array | None = None,
    normalise: Normalise = "vocabulary",
    chunk: int = NODE_CHUNK,
) -> tuple[Int[Array, " q"], Float[Array, " q"]]:
    """Exact rank of one item a query: 1 + unseen items with a higher score + those with that score and a smaller id.

    The target competes even where it is seen or no candidate.

    Args:
        begin: see the module.
        step: see the module.
        queries: as in `stepwise_topk`.
        trie: the catalog.
        targets: item ids from 1.
        seen: ids that do not compete, 0-padded.
        candidates: the only items that compete: bool by item id, the same for all queries; or int32 [q, c] ids of
            each query without repeats, 0-padded.
        normalise: see `Normalise`.
        chunk: nodes expanded at a time.

    Returns:
        Ranks, and scores of the targets. A query with a score that is not finite gets rank 0 and score NaN; a target
        that is not in the trie gets `UNRANKED` and -inf.
    """
    scores, inside = item_scores(begin, step, queries, trie, normalise=normalise, chunk=chunk)
    seen = jnp.zeros((len(scores), 0), jnp.int32) if seen is None else seen
    if candidates is None:
        among = inside
    elif candidates.dtype == jnp.bool_:
        among = inside & is_among(jnp.arange(len(inside)), candidates)
    else:
        among = jnp.where(is_among(candidates, inside), candidates, 0)
    ids = jnp.arange(len(inside))
    ranks, found = rank_by(_LOOKED_UP, scores, ids, targets, seen, candidates=among, n_items=trie.capacity)
    absent = ~is_among(targets, inside) & (targets > 0) & (ranks > 0)
    return jnp.where(absent, UNRANKED, ranks), jnp.where(absent, -jnp.inf, found)


def item_scores(
    begin: Begin,
    step: Step,
    queries: Any,
    trie: Trie,
    *,
    normalise: Normalise = "vocabulary",
    chunk: int = NODE_CHUNK,
) -> tuple[Float[Array, "q n"], Bool[Array, " n"]]:
    """Scores of all items by id, and which ids are items of the trie; n = capacity + 1, the others have score 0.

    Below each chunk of nodes stand their children, which are neighbours, a chunk of them at a time: about one step a
    node, two at most where chunks are not full.
    """
    if chunk < 1:
        raise InputError(f"chunk is {chunk}, expected at least 1")
    rows, leaves = jax.tree.leaves(queries)[0].shape[0], trie.codes[-1].shape[0]

    def below(level: int, first: Array | int, stop: Array, prefixes: Prefixes, out: Array) -> Array:
        """Writes the scores of all tuples below a chunk of prefixes, the nodes from `first` on of the level before."""
        gained, _, cache = gains(step, prefixes, trie, level, normalise)
        start = _child_start(trie, level, first)

        def children(number: Array, out: Array) -> Array:
            nodes = start + number * chunk + jnp.arange(chunk)
            parents = _parents(trie, level, nodes) - first
            codes = trie.codes[level][nodes]
            scores = prefixes.scores[:, parents] + gained[:, parents, codes]
            if level + 1 == trie.slots:
                return out.at[:, jnp.where(nodes < stop, nodes, leaves)].set(scores, mode="drop")
            last = jnp.minimum(nodes[0] + chunk, stop)
            nodes_of_all, codes_of_all, parents = (jnp.broadcast_to(x, (rows, chunk)) for x in (nodes, codes, parents))
            own = Prefixes(scores, nodes_of_all, codes_of_all, gathered(cache, parents))
            return below(level + 1, nodes[0], _child_start(trie, level + 1, last), own, out)

        return jax.lax.fori_loop(0, -(-(stop - start) // chunk), children, out)

    nodes = jnp.sum(trie.first[0][1:] > trie.first[0][:-1])
    by_tuple = below(0, 0, nodes, root(begin, queries), jnp.zeros((rows, leaves)))
    place = jnp.arange(trie.capacity)
    leaf = jnp.searchsorted(trie.first[-1], place, side="right") - 1
    ids = jnp.where(place < trie.count, trie.items, trie.capacity + 1)
    scores = jnp.zeros((rows, trie.capacity + 1)).at[:, ids].set(by_tuple[:, leaf], mode="drop")
    return scores, jnp.zeros(trie.capacity + 1, bool).at[ids].set(True, mode="drop")


def _child_start(trie: Trie, level: int, node: Array | int) -> Array:
    """The first of the nodes of a level that stand below a node of the level before."""
    return jnp.zeros_like(jnp.asarray(node)) if level == 0 else trie.first[level - 1][node]


def _parents(trie: Trie, level: int, nodes: Int[Array, " c"]) -> Int[Array, " c"]:
    """Nodes of the level before."""
    if level == 0:
        return jnp.zeros_like(nodes)
    return jnp.searchsorted(trie.first[level - 1], nodes, side="right") - 1


_LOOKED_UP = Scorer(lambda scores, ids: scores[:, ids], lambda scores, ids: jnp.take_along_axis(scores, ids, axis=1))
"""Queries are rows of scores that exist already, and the table is item ids."""
