"""Recommendations with raw ids, titles and scores, for typed histories, a file of users or users of a dataset.

An id that the catalog does not have is left out of its history and named in the result. A history of which nothing is
left gets the most popular items, with the fallback named beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import View
from recjax.data.dataset import Dataset
from recjax.data.items import Items
from recjax.data.splits import Histories
from recjax.data.transitions import item_counts
from recjax.evaluate.ranking import NonFiniteScoresError, best_items, prepared
from recjax.evaluate.stream import Late, Stream
from recjax.evaluate.user_events import SHOWN, UserEvents, of_file, typed
from recjax.models.model import Model
from recjax.track.console import tracked
from recjax.typing import InputError, Params

Fallback = Literal["popularity", "none"]
"""Lists of users of whom no event can be used: the items with most events, or no list."""


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Lists of items, one row an item.

    Attributes:
        table: user_id, rank (from 1), item_id, title, score (null in a fallback), fallback (its name; null where the
            model ranked).
        unknown: raw item ids that the catalog does not have -> how often they stood in histories.
        fallbacks: users of whom no event could be used.
        notes: what else was left out, in words: rows, events and users.
        fallback: what those users got.
    """

    table: pl.DataFrame
    unknown: dict[str, int]
    fallbacks: list[str]
    notes: tuple[str, ...] = ()
    fallback: Fallback = "popularity"

    def after(self, notes: Sequence[str]) -> "Recommendations":
        """The same with more to say before its notes."""
        return replace(self, notes=(*notes, *self.notes))

    def lines(self, dataset: Dataset, typed: bool = False) -> list[str]:
        """All that could not be used, in words.

        Args:
            dataset: the catalog, for the ids that are nearest to unknown ones.
            typed: whether there is one history, whose user has no name.
        """
        lines = list(self.notes)
        if self.unknown:
            try:
                dataset.item_index(list(self.unknown))
            except InputError as error:  # its message names the ids and the nearest ones that there are
                lines.append(f"{error}; events left out: {sum(self.unknown.values()):,}")
        if users := self.fallbacks:
            shown = ", ".join(map(repr, users[:SHOWN])) + (", ..." if len(users) > SHOWN else "")
            of = f"the histories of {len(users):,} users: {shown}" if len(users) > 1 else f"the history of user {shown}"
            who = "nothing of the history is left" if typed else f"nothing is left of {of}"
            got = "these are the most popular items" if self.fallback == "popularity" else "none is given"
            lines.append(f"{who}; {got}")
        return lines


def recommend(
    model: Model,
    params: Params,
    dataset: Dataset,
    view: View,
    histories: Sequence[Sequence[str]] | Path | UserEvents,
    items: Items | None = None,
    *,
    k: int = 10,
    mask_seen: Literal["history", "none"] = "history",
    candidates: np.ndarray | None = None,
    popularity: np.ndarray | None = None,
    fallback: Fallback = "popularity",
    users_per_batch: int = 256,
    progress: bool = True,
) -> Recommendations:
    """The best items for every history.

    Args:
        model: what ranks.
        params: its parameters.
        dataset: the catalog.
        view: how a history becomes a query.
        histories: raw item ids of each user, oldest first (the users are called "1", "2", ...); a table file with
            user, item and time; or events of users.
        items: of the catalog, on the devices; None for a model of item ids.
        k: length of the lists; they are shorter where the catalog runs out.
        mask_seen: whether items of the history may be recommended again.
        candidates: bool [items + 1], the only items that may be listed, by item number; None for all.
        popularity: int [items + 1], events of each item, for the fallback; None to count those of the dataset.
        fallback: what users get of whom no event can be used.
        users_per_batch: queries of a batch over all devices.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Raises:
        InputError: k is less than 1, the model was built for another catalog, or the file cannot be read.
        NonFiniteScoresError: names the users with scores that are NaN or infinite.
    """
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1")
    if model.n_items != dataset.n_items:
        raise InputError(f"the model knows {model.n_items:,} items, dataset {dataset.name!r} has {dataset.n_items:,}")
    if isinstance(histories, Path):
        histories = of_file(histories)
    events = histories if isinstance(histories, UserEvents) else typed(histories)
    known, unknown = known_events(events, dataset)
    lists, scores = _ranked(
        model, params, known, view, items, min(k, dataset.n_items), mask_seen, candidates, users_per_batch, progress
    )
    without = np.bincount(known.users, minlength=len(known.names)) == 0
    if fallback == "popularity":
        lists[without] = popular(dataset, lists.shape[1], popularity, candidates)
    found = Recommendations(pl.DataFrame(), unknown, _those(known.names, without), events.notes, fallback)
    return _listed(found, lists, scores, without, known.names, dataset, candidates)


def recommend_stream(
    stream: Stream,
    dataset: Dataset,
    events: Path,
    *,
    k: int = 10,
    mask_seen: Literal["history", "none"] = "history",
    candidates: np.ndarray | None = None,
    popularity: np.ndarray | None = None,
    fallback: Fallback = "popularity",
    columns: Mapping[str, str] | None = None,
    late: Late = "skip",
) -> Recommendations:
    """The best items for every user of a file, after the events of the file have been added to what `stream` keeps.

    Args:
        stream: states of the users, advanced in place.
        dataset: the catalog.
        events: table file with user, item and time: events that follow those the stream has seen.
        k: length of the lists.
        mask_seen: whether items that the stream has seen of a user may be recommended again.
        candidates: see `recommend`.
        popularity: see `recommend`.
        fallback: see `recommend`.
        columns: our column names to the file's.
        late: whether events that are not after those that the stream has seen of their user are left out, or an error.

    Raises:
        InputError: k is less than 1, the file cannot be read, or events are late and may not be.
        NonFiniteScoresError: names the users with scores that are NaN or infinite.
    """
    if k < 1:
        raise InputError(f"k is {k}, expected at least 1")
    read = of_file(events, columns)
    (known, unknown), names = known_events(read, dataset), read.names
    new = sum(not stream.length(name) for name in names)
    skipped = stream.push([names[user] for user in known.users.tolist()], known.items, known.times, late)
    k = min(k, dataset.n_items)
    lists, scores = np.zeros((len(names), k), np.int32), np.full((len(names), k), np.nan, np.float32)
    there = np.array([stream.length(name) > 0 for name in names], bool)
    rows = np.flatnonzero(there)
    lists[rows], scores[rows] = stream.recommend(
        [names[row] for row in rows.tolist()], k, mask_seen=mask_seen == "history", candidates=candidates
    )
    if fallback == "popularity":
        lists[~there] = popular(dataset, k, popularity, candidates)
    notes = (*read.notes, *_stream_notes(stream, skipped, names, mask_seen, new))
    found = Recommendations(pl.DataFrame(), unknown, _those(names, ~there), notes, fallback)
    return _listed(found, lists, scores, ~there, names, dataset, candidates)


def popular(
    dataset: Dataset, k: int, popularity: np.ndarray | None = None, candidates: np.ndarray | None = None
) -> np.ndarray:
    """The `k` items with most events, int32 [k], 0 beyond the last candidate; see `recommend` for the arguments."""
    counts = item_counts(dataset.items, dataset.n_items) if popularity is None else popularity
    best = np.argsort(-counts[1:], kind="stable") + 1
    best = (best if candidates is None else best[candidates[best]])[:k]
    return np.pad(best, (0, k - len(best))).astype(np.int32)


def _listed(
    found: Recommendations,
    lists: np.ndarray,
    scores: np.ndarray,
    without: np.ndarray,
    names: list[str],
    dataset: Dataset,
    candidates: np.ndarray | None,
) -> Recommendations:
    """`found` with lists int32 [users, k] and their scores; of users `without` events, bool [users], the fallback's."""
    scores[without] = np.nan
    notes, users = found.notes, _those(names, ~lists.any(axis=1) & ~(without & (found.fallback == "none")))
    if users:
        shown = ", ".join(map(repr, users[:SHOWN])) + (", ..." if len(users) > SHOWN else "")
        every = "every item" if candidates is None else "every item that may be listed"
        notes = (*notes, f"no list for {len(users):,} users, who have seen {every}: {shown}")
    return replace(found, table=_table(lists, scores, without, names, dataset, found.fallback), notes=notes)


def _those(names: list[str], chosen: np.ndarray) -> list[str]:
    return [names[user] for user in np.flatnonzero(chosen)]


def _stream_notes(stream: Stream, skipped: np.ndarray, names: list[str], mask_seen: str, new: int) -> list[str]:
    """Notes on new users, and on the events and items that a stream left out."""
    notes = []
    if new:
        notes.append(f"{new:,} of {len(names):,} users are new here: nothing is known of them but this file")
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


def known_events(events: UserEvents, dataset: Dataset) -> tuple[UserEvents, dict[str, int]]:
    """Events with item numbers, those on unknown items taken out; and the unknown ids with their counts."""
    catalog = pl.DataFrame({"item": dataset.item_ids[1:]}, schema={"item": pl.String}).with_row_index("number", 1)
    asked = pl.DataFrame({"item": events.items}, schema={"item": pl.String})
    items = asked.join(catalog, on="item", how="left", maintain_order="left")["number"].fill_null(0).to_numpy()
    unknown = dict(asked.filter(items == 0)["item"].value_counts(sort=True).iter_rows())
    kept = items > 0
    found = replace(events, users=events.users[kept], items=items[kept].astype(np.int32), times=events.times[kept])
    return found, unknown


def _ranked(
    model: Model,
    params: Params,
    events: UserEvents,
    view: View,
    items: Items | None,
    k: int,
    mask_seen: Literal["history", "none"],
    candidates: np.ndarray | None,
    users_per_batch: int,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Lists int32 [users, k] and scores float32 [users, k] of the users that have events."""
    names = events.names
    lists, scores = np.zeros((len(names), k), np.int32), np.full((len(names), k), np.nan, np.float32)
    users, lengths = np.unique(events.users, return_counts=True)
    if not len(users):
        return lists, scores
    histories = Histories.concatenated(lengths, np.asarray(events.items, np.int32), events.times, users)
    prepared_items = prepared(model, params, items)
    batches = query_batches(histories, view, model.n_items, users_per_batch, mask_seen=mask_seen)
    for queries, rows in tracked(batches, -(-len(users) // users_per_batch), "recommending", progress):
        found = best_items(model, params, queries, prepared_items, k, candidates)
        used = rows >= 0
        lists[users[rows[used]]], scores[users[rows[used]]] = found[0][used], found[1][used]
    broken = [names[user] for user in users if np.isnan(scores[user]).any()]
    if broken:
        raise NonFiniteScoresError.of(broken)
    return lists, scores


def _table(
    lists: np.ndarray,
    scores: np.ndarray,
    without: np.ndarray,
    names: list[str],
    dataset: Dataset,
    fallback: Fallback,
) -> pl.DataFrame:
    user, place = np.nonzero(lists)
    item = lists[user, place]
    titles = dataset.catalog["title"]
    named = [fallback if found else None for found in without[user].tolist()]
    return pl.DataFrame(
        {
            "user_id": pl.Series(names, dtype=pl.String).gather(user),
            "rank": (place + 1).astype(np.int32),
            "item_id": pl.Series(dataset.item_ids, dtype=pl.String).gather(item),
            "title": titles.gather(item - 1),
            "score": pl.Series(scores[user, place], dtype=pl.Float32).fill_nan(None),
            "fallback": pl.Series(named, dtype=pl.String),
        }
    )
