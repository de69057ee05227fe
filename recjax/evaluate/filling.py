"""Gaps of histories: what a model says belongs there, from both sides or from the left alone, and histories filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from recjax.data.batches.histories import Histories
from recjax.data.batches.insertions import with_token
from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries, View
from recjax.data.dataset import Dataset
from recjax.data.gapped import Gapped, links, prefixes_of
from recjax.data.items import Items
from recjax.data.ranges import ranges
from recjax.data.transitions import place_in
from recjax.decode.insertion import insert
from recjax.decode.scoring import UNRANKED
from recjax.evaluate.metrics import MISS
from recjax.evaluate.ranking import NonFiniteScoresError, SameModel, answered, prepared, replicated
from recjax.evaluate.recommend import Recommendations, known_events
from recjax.evaluate.user_events import UserEvents
from recjax.models.model import Model
from recjax.parallel.sharding import local_rows, row_sharding, to_devices
from recjax.typing import Array, InputError, Params

ROWS = 64
"""Histories that are filled together."""


@dataclass(frozen=True, eq=False)
class Filled:
    """Answers to the questions of a `Gapped`.

    Attributes:
        ranks: int64 [m], of each event left out in its gap, or `MISS`.
        gap: int64 [n], the gap between two events where something is likeliest to be missing; None without an answer.
        complete: float64 [n] twice, how complete each window looks and the whole one beside it; None without an answer.
    """

    ranks: np.ndarray
    gap: np.ndarray | None
    complete: tuple[np.ndarray, np.ndarray] | None


def padded(rows: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """int32 [count, most], the values of each row, 0 behind them; `rows` ascend."""
    place = place_in(rows)
    found = np.zeros((count, int(place.max(initial=0)) + 1), np.int32)
    found[rows, place] = values
    return found


@partial(jax.jit, static_argnames="identity")
def _gaps(
    identity: SameModel, params: Params, queries: Queries, items: Items, places: Array, targets: Array
) -> tuple[Array, Array, Array]:
    found = identity.model.insertions(params, queries, items, places)
    seen = jnp.repeat(queries.seen, places.shape[1], axis=0)
    ranks = found.scoring.rank(targets.reshape(-1), seen)[0].reshape(targets.shape)
    inner = (jnp.arange(found.shares.shape[1]) > 0) & (jnp.arange(found.shares.shape[1]) < queries.last[:, None])
    gap = jnp.argmax(jnp.where(inner, found.shares, -jnp.inf), axis=1)
    return jax.tree.map(replicated, (ranks, gap, found.stop))


def asked_gaps(
    model: Model, params: Params, task: Gapped, view: View, *, items: Items | None, users_per_batch: int
) -> Filled:
    """Answers of a model that inserts, which sees all that is left of a window."""
    ready, sharding = prepared(model, params, items), row_sharding()
    count = len(task.kept)
    places, targets = (padded(task.owner, x, count) for x in (task.gaps, task.targets))
    ranks, gap = np.zeros(targets.shape, np.int64), np.zeros(count, np.int64)
    stop = np.zeros((2, count))

    def ask(queries: Queries, rows: np.ndarray) -> Any:
        mine = np.maximum(rows[local_rows(sharding, len(rows))], 0)
        given = to_devices((places[mine], targets[mine]), sharding, len(rows))
        return _gaps(SameModel(model), params, queries, ready, *given)

    for number, histories in enumerate((task.kept, task.whole)):
        batches = query_batches(histories, view, model.n_items, users_per_batch, shapes=3)
        for rows, (found, best, said) in answered(batches, ask, count, users_per_batch):
            stop[number, rows] = said
            if number == 0:
                ranks[rows], gap[rows] = found, best
    return Filled(_ranks(ranks[task.owner, place_in(task.owner)]), gap, (stop[0], stop[1]))


@partial(jax.jit, static_argnames="identity")
def _next(identity: SameModel, params: Params, queries: Queries, items: Items, targets: Array, seen: Array) -> Array:
    return replicated(identity.model.scoring(params, queries, items).rank(targets, seen)[0])


def next_ranks(
    model: Model,
    params: Params,
    histories: Histories,
    targets: np.ndarray,
    seen: np.ndarray,
    view: View,
    items: Items,
    users_per_batch: int,
) -> np.ndarray:
    """int64 [n], rank of each target after its history, the items of `seen`, int32 [n, s], aside; 0 if not finite."""
    sharding, ranks = row_sharding(), np.zeros(len(targets), np.int64)

    def ask(queries: Queries, rows: np.ndarray) -> Any:
        mine = np.maximum(rows[local_rows(sharding, len(rows))], 0)
        given = to_devices((targets[mine].astype(np.int32), seen[mine]), sharding, len(rows))
        return _next(SameModel(model), params, queries, items, *given)

    batches = query_batches(histories, view, model.n_items, users_per_batch, mask_seen="none", shapes=3)
    for rows, found in answered(batches, ask, len(targets), users_per_batch):
        ranks[rows] = found
    return ranks


def from_the_left(
    model: Model, params: Params, task: Gapped, view: View, *, items: Items | None, users_per_batch: int
) -> Filled:
    """Answers of a model of next items, which sees what is left before a gap; see `Infilling`."""
    ready = prepared(model, params, items)

    def ranked(histories: Histories, targets: np.ndarray, seen: np.ndarray) -> np.ndarray:
        return next_ranks(model, params, histories, targets, seen, view, ready, users_per_batch)

    def surprises(windows: Histories) -> np.ndarray:
        """log rank of each event after those before it, window after window."""
        rows, place, targets = links(windows)
        ranks = ranked(prefixes_of(windows, rows, place), targets, np.zeros((len(rows), 1), np.int32))
        return np.log(_ranks(ranks).astype(float))

    owners = np.repeat(np.arange(len(task.kept)), task.kept.lengths)
    seen = padded(owners, np.asarray(task.kept.items), len(task.kept))
    ranks = ranked(prefixes_of(task.kept, task.owner, task.gaps.astype(np.int64)), task.targets, seen[task.owner])
    return by_surprise(_ranks(ranks), task, surprises(task.kept), surprises(task.whole))


def by_surprise(ranks: np.ndarray, task: Gapped, kept: np.ndarray, whole: np.ndarray) -> Filled:
    """Answers of whatever says how surprising each event but the first of a window is, [n x (events - 1)]."""
    rows, place, _ = links(task.kept)
    table = np.full(task.missing.shape, -np.inf)
    table[rows, place] = kept
    sizes = task.kept.lengths - 1
    complete = tuple(-np.bincount(rows, found) / sizes for found in (kept, whole))
    return Filled(ranks, table.argmax(axis=1), (complete[0], complete[1]))


def _ranks(ranks: np.ndarray) -> np.ndarray:
    if not ranks.all():
        raise NonFiniteScoresError(f"scores that are not finite for {int((ranks == 0).sum()):,} gaps")
    return np.where(ranks == UNRANKED, MISS, ranks)


@partial(jax.jit, static_argnames=("identity", "repeats"))
def _inserted(
    identity: SameModel,
    params: Params,
    items: Items,
    rows: Array,
    lengths: Array,
    stop: Array,
    most: Array,
    repeats: bool,
) -> tuple[Array, Array, Array]:
    model, room = identity.model, rows.shape[1]
    places = jnp.broadcast_to(jnp.arange(room + 1), (len(rows), room + 1))

    def ask(shown: Array, count: Array) -> tuple[Array, Array, Array]:
        found = model.insertions(params, with_token(shown, count, model.n_items), items, places)
        seen = jnp.zeros_like(shown[:, :1]) if repeats else shown
        best, logits = found.scoring.topk(jnp.repeat(seen, room + 1, axis=0), 1)
        return best.reshape(places.shape), logits.reshape(places.shape) + found.levels, jax.nn.sigmoid(found.stop)

    return jax.tree.map(replicated, insert(ask, rows, lengths, stop=stop, most=most))


def fill(
    model: Model,
    params: Params,
    histories: Histories,
    view: View,
    items: Items | None = None,
    *,
    stop: float = 0.9,
    most: int | None = None,
    repeats: bool = False,
) -> tuple[Histories, np.ndarray]:
    """Histories with what a model inserts, one event at a time, until it says that none is missing.

    No history grows beyond what the view takes, and nothing but items of the catalog is inserted.

    Args:
        model: one that inserts; others raise InputError.
        params: its parameters.
        histories: no longer than the view takes; they may be empty.
        view: `Insertions`.
        items: of the catalog, on the devices; None for a model of item ids.
        stop: probability that nothing is missing from which on a history is left as it is.
        most: insertions into a history; None for as many as there is room for.
        repeats: whether an item that a history has may be inserted.

    Returns:
        The histories, an inserted event with time 0, and of each event the number of its insertion from 1, int32 [m], 0
        where it was there before.
    """
    room = view.max_length - 1
    ready, parts = prepared(model, params, items), []
    lengths = histories.lengths
    shown = np.zeros((max(1, -(-len(lengths) // ROWS)) * ROWS, room), np.int32)
    shown.reshape(-1)[ranges(np.arange(len(lengths)) * room, lengths)] = histories.items[
        ranges(histories.starts, lengths)
    ]
    counts = np.full(len(shown), room)  # rows that fill a batch up have no room
    counts[: len(lengths)] = lengths
    for first in range(0, len(shown), ROWS):
        here = slice(first, first + ROWS)
        given = (shown[here], counts[here].astype(np.int32), np.float32(stop), np.int32(room if most is None else most))
        parts.append([np.asarray(x) for x in _inserted(SameModel(model), params, ready, *given, repeats)])
    filled, sizes, order = (np.concatenate(column)[: len(lengths)] for column in zip(*parts, strict=True))
    read = ranges(np.arange(len(lengths)) * room, sizes.astype(np.int64))
    events = filled.reshape(-1)[read]
    found = Histories.concatenated(sizes.astype(np.int64), events, np.zeros(len(events), np.int64), histories.users)
    return found, order.reshape(-1)[read]


def fill_users(
    model: Model, params: Params, dataset: Dataset, view: View, events: UserEvents, items: Items | None, **settings: Any
) -> Recommendations:
    """The histories of some users with what is inserted, as a table, and what was left out; see `fill`.

    Raises:
        InputError: a history that leaves no room, or a model that inserts nothing.
    """
    if not model.inserts:
        raise InputError(
            f"{type(model).__name__} does not fill gaps of histories; `insertion_ml1m` trains one that does"
        )
    known, unknown = known_events(events, dataset)
    lengths = np.bincount(known.users, minlength=len(known.names))
    if len(lengths) and lengths.max() >= view.max_length:
        user = known.names[int(lengths.argmax())]
        raise InputError(
            f"user {user!r} has {lengths.max():,} events, but they are filled up to {view.max_length - 1}: give a part"
        )
    read = Histories.concatenated(lengths, np.asarray(known.items, np.int32), known.times, np.arange(len(lengths)))
    found, order = fill(model, params, read, view, items, **settings)
    item, sizes = np.asarray(found.items), found.lengths
    table = pl.DataFrame(
        {
            "user_id": pl.Series(known.names, dtype=pl.String).gather(np.repeat(np.arange(len(sizes)), sizes)),
            "place": ranges(1, sizes).astype(np.int32),
            "item_id": pl.Series(dataset.item_ids, dtype=pl.String).gather(item),
            "title": dataset.catalog["title"].gather(item - 1),
            "inserted": pl.Series([int(x) or None for x in order], dtype=pl.Int32),
        }
    )
    return Recommendations(table, unknown, [], events.notes, "none")
