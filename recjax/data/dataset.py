"""The canonical dataset: validated tables of users, items and events, with a fingerprint."""

import difflib
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recjax.data.locate import locate
from recjax.data.preparation import Events, Preparation, prepare
from recjax.typing import InputError

if TYPE_CHECKING:
    from recjax.data.importers import RawLogs

__all__ = ["Dataset", "Preparation", "build", "find"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Events sorted stably by (user, time), and the catalog.

    Users are numbered from 0 and items from 1 in the order in which the file first mentions them (after the filters):
    score ties then go to the item that appears first, as in the published figures. Item 0 is padding.

    Attributes:
        name: as the user calls it.
        user_ids: raw id of each user.
        item_ids: raw id of each item; `item_ids[0]` is "" (padding).
        offsets: int64 [users + 1]; user u's events are rows `offsets[u]` to `offsets[u + 1]`.
        items: int32 [interactions], ids from 1.
        timestamps: int64 [interactions], unix seconds.
        values: float32 [interactions] (ratings; NaN = not rated) or None.
        catalog: row i describes item i + 1; `item_id`, `title` and whatever text the source had.
        description: where the data come from, the options, and the counts after each step. JSON.
        fingerprint: sha256 of the content above but `name` and `description`; hex.
    """

    name: str
    user_ids: list[str]
    item_ids: list[str]
    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    values: np.ndarray | None
    catalog: pl.DataFrame
    description: dict[str, Any]
    fingerprint: str

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Items of the catalog, padding not counted."""
        return len(self.item_ids) - 1

    @property
    def n_interactions(self) -> int:
        return len(self.items)

    def history(self, user: int) -> np.ndarray:
        """int32 [length]: the items of user number `user`, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @cached_property
    def _item_numbers(self) -> dict[str, int]:
        return {raw: number for number, raw in enumerate(self.item_ids) if number}

    @cached_property
    def _user_numbers(self) -> dict[str, int]:
        return {raw: number for number, raw in enumerate(self.user_ids)}

    def item_index(self, raw_ids: list[str]) -> np.ndarray:
        """Numbers of raw item ids, int32 [len(raw_ids)].

        Raises:
            InputError: names the ids that the catalog does not have, and the nearest ones that it has.
        """
        return _lookup(self._item_numbers, raw_ids, "item", self.name)

    def user_index(self, raw_ids: list[str]) -> np.ndarray:
        """Numbers of raw user ids, int32 [len(raw_ids)]. Raises InputError like `item_index`."""
        return _lookup(self._user_numbers, raw_ids, "user", self.name)


def _lookup(numbers: dict[str, int], raw_ids: list[str], kind: str, dataset: str) -> np.ndarray:
    unknown = list(dict.fromkeys(str(raw) for raw in raw_ids if str(raw) not in numbers))
    if unknown:
        shown = ", ".join(repr(raw) for raw in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        near = difflib.get_close_matches(unknown[0], list(numbers)[:100_000], n=3)
        hint = f"; nearest to {unknown[0]!r}: {', '.join(map(repr, near))}" if near else ""
        noun = f"{kind} id" + ("s" if len(unknown) > 1 else "")
        raise InputError(f"dataset {dataset!r} has no {noun} {shown} ({len(unknown):,} unknown){hint}")
    return np.fromiter((numbers[str(raw)] for raw in raw_ids), np.int32, len(raw_ids))


def build(raw: "RawLogs", options: Preparation = Preparation()) -> Dataset:  # noqa: B008 (frozen)
    """Validates raw logs, applies `options` and numbers users and items.

    Args:
        raw: what an importer read.
        options: filters.

    Raises:
        InputError: missing column, missing id or time, timestamps that are not whole numbers, an infinite rating,
            duplicate ids in the catalog, or nothing left after the filters.
    """
    interactions = _validated(raw.interactions, raw.name)
    users, user_names = _codes(interactions["user_id"])
    items, item_names = _codes(interactions["item_id"])
    values = interactions["rating"].to_numpy() if "rating" in interactions.columns else None
    events, steps = prepare(Events(users, items, interactions["timestamp"].to_numpy(), values), options)

    # Codes follow first appearance in the file, so dropping the unused ones keeps that order.
    user_codes, kept_users = _compact(events.users, len(user_names))
    item_codes, kept_items = _compact(events.items, len(item_names))
    user_ids = user_names.gather(kept_users).to_list()
    item_ids = ["", *item_names.gather(kept_items).to_list()]
    offsets = np.zeros(len(user_ids) + 1, np.int64)
    np.cumsum(np.bincount(user_codes, minlength=len(user_ids)), out=offsets[1:])
    catalog, catalog_counts = _catalog(raw.catalog, item_ids[1:], raw.name)
    content = {
        "user_ids": user_ids,
        "item_ids": item_ids,
        "offsets": offsets,
        "items": (item_codes + 1).astype(np.int32),
        "timestamps": events.times,
        "values": None if events.values is None else events.values.astype(np.float32),
        "catalog": catalog,
    }
    description = {
        "source": json.loads(json.dumps(raw.notes, default=str)),
        "options": options.to_json(),
        "steps": steps,
        "catalog": catalog_counts,
    }
    return Dataset(name=raw.name, **content, description=description, fingerprint=fingerprint(**content))


def find(name_or_path: str, options: Preparation = Preparation()) -> Dataset:  # noqa: B008 (frozen)
    """The dataset called `name_or_path`, prepared with `options`.

    Args:
        name_or_path: a folder (raw or prepared), the name of a dataset under `$RECJAX_DATA` (one folder of datasets, or
            several separated by `os.pathsep`), or "synthetic", the embedded one.
        options: filters.

    Raises:
        InputError: nothing goes by that name; says where it looked, what is there, and the nearest name.
    """
    from recjax.data.importers import read
    from recjax.data.synthetic import NAMES, synthetic

    if name_or_path in NAMES:
        return build(synthetic(name_or_path), options)
    return build(read(locate(name_or_path, NAMES)), options)


def _validated(interactions: pl.DataFrame, name: str) -> pl.DataFrame:
    expected = ("user_id", "item_id", "timestamp")
    missing = [column for column in expected if column not in interactions.columns]
    if missing:
        raise InputError(
            f"dataset {name!r}: interactions lack the column {', '.join(missing)} (found: {', '.join(interactions.columns)})"
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
    casts = [pl.col("user_id").cast(pl.String), pl.col("item_id").cast(pl.String), pl.col("timestamp").cast(pl.Int64)]
    if "rating" in interactions.columns:
        rating = interactions["rating"].cast(pl.Float32)
        if count := int(rating.is_infinite().sum()):
            raise InputError(f"dataset {name!r}: {count:,} ratings are infinite, expected finite numbers")
        casts.append(rating.fill_null(float("nan")).alias("rating"))
    return interactions.select(casts)


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


def _catalog(catalog: pl.DataFrame, item_ids: list[str], name: str) -> tuple[pl.DataFrame, dict[str, int]]:
    """One row a kept item, in item order; items that the catalog lacks get empty text and are counted."""
    if "item_id" not in catalog.columns:
        raise InputError(f"dataset {name!r}: the catalog lacks the column item_id (found: {', '.join(catalog.columns)})")
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
    counts = {
        "rows": catalog.height,
        "items_without_row": len(item_ids) - known,
        "rows_without_events": catalog.height - known,
    }
    return rows, counts


def fingerprint(
    user_ids: list[str],
    item_ids: list[str],
    offsets: np.ndarray,
    items: np.ndarray,
    timestamps: np.ndarray,
    values: np.ndarray | None,
    catalog: pl.DataFrame,
) -> str:
    """sha256 (hex) of the content, independent of machine, library versions, column order and files."""
    digest = hashlib.sha256(b"recjax dataset 1")

    def add(label: str, data: bytes) -> None:
        digest.update(f"{label}:{len(data)};".encode())
        digest.update(data)

    def add_texts(label: str, texts: list[str | None]) -> None:
        encoded = [b"" if text is None else text.encode() for text in texts]
        sizes = np.array([-1 if text is None else len(data) for text, data in zip(texts, encoded, strict=True)], "<i8")
        add(label, sizes.tobytes() + b"".join(encoded))

    add_texts("users", list(user_ids))
    add_texts("items", list(item_ids))
    add("offsets", offsets.astype("<i8").tobytes())
    add("events", items.astype("<i4").tobytes())
    add("times", timestamps.astype("<i8").tobytes())
    if values is not None:
        canonical = np.where(np.isnan(values), np.float32("nan"), values)  # one bit pattern for every NaN
        add("values", canonical.astype("<f4").tobytes())
    for column in sorted(catalog.columns):
        texts = catalog[column].to_list()
        add_texts(f"catalog {column}", [None if t is None else t if isinstance(t, str) else json.dumps(t, default=str) for t in texts])
    return digest.hexdigest()
