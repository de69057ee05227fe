"""Recommendations with raw ids, titles and scores, for typed histories or a file of users.

An id that the catalog does not have is left out of its history and named in the result. A history of which nothing is
left gets the most popular items, with `fallback` set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import View
from recjax.data.dataset import Dataset
from recjax.data.importers import time_columns
from recjax.data.items import Items
from recjax.data.splits import Histories
from recjax.data.transitions import item_counts
from recjax.evaluate.ranking import NonFiniteScoresError, best_items, prepared, tracked
from recjax.evaluate.stream import Late, Stream
from recjax.evaluate.user_file import read_users
from recjax.models.model import Model
from recjax.typing import InputError, Params


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Lists of items, one row an item.

    Attributes:
        table: user_id, rank (from 1), item_id, title, score (null in a fallback), fallback.
        unknown: raw item ids that the catalog does not have -> how often they stood in histories.
        fallbacks: users that got the most popular items.
        notes: what else was left out, in words: rows, events and users.
    """

    table: pl.DataFrame
    unknown: dict[str, int]
    fallbacks: list[str]
    notes: tuple[str, ...] = ()


def recommend(
    model: Model,
    params: Params,
    dataset: Dataset,
    view: View,
    histories: Sequence[Sequence[str]] | Path,
    items: Items | None = None,
    *,
    k: int = 10,
    mask_seen: Literal["history", "none"] = "history",
    users_per_batch: int = 256,
    progress: bool = True,
) -> Recommendations:
    """The best items for every history.

    Args:
        model: what ranks.
        params: its parameters.
        dataset: the catalog.
        view: how a history becomes a query.
        histories: raw item ids of each user, oldest first (the users are called "1", "2", ...); or a table file with
            user, item and time.
        items: of the catalog, on the devices; None for a model of item ids.
        k: length of the lists; they are shorter where the catalog runs out.
        mask_seen: whether items of the history may be recommended again.
        users_per_batch: queries of a batch over all devices.
        progress: show a progress bar where standard error is a terminal.

    Raises:
        InputError: k is less than 1, the model was built for another catalog, or the file cannot be read.
        NonFiniteScoresError: names the users with scores that are NaN or infinite.
    """
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1")
    if model.n_items != dataset.n_items:
        raise InputError(f"the model knows {model.n_items:,} items, dataset {dataset.name!r} has {dataset.n_items:,}")
    events, names, notes = _file_events(histories) if isinstance(histories, Path) else _typed_events(histories)
    known, unknown = _known(events, dataset)
    lists, scores = _ranked(
        model, params, known, view, names, items, min(k, dataset.n_items), mask_seen, users_per_batch, progress
    )
    without = np.flatnonzero(np.bincount(known.users, minlength=len(names)) == 0)
    lists[without], scores[without] = _popular(dataset, k), np.nan
    table, fallbacks = _table(lists, scores, without, names, dataset), [names[user] for user in without]
    return Recommendations(table, unknown, fallbacks, (*notes, *_unlisted(lists, names)))


def recommend_stream(
    stream: Stream,
    dataset: Dataset,
    events: Path,
    *,
    k: int = 10,
    mask_seen: Literal["history", "none"] = "history",
    late: Late = "skip",
) -> Recommendations:
    """The best items for every user of a file, after the events of the file have been added to what `stream` keeps.

    Args:
        stream: states of the users, advanced in place.
        dataset: the catalog.
        events: table file with user, item and time: events that follow those the stream has seen.
        k: length of the lists.
        mask_seen: whether items that the stream has seen of a user may be recommended again.
        late: whether events that are not after those that the stream has seen of their user are left out, or an error.

    Raises:
        InputError: k is less than 1, the file cannot be read, or events are late and may not be.
        NonFiniteScoresError: names the users with scores that are NaN or infinite.
    """
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1")
    found, names, notes = _file_events(events)
    known, unknown = _known(found, dataset)
    skipped = stream.push([names[user] for user in known.users.tolist()], known.items, known.times, late)
    k = min(k, dataset.n_items)
    lists, scores = np.zeros((len(names), k), np.int32), np.full((len(names), k), np.nan, np.float32)
    there = np.array([stream.length(name) > 0 for name in names], bool)
    rows = np.flatnonzero(there)
    lists[rows], scores[rows] = stream.recommend(
        [names[row] for row in rows.tolist()], k, mask_seen=mask_seen == "history"
    )
    without = np.flatnonzero(~there)
    lists[without] = _popular(dataset, k)
    notes = (*notes, *_stream_notes(stream, skipped, names, mask_seen), *_unlisted(lists, names))
    table, fallbacks = _table(lists, scores, without, names, dataset), [names[user] for user in without]
    return Recommendations(table, unknown, fallbacks, notes)


def _popular(dataset: Dataset, k: int) -> np.ndarray:
    """The `k` items with most events."""
    return np.argsort(-item_counts(dataset.items, dataset.n_items)[1:], kind="stable")[:k] + 1


def _unlisted(lists: np.ndarray, names: list[str]) -> list[str]:
    """The users whose lists are empty."""
    users = [names[user] for user in np.flatnonzero(~lists.any(axis=1))]
    if not users:
        return []
    shown = ", ".join(map(repr, users[:5])) + (", ..." if len(users) > 5 else "")
    return [f"no list for {len(users):,} users, who have seen every item: {shown}"]


def _stream_notes(stream: Stream, skipped: np.ndarray, names: list[str], mask_seen: str) -> list[str]:
    """Notes on the events and items that a stream left out."""
    notes = []
    if skipped.any():
        notes.append(
            f"{skipped.sum():,} events left out: they are not after those of their users that have been read, so they "
            "come a second time, or late"
        )
    if mask_seen == "history" and (users := stream.forgetful(names)):
        notes.append(
            f"{users:,} users have at least {stream.seen_items:,} different items, of which only the last so many are "
            "left out of their lists"
        )
    return notes


@dataclass(frozen=True, eq=False)
class _Events:
    """Raw events, each user's oldest first.

    Attributes:
        users: int64 [m], number of the user, ascending.
        items: [m], raw item ids, or int32 item numbers once they are known.
        times: int64 [m], unix seconds.
    """

    users: np.ndarray
    items: Any
    times: np.ndarray


def _typed_events(histories: Sequence[Sequence[str]]) -> tuple[_Events, list[str], tuple[str, ...]]:
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = [str(item) for history in histories for item in history]
    return _Events(users, items, np.zeros(len(items), np.int64)), [str(user + 1) for user in range(len(histories))], ()


def _file_events(path: Path) -> tuple[_Events, list[str], tuple[str, ...]]:
    rows, names, notes = read_users(path)
    numbers = pl.DataFrame({"user_id": names}).with_row_index("user")
    rows = rows.join(numbers, on="user_id", maintain_order="left").sort(
        "user", *time_columns(rows), maintain_order=True
    )
    times = rows["timestamp"].to_numpy()
    return _Events(rows["user"].to_numpy().astype(np.int64), rows["item_id"].to_list(), times), names.to_list(), notes


def _known(events: _Events, dataset: Dataset) -> tuple[_Events, dict[str, int]]:
    """Events with item numbers, those on unknown items taken out; and the unknown ids with their counts."""
    catalog = pl.DataFrame({"item": dataset.item_ids[1:]}, schema={"item": pl.String}).with_row_index("number", 1)
    asked = pl.DataFrame({"item": events.items}, schema={"item": pl.String})
    items = asked.join(catalog, on="item", how="left", maintain_order="left")["number"].fill_null(0).to_numpy()
    unknown = dict(asked.filter(items == 0)["item"].value_counts(sort=True).iter_rows())
    kept = items > 0
    return _Events(events.users[kept], items[kept].astype(np.int32), events.times[kept]), unknown


def _ranked(
    model: Model,
    params: Params,
    events: _Events,
    view: View,
    names: list[str],
    items: Items | None,
    k: int,
    mask_seen: Literal["history", "none"],
    users_per_batch: int,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Lists int32 [users, k] and scores float32 [users, k] of the users that have events."""
    lists, scores = np.zeros((len(names), k), np.int32), np.full((len(names), k), np.nan, np.float32)
    users, lengths = np.unique(events.users, return_counts=True)
    if not len(users):
        return lists, scores
    histories = Histories.concatenated(lengths, np.asarray(events.items, np.int32), events.times, users)
    prepared_items = prepared(model, params, items)
    batches = query_batches(histories, view, model.n_items, users_per_batch, mask_seen=mask_seen)
    for queries, rows in tracked(batches, -(-len(users) // users_per_batch), "recommending", progress):
        found = best_items(model, params, queries, prepared_items, k)
        used = rows >= 0
        lists[users[rows[used]]], scores[users[rows[used]]] = found[0][used], found[1][used]
    broken = [names[user] for user in users if np.isnan(scores[user]).any()]
    if broken:
        raise NonFiniteScoresError.of(broken)
    return lists, scores


def _table(
    lists: np.ndarray, scores: np.ndarray, without: np.ndarray, names: list[str], dataset: Dataset
) -> pl.DataFrame:
    user, place = np.nonzero(lists)
    item = lists[user, place]
    titles = dataset.catalog["title"]
    fallback = np.isin(user, without)
    return pl.DataFrame(
        {
            "user_id": pl.Series(names, dtype=pl.String).gather(user),
            "rank": (place + 1).astype(np.int32),
            "item_id": pl.Series(dataset.item_ids, dtype=pl.String).gather(item),
            "title": titles.gather(item - 1),
            "score": pl.Series(scores[user, place], dtype=pl.Float32).fill_nan(None),
            "fallback": fallback,
        }
    )
