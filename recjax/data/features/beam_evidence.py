"""`recjax.data.features.evidence` counted by an Apache Beam pipeline, for logs whose counts outgrow one machine.

A worker holds the counts of a block of users, or all links of one item. The process that starts the pipeline holds what
it gives back: the strongest links and the sums of each item. Sums are added up in another order than the local path's,
so that counts agree to float64's rounding.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]  (the extra `beam`)
import numpy as np
import polars as pl
import pyarrow as pa
from apache_beam.io import WriteToParquet  # pyright: ignore[reportMissingImports]
from apache_beam.pvalue import AsSingleton, TaggedOutput  # pyright: ignore[reportMissingImports]

from recjax.data.batches.histories import Histories
from recjax.data.event_counts import Linked
from recjax.data.features.evidence import following_counts, recent_items, totals_of
from recjax.data.items import Relation
from recjax.data.ranges import exclusive_sum
from recjax.data.store.columns import Shards, StoredColumn
from recjax.data.store.locate import cache_folder
from recjax.data.store.remote import Place, fetched, local, place, written
from recjax.data.transitions import best_of_rows, item_counts
from recjax.late import sparse

BLOCK = 4096
"""Users counted at a time."""

_ROW = pa.schema(
    [
        ("name", pa.string()),
        ("item", pa.int32()),
        ("ids", pa.binary()),
        ("values", pa.binary()),
        ("sum", pa.float64()),
        ("foreseen", pa.float64()),
    ]
)

Links = tuple[np.ndarray, np.ndarray]
"""Items, ascending, int32 [m], and their counts, float64 [m]."""


@lru_cache(maxsize=1)
def _shards(folder: str) -> Shards:
    return Shards(local(place(folder), cache_folder()))


class _Count(beam.DoFn):
    """Users to the links of the items that they had: ((relation, item), links); tagged: users and events of items."""

    def __init__(self, folder: Place, n_items: int):
        self.folder, self.n_items = str(folder), n_items

    def process(self, block: tuple[np.ndarray, np.ndarray]) -> Iterator[Any]:
        starts, lengths = block
        column = StoredColumn(_shards(self.folder), "items", starts, exclusive_sum(lengths))
        items = np.asarray(column)
        everyone = np.arange(len(lengths))
        histories = Histories.concatenated(lengths, items, np.zeros(len(items), np.int64), everyone)
        following = following_counts(histories, self.n_items)
        users = recent_items(histories, self.n_items)
        yield from _rows("following", following)
        yield from _rows("preceding", sparse.csr_array(following.T))
        yield from _rows("together", sparse.csr_array(users.T @ users))
        for tag, counts in (("users", users.sum(axis=0)), ("events", item_counts(items, self.n_items))):
            for item in np.flatnonzero(counts).tolist():
                yield TaggedOutput(tag, (item, float(counts[item])))


def _rows(name: Linked, counts: sparse.csr_array) -> Iterator[tuple[tuple[Linked, int], Links]]:
    counts.sort_indices()
    for item in np.flatnonzero(np.diff(counts.indptr)).tolist():
        entries = slice(*counts.indptr[item : item + 2])
        yield (name, item), (counts.indices[entries].astype(np.int32), counts.data[entries])


def _merged(links: Iterable[Links]) -> Links:
    """Links of one item with their counts added up."""
    parts = list(links) or [(np.zeros(0, np.int32), np.zeros(0))]
    ids, place = np.unique(np.concatenate([ids for ids, _ in parts]), return_inverse=True)
    return ids, np.bincount(place, np.concatenate([counts for _, counts in parts]), len(ids))


def _by_item(counts: Iterable[tuple[int, float]], n_items: int) -> np.ndarray:
    """float64 [v], the counts of items as one array, 0 of those that have none."""
    found = np.zeros(n_items + 1)
    for item, count in counts:
        found[item] = count
    return found


@dataclass(frozen=True)
class _Best:
    """The strongest links of one item, as the features choose them."""

    widths: dict[Linked, int]
    text: Place

    def __call__(self, row: tuple[tuple[Linked, int], Links], users: np.ndarray) -> dict[str, Any]:
        (name, item), (ids, counts) = row
        strength, foreseen = counts, 0.0
        if name == "together":
            strength = np.where(ids == item, 0.0, counts / np.sqrt(users[item] * users[ids]))
        if name == "following":
            foreseen = float(counts[np.isin(ids, _text(str(self.text))[item])].sum())
        there = np.flatnonzero(strength > 0)
        best = there[best_of_rows(np.zeros(len(there), int), ids[there], strength[there], self.widths[name])]
        found = {"ids": ids[best].tobytes(), "values": counts[best].astype(np.float32).tobytes()}
        return {"name": name, "item": item, **found, "sum": float(counts.sum()), "foreseen": foreseen}


@lru_cache(maxsize=1)
def _text(file: str) -> np.ndarray:
    with fetched(place(file)) as copy:
        return np.load(copy)


def counted(
    pipeline: Any,
    folder: Place,
    train: Histories,
    n_items: int,
    text: np.ndarray,
    widths: dict[Linked, int],
    work: Place,
) -> tuple[dict[Linked, Relation], np.ndarray]:
    """The relations and the totals of a log.

    Args:
        pipeline: an empty one; it is run.
        folder: the prepared dataset, where every worker finds it.
        train: its histories to count, which stay unread (`recjax.data.store.prepared.load_unread`).
        n_items: of the catalog.
        text: int32 [v, k], the text neighbours that trust is measured by, 0-padded.
        widths: links of an item, by relation.
        work: an empty folder that every worker reaches.

    Returns:
        Relations as `Following` and `Together` make them, and float32 [v, 7] as `Totals` does.
    """
    with written(work / "text.npy") as file:
        np.save(file, text)
    assert isinstance(train.items, StoredColumn)
    starts, lengths = train.items.starts, train.lengths
    blocks = [(starts[at : at + BLOCK], lengths[at : at + BLOCK]) for at in range(0, len(lengths), BLOCK)]
    with pipeline:
        read = (
            pipeline
            | beam.Create(blocks)
            | "spread" >> beam.Reshuffle()
            | "count" >> beam.ParDo(_Count(folder, n_items)).with_outputs("users", "events", main="rows")
        )
        sums = {
            tag: read[tag]
            | f"add {tag}" >> beam.CombinePerKey(sum)
            | f"list {tag}" >> beam.combiners.ToList()
            | f"join {tag}" >> beam.Map(_by_item, n_items)
            for tag in ("users", "events")
        }
        rows = (
            read.rows
            | "add links" >> beam.CombinePerKey(_merged)
            | "strongest" >> beam.Map(_Best(widths, work / "text.npy"), AsSingleton(sums["users"]))
        )
        _ = rows | WriteToParquet(str(work / "links"), _ROW)
        for tag, found in sums.items():
            table = found | f"row {tag}" >> beam.Map(lambda counts: {"counts": counts.tobytes()})
            _ = table | f"write {tag}" >> WriteToParquet(str(work / tag), pa.schema([("counts", pa.binary())]))
    return _assembled(work, n_items, widths)


def _assembled(work: Place, n_items: int, widths: dict[Linked, int]) -> tuple[dict[Linked, Relation], np.ndarray]:
    """The rows that the workers have written, as arrays."""
    size = n_items + 1
    ids = {name: np.zeros((size, width), np.int32) for name, width in widths.items()}
    values = {name: np.zeros((size, width), np.float32) for name, width in widths.items()}
    sums = {name: np.zeros(size) for name in widths}
    foreseen = 0.0
    for file in sorted(work.glob("links-*")):
        for row in _table(file).iter_rows(named=True):
            name, item = row["name"], row["item"]
            found = np.frombuffer(row["ids"], np.int32)
            ids[name][item, : len(found)] = found
            values[name][item, : len(found)] = np.frombuffer(row["values"], np.float32)
            sums[name][item] = row["sum"]
            foreseen += row["foreseen"]
    events, users = (_sums(work, tag) for tag in ("events", "users"))
    relations: dict[Linked, Relation] = {name: Relation(ids[name], values[name]) for name in widths}  # pyright: ignore[reportArgumentType]
    totals = totals_of(events, sums["following"], sums["preceding"], users, foreseen)
    return relations, totals


def _sums(work: Place, tag: str) -> np.ndarray:
    """float64 [v], what was added up of each item."""
    (file,) = (file for file in work.glob(f"{tag}-*") if _table(file).height)
    return np.frombuffer(_table(file)["counts"][0])


def _table(file: Place) -> pl.DataFrame:
    with fetched(file) as copy:
        return pl.read_parquet(copy)
