"""Runs a model over users: the rank of each user's target, and the best items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries, View
from recjax.data.items import Items, bare_items
from recjax.data.splits import Examples
from recjax.decode.scoring import UNRANKED, Scoring
from recjax.evaluate.metrics import MISS
from recjax.models.model import Model
from recjax.parallel.sharding import local_rows, row_sharding, to_devices
from recjax.track.console import tracked
from recjax.typing import Array, InputError, Params

IN_FLIGHT = 2
"""Batches whose results have not been fetched yet, so that the device never waits for the host."""


MANY_USERS = 20_000
"""From here on, shorter rows save more time than compiling for more shapes costs."""


class NonFiniteScoresError(ArithmeticError):
    """A model gave scores that are NaN or infinite; such users have no rank."""

    @classmethod
    def of(cls, users: Sequence[str]) -> "NonFiniteScoresError":
        shown = ", ".join(repr(user) for user in users[:5]) + (", ..." if len(users) > 5 else "")
        noun = "user" if len(users) == 1 else "users"
        return cls(
            f"scores that are not finite for {len(users):,} {noun}: {shown}; the parameters are damaged or diverged"
        )


@dataclass(frozen=True, eq=False)
class Rankings:
    """Results of ranking, user by user, in the order of the examples.

    Attributes:
        ranks: int64 [n], rank of the target, or `metrics.MISS`.
        lists: int32 [n, k], best items, 0 where a list ran out; None where lists make no sense.
        unranked: targets that a search for the best items did not find; misses, as those that users had before are.
    """

    ranks: np.ndarray
    lists: np.ndarray | None
    unranked: int = 0


class SameModel:
    """Makes a model usable as a static argument, so that a run that is loaded again is not traced again."""

    def __init__(self, model: Model):
        self.model = model

    def __hash__(self) -> int:
        return hash(self.model.identity)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SameModel):
            return False
        return other.model is self.model or other.model.identity == self.model.identity


def _scoring(identity: SameModel, params: Params, queries: Queries, items: Items) -> Scoring:
    found = identity.model.scoring(params, queries, items)
    if not isinstance(found, Scoring):
        name = type(identity.model).__name__
        raise InputError(f"scoring of {name} gives no Scoring of recjax.decode.scoring, such as DotProduct or Pairs")
    return found


@partial(jax.jit, static_argnames=("identity", "k"))
def _ranked(
    identity: SameModel, params: Params, queries: Queries, items: Items, targets: Array, candidates: Any, k: int
) -> tuple[Array, Array | None]:
    """Ranks and lists of a batch, both of one forward pass."""
    scoring = _scoring(identity, params, queries, items)
    if not k:
        return replicated(scoring.rank(targets, queries.seen, candidates)[0]), None
    return jax.tree.map(replicated, scoring.rank_and_list(targets, queries.seen, k, candidates))


@partial(jax.jit, static_argnames="identity")
def _prepared(identity: SameModel, params: Params, items: Items) -> dict[str, Any]:
    return identity.model.prepare(params, items)


def prepared(model: Model, params: Params, items: Items | None) -> Items:
    """The items with what a model prepares once for all queries.

    Args:
        model: the one to rank with.
        params: its parameters; others need another call.
        items: on the devices; None for those of a model of item ids.
    """
    if items is None:
        items = bare_items(model.n_items)
    return replace(items, prepared=_prepared(SameModel(model), params, items))


def trace_ranking(
    model: Model, params: Params, queries: Queries, items: Items, targets: Array, k: int
) -> jax.stages.Traced:
    """The program that `rank_users` runs on a batch, traced for shapes and layouts of arguments."""
    return _ranked.trace(SameModel(model), params, queries, items, targets, None, k)


@partial(jax.jit, static_argnames=("identity", "k"))
def _listed(
    identity: SameModel, params: Params, queries: Queries, items: Items, candidates: Any, k: int
) -> tuple[Array, Array]:
    scoring = _scoring(identity, params, queries, items)
    return jax.tree.map(replicated, scoring.topk(queries.seen, k, candidates))


def best_items(
    model: Model, params: Params, queries: Queries, items: Items, k: int, candidates: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best `k` items of a batch of queries and their scores, on the host: int32 [q, k], float32 [q, k].

    The items are those that `prepared` gives; with `candidates`, bool [items + 1], no others are listed.
    """
    best, scores = _listed(SameModel(model), params, queries, items, candidates, k)
    return np.asarray(best), np.asarray(scores)


def replicated(x: Array) -> Array:
    """The whole array on every device, so that every process can read it."""
    empty = jax.sharding.get_abstract_mesh().empty
    return x if empty else jax.lax.with_sharding_constraint(x, PartitionSpec(*[None] * jnp.ndim(x)))


def rank_users(
    model: Model,
    params: Params,
    examples: Examples,
    view: View,
    user_name: Callable[[int], str],
    items: Items | None = None,
    *,
    mask_seen: Literal["history", "none"] = "history",
    users_per_batch: int = 256,
    k: int = 0,
    candidates: np.ndarray | None = None,
    progress: bool = False,
) -> Rankings:
    """Ranks the target of every example, on all devices of the current mesh.

    Args:
        model: what ranks.
        params: its parameters.
        examples: histories and targets.
        view: how a history becomes a query.
        user_name: number of a dataset user -> the user's name in an error message.
        items: of the catalog, on the devices; None for a model of item ids.
        mask_seen: "history" takes the items of the history out of the ranking; a target among them is a miss.
        users_per_batch: queries of a batch over all devices.
        k: length of the lists; 0 asks for ranks alone.
        candidates: int32 [n, c], the items that compete with each target; None for the whole catalog.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Raises:
        NonFiniteScoresError: names the users.
    """
    ranks = np.zeros(len(examples), np.int64)
    lists = np.zeros((len(examples), k), np.int32) if k else None
    items, sharding = prepared(model, params, items), row_sharding()

    def ask(queries: Queries, rows: np.ndarray) -> Any:
        mine = rows[local_rows(sharding, len(rows))]
        targets = np.where(mine >= 0, examples.targets[mine], 0).astype(np.int32)
        among = None if candidates is None else candidates[mine]
        targets, among = to_devices((targets, among), sharding, len(rows))
        return _ranked(SameModel(model), params, queries, items, targets, among, k)

    batches = query_batches(
        examples, view, model.n_items, users_per_batch, mask_seen=mask_seen, shapes=few_shapes(examples)
    )
    for rows, (found, best) in answered(batches, ask, len(examples), users_per_batch, progress):
        ranks[rows] = found
        if lists is not None:
            lists[rows] = best
    if not ranks.all():
        raise NonFiniteScoresError.of([user_name(user) for user in examples.histories.users[ranks == 0].tolist()])
    lost = ranks == UNRANKED
    ranks[lost] = MISS
    if mask_seen == "history":
        ranks[examples.repeats()] = MISS
    return Rankings(ranks, lists, int(lost.sum()))


@partial(jax.jit, static_argnames="identity")
def _scored(identity: SameModel, params: Params, queries: Queries, items: Items, asked: Array) -> Array:
    return replicated(_scoring(identity, params, queries, items).scores(asked))


def score_items(
    model: Model,
    params: Params,
    examples: Examples,
    view: View,
    asked: np.ndarray,
    items: Items | None = None,
    *,
    users_per_batch: int = 256,
    progress: bool = False,
) -> np.ndarray:
    """Scores of a few items of each example, float32 [n, c]; the rest of the catalog is not looked at.

    Args:
        model: what scores.
        params: its parameters.
        examples: histories.
        view: how a history becomes a query.
        asked: int32 [n, c], items from 1, 0-padded.
        items: of the catalog, on the devices; None for a model of item ids.
        users_per_batch: queries of a batch over all devices.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Raises:
        InputError: the model finds items by a search, which scores no single ones.
    """
    scores = np.zeros(asked.shape, np.float32)
    items, sharding = prepared(model, params, items), row_sharding()

    def ask(queries: Queries, rows: np.ndarray) -> Any:
        mine = rows[local_rows(sharding, len(rows))]
        few = np.where(mine[:, None] >= 0, asked[mine], 0).astype(np.int32)
        return _scored(SameModel(model), params, queries, items, to_devices(few, sharding, len(rows)))

    batches = query_batches(
        examples, view, model.n_items, users_per_batch, mask_seen="none", shapes=few_shapes(examples)
    )
    for rows, found in answered(batches, ask, len(examples), users_per_batch, progress, "scoring"):
        scores[rows] = found
    return scores


def few_shapes(examples: Examples) -> int:
    """Number of batch shapes that are worth their compilation."""
    return 3 if len(examples) < MANY_USERS else 5


def answered(
    batches: Iterable[tuple[Queries, np.ndarray]],
    ask: Callable[[Queries, np.ndarray], Any],
    total: int,
    users_per_batch: int,
    progress: bool = False,
    label: str = "ranking",
) -> Iterator[tuple[np.ndarray, Any]]:
    """Answers about every example, batch after batch, while the device works on the next ones.

    Args:
        batches: of `query_batches`.
        ask: queries and the rows of the examples that they are of (-1 where one only fills up) -> arrays on the device,
            the query as first axis.
        total: number of examples.
        users_per_batch: queries of a batch.
        progress: show how far it is, see `recjax.track.console.tracked`.
        label: of the progress bar.

    Yields:
        Rows of the examples, int [r], and the arrays of these rows on the host, [r, ...].
    """
    pending: deque[tuple[np.ndarray, Any]] = deque()

    def oldest() -> tuple[np.ndarray, Any]:
        rows, found = pending.popleft()
        used = rows >= 0
        return rows[used], jax.tree.map(lambda x: np.asarray(x)[used], found)

    for queries, rows in tracked(batches, -(-total // max(users_per_batch, 1)), label, progress):
        pending.append((rows, ask(queries, rows)))
        if len(pending) > IN_FLIGHT:
            yield oldest()
    while pending:
        yield oldest()
