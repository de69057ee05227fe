"""Events that look out of place: what a model says of each training event, and histories rewritten by that."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import polars as pl

from recjax.data.batches.histories import Histories, windows
from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries, View
from recjax.data.dataset import Dataset
from recjax.data.items import Items
from recjax.data.noise import training_places
from recjax.data.ranges import ranges
from recjax.data.splits import Split
from recjax.data.transitions import item_counts, place_in
from recjax.evaluate.ranking import SameModel, answered, prepared, replicated
from recjax.models.model import Model
from recjax.typing import Array, Params


@dataclass(frozen=True, eq=False)
class Corrections:
    """Judgements of a model on each event of some histories, history after history.

    Attributes:
        doubts: float32 [m], how much it looks out of place.
        items: int32 [m], the item that would belong there.
        window: int64 [m], number of the window that the model saw it in.
    """

    doubts: np.ndarray
    items: np.ndarray
    window: np.ndarray


@partial(jax.jit, static_argnames="identity")
def _corrected(identity: SameModel, params: Params, queries: Queries, items: Items) -> tuple[Array, Array]:
    return jax.tree.map(replicated, identity.model.corrections(params, queries, items))


def corrections(
    model: Model,
    params: Params,
    histories: Histories,
    view: View,
    items: Items | None = None,
    *,
    users_per_batch: int = 256,
    progress: bool = False,
) -> Corrections:
    """Judgements of a model on every event, in windows that its view takes whole, on all devices of the current mesh.

    Args:
        model: one that has `corrections`; others raise InputError.
        params: its parameters.
        histories: of any lengths.
        view: how a window becomes a query.
        items: of the catalog, on the devices; None for a model of item ids.
        users_per_batch: windows of a batch over all devices.
        progress: show how far it is, see `recjax.track.console.tracked`.
    """
    events = histories.compact()
    length = view.max_length - int(view.query_lengths(np.array([1]))[0]) + 1  # a query's mask takes a place
    parts = windows(events, length, length)
    doubts, found = np.zeros(len(events.items), np.float32), np.zeros(len(events.items), np.int32)
    items = prepared(model, params, items)

    def ask(queries: Queries, rows: np.ndarray) -> Any:
        return _corrected(SameModel(model), params, queries, items)

    batches = query_batches(parts, view, model.n_items, users_per_batch, mask_seen="none")
    for rows, (logits, best) in answered(batches, ask, len(parts), users_per_batch, progress, "corrections"):
        sizes = parts.lengths[rows]
        into = ranges(parts.starts[rows], sizes)
        read = ranges(np.arange(len(rows)) * logits.shape[1], sizes)
        doubts[into], found[into] = logits.reshape(-1)[read], best.reshape(-1)[read]
    return Corrections(doubts, found, np.repeat(np.arange(len(parts)), parts.lengths))


def replaced(items: np.ndarray, found: Corrections, share: float, most: int) -> np.ndarray:
    """int32 [m], items with those replaced that look most out of place.

    An item whose events would all go keeps the one that looks least out of place, so that catalogs stay as they are.

    Args:
        items: of the histories that the corrections are of.
        found: the corrections.
        share: of the events, the one with the most doubt first; 0 leaves all as they are.
        most: events of a window.
    """
    count = round(share * len(items))
    order = np.lexsort((-found.doubts, found.window))
    chosen = np.zeros(len(items), bool)
    chosen[order] = place_in(found.window[order]) < most
    chosen &= found.items > 0
    chosen[np.argsort(-found.doubts, kind="stable")[count:]] = False
    every = item_counts(items, int(items.max(initial=0)))
    gone = np.flatnonzero((every > 0) & (item_counts(items[chosen], len(every) - 1) == every))
    order = np.lexsort((found.doubts, items))
    first = order[np.searchsorted(items[order], gone)]
    chosen[first] = False
    return np.where(chosen, found.items, items).astype(np.int32)


def event_table(dataset: Dataset, split: Split, items: np.ndarray, doubts: np.ndarray) -> pl.DataFrame:
    """All events of a dataset with other training events: user_id, item_id, timestamp, was, doubt.

    `was` is the item before, null where it stands, and `doubt` a probability, null where nothing was asked.

    Args:
        dataset: of the split.
        split: one whose training histories are the beginnings of the users'.
        items: int [m], what becomes of the training events, history after history.
        doubts: float [m], logits of them.
    """
    places, before = training_places(dataset, split), np.asarray(split.train.compact().items)
    every, was = np.array(dataset.items), np.zeros(dataset.n_interactions, np.int32)
    every[places], was[places] = items, np.where(items == before, 0, before)
    doubt = np.full(dataset.n_interactions, np.nan, np.float32)
    doubt[places] = 1 / (1 + np.exp(-doubts))
    names = pl.Series(dataset.item_ids, dtype=pl.String)
    owners = np.repeat(np.arange(dataset.n_users), np.diff(dataset.offsets))
    return pl.DataFrame(
        {
            "user_id": pl.Series(dataset.user_ids, dtype=pl.String).gather(owners),
            "item_id": names.gather(every),
            "timestamp": dataset.timestamps,
            "was": names.gather(was).replace("", None),
            "doubt": pl.Series(doubt).fill_nan(None),
        }
    )
