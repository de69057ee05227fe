"""From raw logs to the canonical dataset: checks, filters, numbers for users and items."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recjax.data.dataset import EQUAL_TIMES, OF_EVENTS, UNSEEN, Dataset
from recjax.data.importers.timestamps import NANOSECOND
from recjax.data.prepare.fingerprint import fingerprint
from recjax.data.prepare.preparation import Events, Preparation, prepare, sort, ties
from recjax.typing import InputError

if TYPE_CHECKING:
    from recjax.data.importers import RawLogs


def build(raw: "RawLogs", options: Preparation = Preparation()) -> Dataset:  # noqa: B008 (frozen)
    """Validates raw logs, applies `options` and numbers users and items.

    Args:
        raw: what an importer read; without events it is a catalog alone, a dataset of items without users.
        options: filters.

    Raises:
        InputError: missing column, missing id or time, timestamps that are not whole numbers, an infinite rating,
            duplicate ids in the catalog, or nothing left after the filters.
    """
    interactions = validated(raw.interactions, raw.name)
    users, user_names = _codes(interactions["user_id"])
    items, item_names = _codes(interactions["item_id"])
    values = interactions["rating"].to_numpy() if "rating" in interactions.columns else None
    finer = interactions[NANOSECOND].to_numpy() if NANOSECOND in interactions.columns else None
    read = Events(users, items, interactions["timestamp"].to_numpy(), values, finer)
    alone = not len(read) and raw.catalog.height > 0
    events, steps = (read, [{"step": "read"} | read.counts()]) if alone else prepare(read, options)

    # Codes follow first appearance in the file, so dropping the unused ones keeps that order.
    user_codes, kept_users = _compact(events.users, len(user_names))
    item_codes, kept_items = _compact(events.items, len(item_names))
    user_ids = user_names.gather(kept_users).to_list()
    offsets = np.zeros(len(user_ids) + 1, np.int64)
    np.cumsum(np.bincount(user_codes, minlength=len(user_ids)), out=offsets[1:])
    seen = item_names.gather(kept_items).to_list()
    unseen = alone or options.keeps_unseen(raw.notes)
    catalog, catalog_counts = catalog_of_items(raw.catalog, seen, raw.name, unseen)
    content = {
        "user_ids": user_ids,
        "item_ids": ["", *catalog["item_id"].to_list()],
        "offsets": offsets,
        "items": (item_codes + 1).astype(np.int32),
        "timestamps": events.times,
        "values": None if events.values is None else events.values.astype(np.float32),
        "catalog": catalog,
    }
    equal = None if finer is None else ties(sort(read))
    description = describe(raw.notes, options, steps, catalog_counts, equal)
    if unseen:
        own = content | {"item_ids": ["", *seen], "catalog": catalog.head(len(seen))}
        description[OF_EVENTS] = fingerprint(**own)
    return Dataset(name=raw.name, **content, description=description, fingerprint=fingerprint(**content))


def describe(
    notes: dict[str, Any],
    options: Preparation,
    steps: list[dict[str, Any]],
    catalog: dict[str, int],
    equal: int | None = None,
) -> dict[str, Any]:
    """A dataset's description: the importer's account, the options, the counts after each step and of the catalog.

    Args:
        notes: of the importer.
        options: filters.
        steps: users, items and interactions after each.
        catalog: counts of `catalog_of_items`.
        equal: of a log with times below a second, events read whose whole time is that of the user's event before.
    """
    source = json.loads(json.dumps(notes, default=str))
    description = {"source": source, "options": options.to_json(), "steps": steps, "catalog": catalog}
    return description if equal is None else description | {EQUAL_TIMES: equal}


def validated(interactions: pl.DataFrame, name: str) -> pl.DataFrame:
    """Events as `build` takes them: ids as text, times int64, ratings float32 with NaN where there is none.

    Raises:
        InputError: a column is missing or of another kind, an id or time is missing, or a rating is infinite.
    """
    expected = ("user_id", "item_id", "timestamp")
    missing = [column for column in expected if column not in interactions.columns]
    if missing:
        raise InputError(
            f"dataset {name!r}: interactions lack the column {', '.join(missing)} "
            f"(found: {', '.join(interactions.columns)})"
        )
    if not interactions["timestamp"].dtype.is_integer():
        kind = interactions["timestamp"].dtype
        raise InputError(f"dataset {name!r}: timestamps are {kind}, expected whole numbers (unix seconds)")
    for column in expected:
        empty = interactions[column].is_null()
        if interactions[column].dtype == pl.String:
            empty |= interactions[column].str.strip_chars() == ""
        if count := int(empty.sum()):
            rows = ", ".join(str(row + 1) for row in np.flatnonzero(empty.to_numpy())[:5])
            raise InputError(f"dataset {name!r}: {count:,} interactions have no {column} (first in rows {rows})")
    columns = [
        interactions["user_id"].cast(pl.String),
        interactions["item_id"].cast(pl.String),
        interactions["timestamp"].cast(pl.Int64),
    ]
    if "rating" in interactions.columns:
        rating = interactions["rating"].cast(pl.Float32)
        if count := int(rating.is_infinite().sum()):
            raise InputError(f"dataset {name!r}: {count:,} ratings are infinite, expected finite numbers")
        columns.append(rating.fill_null(float("nan")))
    if NANOSECOND in interactions.columns:
        columns.append(interactions[NANOSECOND].cast(pl.Int32))
    return pl.DataFrame(columns)


def _codes(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Dense codes by first appearance (int32 [n]), and the value of each code."""
    names = column.unique(maintain_order=True)
    codes = pl.DataFrame({"name": column}).join(
        pl.DataFrame({"name": names}).with_row_index("code"), on="name", how="left", maintain_order="left"
    )["code"]
    return codes.to_numpy().astype(np.int32), names


def _compact(codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes renumbered without gaps in the same order, and the old codes that are left."""
    used = np.bincount(codes, minlength=size) > 0
    return (np.cumsum(used) - 1)[codes], np.flatnonzero(used)


def catalog_of_items(
    catalog: pl.DataFrame, item_ids: list[str], name: str, unseen: bool = False
) -> tuple[pl.DataFrame, dict[str, int]]:
    """One row an item, in item order; items that the catalog lacks get empty text and are counted.

    Args:
        catalog: `item_id`, and texts.
        item_ids: the items with events, in their order.
        name: of the dataset.
        unseen: whether the other items of the catalog follow, in its order.

    Raises:
        InputError: the catalog has no ids, or one of them twice.
    """
    if "item_id" not in catalog.columns:
        found = ", ".join(catalog.columns)
        raise InputError(f"dataset {name!r}: the catalog lacks the column item_id (found: {found})")
    catalog = catalog.with_columns(pl.col("item_id").cast(pl.String))
    duplicated = catalog["item_id"].filter(catalog["item_id"].is_duplicated()).unique(maintain_order=True)
    if len(duplicated):
        shown = ", ".join(map(repr, duplicated.head(5).to_list()))
        raise InputError(f"dataset {name!r}: {len(duplicated):,} item ids stand more than once in the catalog: {shown}")
    if "title" not in catalog.columns:
        catalog = catalog.with_columns(pl.lit(None, pl.String).alias("title"))
    kept = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})
    rows = kept.join(catalog, on="item_id", how="left", maintain_order="left")
    known = kept.join(catalog, on="item_id", how="semi").height
    if unseen:
        others = catalog.join(kept, on="item_id", how="anti", maintain_order="left")
        rows = pl.concat([rows, others.select(rows.columns)])
    counts = {
        "rows": catalog.height,
        "items_without_row": len(item_ids) - known,
        "rows_without_events": catalog.height - known,
        "items_without_title": rows["title"].null_count(),
    }
    return rows, counts | ({UNSEEN: catalog.height - known} if unseen else {})
