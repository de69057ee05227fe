"""Search for items whose codes have no order: at each step every path takes the next code in a slot of its own choice.

    begin(queries) -> cache                        what the model remembers of each query: a tree of arrays [q, ...]
    step(cache, codes, used) -> logits             codes int32 [q, b, slots] so far, used bool [q, b, slots];
                                                   logits float32 [q, b, slots, size] of all slots

A path holds the items that its codes leave, so no path ends but at items; these have its score, the sum of the
log-probabilities of its codes at the steps at which they were taken. After the last code none is left out. Paths of one
query differ from the first step on, at which they share the slot, so no item is on two. `[q, b, items]` flags exist at
once: for catalogs of thousands of items. Items that no path ends at have the score -inf.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.decode.scoring import UNRANKED, Lists, Ranks, Scoring
from recjax.typing import Array, Bool, Float, Int

Begin = Callable[[Any], Any]
Step = Callable[[Any, Array, Array], Array]
Judge = Callable[[Any, Array], Array]
"""(cache, codes int32 [q, b, slots]) -> float32 [q, b], how well the codes of finished paths agree."""

Order = Literal["confidence", "fixed", "random"]
"""Slot that comes next: the one whose likeliest code is the likeliest; the first; or one drawn for each query."""


def path_scores(
    begin: Begin,
    step: Step,
    queries: Any,
    codes: Int[Array, "n slots"],
    open_: Bool[Array, " n"],
    *,
    beam: int,
    order: Order = "confidence",
    spare: int = 0,
    judge: Judge | None = None,
    least: float = 0.0,
) -> tuple[Float[Array, "q n"], Bool[Array, " q"], Int[Array, "q slots"]]:
    """Scores of all items, -inf for those that no path ends at.

    Args:
        begin: see the module.
        step: see the module.
        queries: a tree of arrays with the leading axis q.
        codes: of the items.
        open_: the items that may be found.
        beam: paths kept after each code but the last; as many as there are items find all.
        order: see `Order`.
        spare: see `judge`.
        judge: of the codes of the best `beam + spare` items; of all items those alone are found to which it gives no
            less than `least`, and the one that it gives most.
        least: see `judge`.

    Returns:
        Scores; whether all logits that they were chosen by were finite; and the slots in the order in which the best
        path of each query took them.
    """
    rows, (n, slots) = jax.tree.leaves(queries)[0].shape[0], codes.shape
    cache = begin(queries)
    drawn = jnp.argsort(jax.random.uniform(jax.random.key(0), (rows, slots)), axis=1)
    scores, left = jnp.zeros((rows, 1)), jnp.broadcast_to(open_, (rows, 1, n))
    taken = jnp.zeros((rows, 1, slots), jnp.int32)
    used, way = jnp.zeros((rows, 1, slots), bool), jnp.zeros((rows, 1, slots), jnp.int32)
    finite = jnp.ones(rows, bool)

    def next_slot(place: int, scores: Array, taken: Array, used: Array) -> tuple[Array, Array, Array, Array]:
        """The slot that each path takes, its codes' log-probabilities, those of its items; what was not finite."""
        chances = jax.nn.log_softmax(step(cache, taken, used).astype(jnp.float32))
        broken = ~jnp.isfinite(chances) & (scores > -jnp.inf)[..., None, None]
        if order == "confidence":
            slot = jnp.argmax(jnp.where(used, -jnp.inf, jnp.max(chances, axis=-1)), axis=-1)
        else:
            slot = jnp.broadcast_to(drawn[:, place, None] if order == "random" else place, scores.shape)
        own = jnp.take_along_axis(chances, slot[..., None, None], axis=2)[:, :, 0]
        return slot, own, codes.T[slot], jnp.any(broken, axis=(1, 2, 3))  # [q, b], [q, b, c], [q, b, n], [q]

    for place in range(slots - 1):
        slot, own, values, broken = next_slot(place, scores, taken, used)
        finite &= ~broken
        size, live = own.shape[-1], scores > -jnp.inf
        exists = present(values, left, size)
        gained = jnp.where(exists & live[..., None], scores[..., None] + own, -jnp.inf).reshape(rows, -1)
        scores, best = jax.lax.top_k(gained, min(beam, gained.shape[1], n))
        parent, code = best // size, best % size
        slot, used, way, taken = (_taken(x, parent) for x in (slot, used, way, taken))
        left = _taken(left, parent) & (_taken(values, parent) == code[..., None])
        here = jnp.arange(slots) == slot[..., None]
        taken, used = jnp.where(here, code[..., None], taken), used | here
        way = way.at[:, :, place].set(slot)
    slot, own, values, broken = next_slot(slots - 1, scores, taken, used)
    finite, live = finite & ~broken, scores > -jnp.inf
    ends = scores[..., None] + jnp.take_along_axis(own, values, axis=2)
    ends = jnp.where(left & live[..., None], ends, -jnp.inf)
    found, path = jnp.max(ends, axis=1), jnp.argmax(jnp.max(ends, axis=2), axis=1)
    way = way.at[:, :, -1].set(slot)[jnp.arange(rows), path]
    if judge is not None:
        values, items = jax.lax.top_k(found, min(beam + spare, n))
        agree = jnp.where(values > -jnp.inf, judge(cache, codes[items]), -jnp.inf)
        kept = (agree >= least) | (agree == jnp.max(agree, axis=1, keepdims=True))
        nothing = jnp.full_like(found, -jnp.inf)
        found = nothing.at[jnp.arange(rows)[:, None], items].set(jnp.where(kept, values, -jnp.inf))
    return found, finite, way


def _taken(x: Array, parent: Int[Array, "q b"]) -> Array:
    """Entries of the parent of each path."""
    return jnp.take_along_axis(x, parent.reshape(*parent.shape, *[1] * (x.ndim - 2)), axis=1)


def present(values: Int[Array, "q b n"], among: Bool[Array, "q b n"], size: int) -> Bool[Array, "q b size"]:
    """Flags of the values that some of the items have."""
    one = jnp.zeros(size, bool)
    return jax.vmap(jax.vmap(lambda own, held: one.at[own].max(held)))(values, among)


@dataclass(frozen=True, eq=False)
class AnyOrder(Scoring):
    """The score of an item is that of the path that ends at it, see the module; a target at which none
    of the paths ends is `UNRANKED`.

    Attributes:
        begin: queries -> the model's cache.
        step: (cache, codes, which of them) -> logits of all slots.
        queries: pytree of arrays with the query as first axis.
        codes: of the items; item i is row `start + i`.
        n_items: items of the catalog.
        beam: paths kept after each code but the last, or None for as many as there are items: all of them.
        order: of the slots.
        judge: of finished paths, see `path_scores`; with `least`.
        start: row before the first item's; may be traced.
    """

    begin: Begin
    step: Step
    queries: Any
    codes: Int[Array, "rows slots"]
    n_items: int
    beam: int | None = 20
    order: Order = "confidence"
    judge: Judge | None = None
    least: float = 0.0
    start: Array | int = 0

    def found(self, open_: Bool[Array, " n"] | None = None, spare: int = 0) -> Float[Array, "q n"]:
        """Scores of items 1 .. n by a search among those that are open; NaN for a query whose logits are not finite.

        With `spare` so many more items are judged, for seen ones may be among them.
        """
        codes = jax.lax.dynamic_slice_in_dim(self.codes, self.start + 1, self.n_items)
        open_ = jnp.ones(self.n_items, bool) if open_ is None else open_
        beam = self.n_items if self.beam is None else self.beam
        search = (self.begin, self.step, self.queries, codes, open_)
        scores, finite, _ = path_scores(
            *search, beam=beam, order=self.order, spare=spare, judge=self.judge, least=self.least
        )
        return jnp.where(finite[:, None], scores, jnp.nan)

    def topk(self, seen: Int[Array, "q s"], k: int, candidates: Bool[Array, " n"] | None = None) -> Lists:
        among = None if candidates is None else candidates[1 : self.n_items + 1]
        return self._listed(self.found(among, seen.shape[1]), seen, k)

    def _listed(self, scores: Float[Array, "q n"], seen: Int[Array, "q s"], k: int) -> Lists:
        shown = jnp.where(_among(seen, self.n_items), -jnp.inf, scores)
        scores, places = jax.lax.top_k(jnp.pad(shown, [(0, 0), (0, k)], constant_values=-jnp.inf), k)
        items = jnp.where(scores > -jnp.inf, places + 1, 0)
        broken = jnp.any(jnp.isnan(shown), axis=1, keepdims=True)
        return jnp.where(broken, 0, items).astype(jnp.int32), jnp.where(broken, jnp.nan, scores)

    def rank(self, targets: Int[Array, " q"], seen: Int[Array, "q s"], candidates: Array | None = None) -> Ranks:
        return self._ranked(self.found(spare=seen.shape[1]), targets, seen, candidates)

    def _ranked(
        self, scores: Float[Array, "q n"], targets: Int[Array, " q"], seen: Int[Array, "q s"], candidates: Array | None
    ) -> Ranks:
        ids, competes = jnp.arange(1, self.n_items + 1), ~_among(seen, self.n_items)
        if candidates is not None:
            shared = candidates.dtype == jnp.bool_
            competes &= candidates[1 : self.n_items + 1] if shared else _among(candidates, self.n_items)
        own = jnp.take_along_axis(scores, jnp.maximum(targets - 1, 0)[:, None], axis=1)
        ahead = (scores > own) | ((scores == own) & (ids < targets[:, None]))
        ranks = 1 + jnp.sum(competes & ahead & (ids != targets[:, None]), axis=1, dtype=jnp.int32)
        ranks = jnp.where(own[:, 0] > -jnp.inf, ranks, UNRANKED)
        broken = jnp.any(jnp.isnan(scores), axis=1)
        return jnp.where(broken, 0, ranks), jnp.where(broken, jnp.nan, own[:, 0])

    def rank_and_list(
        self, targets: Int[Array, " q"], seen: Int[Array, "q s"], k: int, candidates: Array | None = None
    ) -> tuple[Int[Array, " q"], Int[Array, "q k"]]:
        """Both from one search, of all items."""
        scores = self.found(spare=seen.shape[1])
        return self._ranked(scores, targets, seen, candidates)[0], self._listed(scores, seen, k)[0]

    def scores(self, items: Int[Array, "q c"]) -> Float[Array, "q c"]:
        """-inf for an item at which no path ends."""
        return jnp.where(items > 0, jnp.take_along_axis(self.found(), jnp.maximum(items - 1, 0), axis=1), 0.0)


def _among(ids: Int[Array, "q s"], n_items: int) -> Bool[Array, "q n"]:
    """Flags of the items 1 .. n that are among the ids of each query."""
    flags = jnp.zeros((len(ids), n_items + 1), bool)
    return flags.at[jnp.arange(len(ids))[:, None], ids].set(True, mode="drop")[:, 1:]
