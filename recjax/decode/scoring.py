"""Scores of a catalog's items for a batch of queries, in the few forms that recommenders have.

A model says what it scores by; lists and ranks follow from that here, under one contract:

* Lists hold the best unseen items, higher score first, equal scores by the smaller id. A list that runs out ends in
  item 0 with score -inf. Padding, seen items and items outside `candidates` are never listed.
* The rank of a target is 1 + the number of unseen items that come before it in that order; the target competes even
  where it is seen or no candidate. A search that looks at part of the catalog answers `UNRANKED` for a target that it
  did not find.
* A query with a score that is not finite gets items 0, scores NaN and rank 0, which evaluation refuses.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recjax.decode import expansion, stepwise
from recjax.decode.exact import Logits, code_scorer, code_scores
from recjax.decode.stepwise import UNRANKED, Begin, Normalise, Step
from recjax.decode.trie import Trie
from recjax.ops.items.topk import DOT_PRODUCT, Scorer, rank_by, ranks_by, scores_by, topk_and_rank_by, topk_by
from recjax.typing import Array, Bool, Float, InputError, Int

__all__ = ["UNRANKED", "CodeSum", "DotProduct", "Overlay", "Pairs", "Scoring", "Stepwise"]

Lists = tuple[Int[Array, "q k"], Float[Array, "q k"]]
"""Items and their scores, best first."""

Ranks = tuple[Int[Array, " q"], Float[Array, " q"]]
"""Ranks of targets, and their scores."""


class Scoring(ABC):
    """Scores of all items for some queries."""

    @abstractmethod
    def topk(self, seen: Int[Array, "q s"], k: int, candidates: Bool[Array, " n"] | None = None) -> Lists:
        """The best `k` items of each query.

        Args:
            seen: ids never to be listed, in any order, repeats allowed, 0-padded.
            k: length of the lists; may exceed the catalog.
            candidates: the only items that may be listed, by item id.
        """

    @abstractmethod
    def rank(self, targets: Int[Array, " q"], seen: Int[Array, "q s"], candidates: Array | None = None) -> Ranks:
        """The rank of one item a query.

        Args:
            targets: item ids from 1; 0 for a query that only fills the batch up.
            seen: ids that do not compete, 0-padded.
            candidates: the only items that compete: bool by item id, the same for all queries; or int32 [q, c] ids of
                each query without repeats, 0-padded.
        """

    def rank_and_list(
        self, targets: Int[Array, " q"], seen: Int[Array, "q s"], k: int, candidates: Array | None = None
    ) -> tuple[Int[Array, " q"], Int[Array, "q k"]]:
        """Ranks of `rank` and items of `topk` over the whole catalog, for evaluation, which wants both."""
        return self.rank(targets, seen, candidates)[0], self.topk(seen, k)[0]

    def ranks(self, targets: Int[Array, "q t"], seen: Int[Array, "q s"]) -> Int[Array, "q t"]:
        """The ranks of several items a query, each as `rank` gives it: targets compete with each other too.

        Args:
            targets: item ids from 1, 0-padded; the rank of padding may be anything.
            seen: ids that do not compete, 0-padded.
        """
        return jax.lax.map(lambda column: self.rank(column, seen)[0], targets.T).T

    def scores(self, items: Int[Array, "q c"]) -> Float[Array, "q c"]:
        """The scores of a few items of each query.

        Args:
            items: item ids from 1, 0-padded: 0 there.

        Raises:
            InputError: a search knows no score of an item that it did not come across.
        """
        raise InputError(f"{type(self).__name__} does not score single items")


class _EveryItem(Scoring):
    """Scoring that looks at every item: exact lists and ranks."""

    start: Array | int
    n_items: Array | int

    def __post_init__(self) -> None:
        if not (isinstance(self.start, int) and isinstance(self.n_items, int)):
            return
        rows = min(leaf.shape[0] for leaf in jax.tree.leaves(self._parts()[2]))
        if rows <= self.start + self.n_items:
            raise InputError(
                f"{type(self).__name__} has {rows} rows of items, expected {self.start + self.n_items + 1}: item i is "
                f"row {self.start} + i, up to i = {self.n_items}"
            )

    @abstractmethod
    def _parts(self) -> tuple[Scorer, Any, Any]:
        """The scorer, the queries and the table that it scores."""

    def topk(self, seen: Int[Array, "q s"], k: int, candidates: Bool[Array, " n"] | None = None) -> Lists:
        where = {"candidates": candidates, "start": self.start, "n_items": self.n_items}
        return topk_by(*self._parts(), seen, k, **where)

    def rank(self, targets: Int[Array, " q"], seen: Int[Array, "q s"], candidates: Array | None = None) -> Ranks:
        where = {"candidates": candidates, "start": self.start, "n_items": self.n_items}
        return rank_by(*self._parts(), targets, seen, **where)

    def rank_and_list(
        self, targets: Int[Array, " q"], seen: Int[Array, "q s"], k: int, candidates: Array | None = None
    ) -> tuple[Int[Array, " q"], Int[Array, "q k"]]:
        if candidates is not None:
            return super().rank_and_list(targets, seen, k, candidates)
        scorer, queries, table = self._parts()
        items, ranks = topk_and_rank_by(
            scorer, queries, table, targets, seen, k, start=self.start, n_items=self.n_items
        )
        return ranks, items

    def ranks(self, targets: Int[Array, "q t"], seen: Int[Array, "q s"]) -> Int[Array, "q t"]:
        return ranks_by(*self._parts(), targets, seen, start=self.start, n_items=self.n_items)[0]

    def scores(self, items: Int[Array, "q c"]) -> Float[Array, "q c"]:
        return scores_by(*self._parts(), items, start=self.start, n_items=self.n_items)


@dataclass(frozen=True, eq=False)
class DotProduct(_EveryItem):
    """The score of an item is its vector's product with the user state.

    Attributes:
        users: user states.
        vectors: item vectors; item i is row `start + i`, other rows may hold anything.
        bias: added to each item's score, or None.
        start: row before the first item's; may be traced.
        n_items: items of the catalog; may be traced. An int where it is known, so that fewer shapes are compiled.
    """

    users: Float[Array, "q d"]
    vectors: Float[Array, "rows d"]
    n_items: Array | int
    bias: Float[Array, " rows"] | None = None
    start: Array | int = 0

    def _parts(self) -> tuple[Scorer, Any, Any]:
        return DOT_PRODUCT, self.users, (self.vectors, self.bias)


@dataclass(frozen=True, eq=False)
class CodeSum(_EveryItem):
    """The score of an item is the sum of the logits of its codes, which are predicted independently of each other.

    Attributes:
        logits: float32 [q, slots, size], or one [q, size] a slot.
        codes: codes of the items; item i is row `start + i`.
        n_items: items of the catalog; may be traced.
        users: with `vectors`, adds their product to the scores.
        vectors: one for each row of `codes`.
        start: row before the first item's; may be traced.
    """

    logits: Logits
    codes: Int[Array, "rows slots"]
    n_items: Array | int
    users: Float[Array, "q d"] | None = None
    vectors: Float[Array, "rows d"] | None = None
    start: Array | int = 0

    def _parts(self) -> tuple[Scorer, Any, Any]:
        queries, table = code_scores(self.logits, self.codes, self.users, self.vectors)
        return code_scorer(self.users), queries, table


@dataclass(frozen=True, eq=False)
class Pairs(_EveryItem):
    """The score of an item is any function of a query and the item.

    Attributes:
        score: (queries [q, ...], rows [c, ...]) -> float32 [q, c].
        queries: pytree of arrays with the query as first axis.
        rows: pytree of arrays with a row for each item; item i is row `start + i`.
        n_items: items of the catalog; may be traced.
        start: row before the first item's; may be traced.
    """

    score: Callable[[Any, Any], Array]
    queries: Any
    rows: Any
    n_items: Array | int
    start: Array | int = 0

    def _parts(self) -> tuple[Scorer, Any, Any]:
        return Scorer(self.score, self._each), self.queries, self.rows

    def _each(self, queries: Any, rows: Any) -> Array:
        """Scores [q, c] of rows [q, c, ...], each query with its own."""

        def one(query: Any, own: Any) -> Array:
            return self.score(jax.tree.map(lambda x: x[None], query), own)[0]

        return jax.vmap(one)(queries, rows)


@dataclass(frozen=True, eq=False)
class Overlay(_EveryItem):
    """The score of an item is a product of few numbers, but for a few items of each query, which have one of their own.

    Attributes:
        users: factors of each query.
        vectors: of the items; item i is row `start + i`.
        listed: rows of the items with a score of their own, each once; 0 where there are fewer.
        own: their scores.
        n_items: items of the catalog; may be traced.
        start: row before the first item's; may be traced.
    """

    users: Float[Array, "q d"]
    vectors: Float[Array, "rows d"]
    listed: Int[Array, "q m"]
    own: Float[Array, "q m"]
    n_items: Array | int
    start: Array | int = 0

    def _parts(self) -> tuple[Scorer, Any, Any]:
        numbers = jnp.arange(self.vectors.shape[0])
        queries = (self.users, self.listed, self.own)
        return Scorer(_overlaid, _overlaid_pairs, multiple=8), queries, (self.vectors, numbers)


def _overlaid(queries: Any, rows: Any) -> Array:
    """Scores [q, c] of rows that follow each other."""
    users, listed, own = queries
    vectors, numbers = rows
    place = listed - numbers[0]
    place = jnp.where((listed > 0) & (place >= 0), place, numbers.shape[0])  # others fall off the end
    product = DOT_PRODUCT.rows(users, (vectors, None))
    return jax.vmap(lambda row, place, own: row.at[place].set(own, mode="drop"))(product, place, own)


def _overlaid_pairs(queries: Any, rows: Any) -> Array:
    """Scores [q, c] of rows [q, c, ...], each query with its own."""
    users, listed, own = queries
    vectors, numbers = rows

    def one(listed: Array, own: Array, numbers: Array, product: Array) -> Array:
        order = jnp.argsort(listed)
        place = jnp.minimum(jnp.searchsorted(listed[order], numbers), listed.shape[0] - 1)
        return jnp.where((listed[order][place] == numbers) & (numbers > 0), own[order][place], product)

    return jax.vmap(one)(listed, own, numbers, DOT_PRODUCT.pairs(users, (vectors, None)))


@dataclass(frozen=True, eq=False)
class Stepwise(Scoring):
    """The score of an item is the sum of the log-probabilities of its codes, each given the codes before it.

    Lists come from a beam over the trie of the catalog; a target that the beam does not find is `UNRANKED`. With
    `beam=None` every node of the trie is expanded instead: exact lists and ranks, at the cost of one decoder state a
    node and query, so for a few queries at a time.

    Attributes:
        begin: queries -> the model's cache, see `recjax.decode.stepwise`.
        step: (cache, last codes) -> (logits of the next slot, cache).
        queries: pytree of arrays with the query as first axis.
        trie: of the catalog's codes.
        beam: prefixes kept after each level, or None for the exact expansion.
        normalise: the codes that a code's probability is taken among.
    """

    begin: Begin
    step: Step
    queries: Any
    trie: Trie
    beam: int | None = 50
    normalise: Normalise = "vocabulary"

    def topk(self, seen: Int[Array, "q s"], k: int, candidates: Bool[Array, " n"] | None = None) -> Lists:
        options: dict[str, Any] = {"seen": seen, "candidates": candidates, "normalise": self.normalise}
        search = (self.begin, self.step, self.queries, self.trie, k)
        if self.beam is None:
            return expansion.expanded_topk(*search, **options)
        return stepwise.stepwise_topk(*search, beam=self.beam, **options)

    def rank(self, targets: Int[Array, " q"], seen: Int[Array, "q s"], candidates: Array | None = None) -> Ranks:
        if self.beam is None:
            options: dict[str, Any] = {"seen": seen, "candidates": candidates, "normalise": self.normalise}
            return expansion.expanded_rank(self.begin, self.step, self.queries, self.trie, targets, **options)
        if candidates is not None and candidates.dtype != jnp.bool_:
            raise InputError(
                "a beam cannot rank among candidates of each query's own (evaluate.candidates): decode exactly "
                "(model.beam=none), or rank against the full catalog"
            )
        return stepwise.rank_in_list(*self.topk(_without(targets, seen), self.beam, candidates), targets)

    def rank_and_list(
        self, targets: Int[Array, " q"], seen: Int[Array, "q s"], k: int, candidates: Array | None = None
    ) -> tuple[Int[Array, " q"], Int[Array, "q k"]]:
        """Both from one search: seen targets compete in it, and are taken out of its lists afterwards."""
        if self.beam is None or candidates is not None:
            return super().rank_and_list(targets, seen, k, candidates)
        items, scores = self.topk(_without(targets, seen), max(k + 1, self.beam))
        ranks, _ = stepwise.rank_in_list(items, scores, targets)
        hidden = (items == targets[:, None]) & jnp.any(seen == targets[:, None], axis=1, keepdims=True)
        order = jnp.argsort(hidden, axis=1, stable=True)[:, :k]
        return ranks, jnp.take_along_axis(jnp.where(hidden, 0, items), order, axis=1)

    def ranks(self, targets: Int[Array, "q t"], seen: Int[Array, "q s"]) -> Int[Array, "q t"]:
        """From one search in which all targets compete, so that it has to find seen ones beside the others."""
        if self.beam is None:
            return super().ranks(targets, seen)
        asked = jax.vmap(jnp.isin)(seen, targets)
        items, scores = self.topk(jnp.where(asked, 0, seen), self.beam)
        hidden = jax.vmap(jnp.isin)(items, jnp.where(seen > 0, seen, -1))
        ahead = jnp.cumsum(~hidden, axis=1) - ~hidden  # items that compete before each place
        found = (items[:, None] == targets[:, :, None]) & (targets[:, :, None] > 0)
        place = jnp.argmax(found, axis=2)
        ranks = jnp.where(jnp.any(found, axis=2), 1 + jnp.take_along_axis(ahead, place, axis=1), UNRANKED)
        return jnp.where(jnp.any(jnp.isnan(scores), axis=1, keepdims=True), 0, ranks).astype(jnp.int32)

    def scores(self, items: Int[Array, "q c"]) -> Float[Array, "q c"]:
        """By the exact expansion alone; a beam knows no score of an item that it did not come across."""
        if self.beam is not None:
            return super().scores(items)
        found = expansion.item_scores(self.begin, self.step, self.queries, self.trie, normalise=self.normalise)[0]
        return jnp.where(items > 0, jnp.take_along_axis(found, items, axis=1), 0.0)


def _without(targets: Int[Array, " q"], seen: Int[Array, "q s"]) -> Int[Array, "q s"]:
    """Seen items less the target, so that it competes."""
    return jnp.where(seen == targets[:, None], 0, seen)
