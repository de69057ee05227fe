"""Lists of items for histories: one typed by hand, or those in a file of events."""

from dataclasses import dataclass

import jax
import numpy as np
import polars as pl

from recjax.data.dataset import Dataset
from recjax.data.loader import query_batches
from recjax.data.splits import Histories
from recjax.data.views import View
from recjax.evaluate.ranking import NonFiniteScoresError, replicated
from recjax.models.model import Model
from recjax.typing import InputError, Params


@dataclass(frozen=True, eq=False)
class Requests:
    """Histories to recommend for.

    Attributes:
        histories: in the dataset's item numbers; `histories.users` counts 0, 1, 2, ...
        user_ids: raw id of each.
        unknown_items: raw item ids that the catalog does not have, with how often they occur; left out.
        without_history: raw ids of users of whom nothing was left; left out.
    """

    histories: Histories
    user_ids: list[str]
    unknown_items: dict[str, int]
    without_history: list[str]


def typed_history(dataset: Dataset, items: list[str]) -> Histories:
    """One history from raw item ids, oldest first.

    Raises:
        InputError: it is empty, or the catalog lacks an id; names it and the nearest ones.
    """
    if not items:
        raise InputError("the history is empty, expected item ids, oldest first, with commas between them")
    return _histories(dataset.item_index(items), np.zeros(len(items), np.int64), np.array([len(items)]))


def requests(dataset: Dataset, interactions: pl.DataFrame) -> Requests:
    """The histories of users in a table of events.

    Args:
        dataset: whose items the model knows.
        interactions: `user_id`, `item_id`, `timestamp`; sorted here, stably, by user and time.

    Raises:
        InputError: no event is on an item of the dataset.
    """
    users = interactions["user_id"].unique(maintain_order=True)
    events = interactions.join(
        pl.DataFrame({"user_id": users}).with_row_index("user"), on="user_id", maintain_order="left"
    ).join(
        pl.DataFrame({"item_id": dataset.item_ids[1:]}).with_row_index("item", 1),
        on="item_id",
        how="left",
        maintain_order="left",
    )
    unknown = events.filter(pl.col("item").is_null())["item_id"].value_counts(sort=True)
    events = events.drop_nulls("item").sort("user", "timestamp", maintain_order=True)
    if not len(events):
        shown = ", ".join(map(repr, unknown["item_id"].head(5)))
        raise InputError(f"none of the {len(unknown):,} item ids is in dataset {dataset.name!r}, e.g. {shown}")
    lengths = np.bincount(events["user"].to_numpy(), minlength=len(users))
    return Requests(
        histories=_histories(
            events["item"].to_numpy().astype(np.int32), events["timestamp"].to_numpy(), lengths[lengths > 0]
        ),
        user_ids=users.filter(pl.Series(lengths > 0)).to_list(),
        unknown_items=dict(unknown.iter_rows()),
        without_history=users.filter(pl.Series(lengths == 0)).to_list(),
    )


def _histories(items: np.ndarray, timestamps: np.ndarray, lengths: np.ndarray) -> Histories:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Histories(offsets, items, timestamps, np.arange(len(lengths), dtype=np.int32))


def recommend(
    model: Model, params: Params, histories: Histories, view: View, k: int, users_per_batch: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """The best `k` items for every history, none of its own among them, on all devices of the current mesh.

    Args:
        model: what ranks.
        params: its parameters.
        histories: none of them empty.
        view: how a history becomes a query.
        k: length of the lists.
        users_per_batch: queries of a batch over all devices.

    Returns:
        items int32 [n, k], 0 where a list ran out, and scores float32 [n, k], -inf there.

    Raises:
        InputError: `k` is not positive.
        NonFiniteScoresError: names the histories by their number.
    """
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1")
    k = min(k, model.items)
    items, scores = np.zeros((len(histories), k), np.int32), np.zeros((len(histories), k), np.float32)
    ranked = jax.jit(lambda params, queries: jax.tree.map(replicated, model.rank(params, queries, k)))
    for queries, rows in query_batches(histories, view, model.items, users_per_batch):
        best, values = ranked(params, queries)
        used = rows >= 0
        items[rows[used]], scores[rows[used]] = np.asarray(best)[used], np.asarray(values)[used]
    bad = np.isnan(scores).any(axis=1)
    if bad.any():
        raise NonFiniteScoresError.of([str(row) for row in np.flatnonzero(bad)])
    return items, scores


def lists_table(dataset: Dataset, user_ids: list[str], items: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
    """Lists as a table: `user_id`, `rank` from 1, `item_id`, `title`, `score`; one row an item, in order."""
    users, width = items.shape
    flat, titles = items.reshape(-1), dataset.catalog["title"]
    table = pl.DataFrame(
        {
            "user_id": np.repeat(np.array(user_ids, object), width),
            "rank": np.tile(np.arange(1, width + 1, dtype=np.int32), users),
            "item": flat,
            "score": scores.reshape(-1),
        },
        schema={"user_id": pl.String, "rank": pl.Int32, "item": pl.Int32, "score": pl.Float32},
    ).filter(pl.col("item") > 0)
    names = pl.DataFrame({"item_id": dataset.item_ids[1:], "title": titles}).with_row_index("item", 1)
    named = table.join(names.cast({"item": pl.Int32}), on="item", how="left", maintain_order="left")
    return named.select("user_id", "rank", "item_id", "title", "score")
