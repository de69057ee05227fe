"""The canonical dataset: validated tables of users, items and events, with a fingerprint."""

import contextlib
import difflib
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recjax.data import records
from recjax.data.fingerprint import fingerprint
from recjax.data.locate import cache_folder, content_key, locate
from recjax.data.preparation import Events, Preparation, prepare
from recjax.data.remote import Place, local, place, remove, told
from recjax.data.stored import Shards, StoredColumn, StoredIds
from recjax.typing import InputError

if TYPE_CHECKING:
    from recjax.data.importers import RawLogs

__all__ = ["Dataset", "Preparation", "build", "find", "load", "save"]

DESCRIPTION = "dataset.json"
CATALOG = "catalog.parquet"
FORMAT = "recjax dataset 1"


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
    interactions = validated(raw.interactions, raw.name)
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
    catalog, catalog_counts = kept_catalog(raw.catalog, item_ids[1:], raw.name)
    content = {
        "user_ids": user_ids,
        "item_ids": item_ids,
        "offsets": offsets,
        "items": (item_codes + 1).astype(np.int32),
        "timestamps": events.times,
        "values": None if events.values is None else events.values.astype(np.float32),
        "catalog": catalog,
    }
    description = describe(raw.notes, options, steps, catalog_counts)
    return Dataset(name=raw.name, **content, description=description, fingerprint=fingerprint(**content))


def describe(
    notes: dict[str, Any], options: Preparation, steps: list[dict[str, Any]], catalog: dict[str, int]
) -> dict[str, Any]:
    """A dataset's description: the importer's account, the options, the counts after each step and of the catalog."""
    source = json.loads(json.dumps(notes, default=str))
    return {"source": source, "options": options.to_json(), "steps": steps, "catalog": catalog}


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


def kept_catalog(catalog: pl.DataFrame, item_ids: list[str], name: str) -> tuple[pl.DataFrame, dict[str, int]]:
    """One row a kept item, in item order; items that the catalog lacks get empty text and are counted."""
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
    counts = {
        "rows": catalog.height,
        "items_without_row": len(item_ids) - known,
        "rows_without_events": catalog.height - known,
        "items_without_title": rows["title"].null_count(),
    }
    return rows, counts


def save(dataset: Dataset, folder: Place) -> None:
    """Writes a prepared dataset: TFDS ArrayRecord shards, `catalog.parquet` and `dataset.json`.

    The folder appears complete or not at all. An older prepared dataset at that place is replaced; any other folder
    that is not empty is left alone.

    Raises:
        InputError: `folder` holds something that is not a prepared dataset.
    """
    with placed(place(folder)) as scratch:
        records.write(
            records.Records(dataset.user_ids, dataset.offsets, dataset.items, dataset.timestamps, dataset.values),
            scratch,
        )
        sizes = (dataset.n_users, dataset.n_items, dataset.n_interactions)
        write_header(scratch, dataset.name, dataset.fingerprint, sizes, dataset.catalog, dataset.description)


@contextlib.contextmanager
def placed(folder: Place) -> Iterator[Place]:
    """An empty folder beside `folder` that takes its place when all is written, and disappears when that fails.

    Behind a URL, where folders cannot be moved, it is `folder` itself, and an older dataset goes first: what is half
    written has no `dataset.json`, which is written last.

    Raises:
        InputError: `folder` holds something that is not a prepared dataset.
    """
    if folder.exists() and not is_prepared(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a prepared dataset: it will not be overwritten")
    if not isinstance(folder, Path):
        with told(folder):
            remove(folder)
        try:
            yield folder
        except BaseException:
            remove(folder)
            raise
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp makes it private; what other users may read is the umask's business
        yield scratch
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            folder.rename(old / "dataset")
            scratch.rename(folder)
            shutil.rmtree(old)
        else:
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_header(
    folder: Place,
    name: str,
    fingerprint: str,
    sizes: tuple[int, int, int],
    catalog: pl.DataFrame,
    description: dict[str, Any],
) -> None:
    """Writes what stands beside the shards: `catalog.parquet`, and `dataset.json`, which makes the folder a dataset.

    Args:
        folder: with the shards.
        name: of the dataset.
        fingerprint: of its content.
        sizes: users, items, interactions.
        catalog: see `Dataset`.
        description: see `Dataset`.
    """
    table = io.BytesIO()
    catalog.write_parquet(table)
    (folder / CATALOG).write_bytes(table.getvalue())
    header = {"format": FORMAT, "name": name, "fingerprint": fingerprint}
    header |= dict(zip(("users", "items", "interactions"), sizes, strict=True)) | {"description": description}
    (folder / DESCRIPTION).write_text(json.dumps(header, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_prepared(folder: Place) -> bool:
    """Whether `folder` is one that `save` wrote."""
    return (folder / DESCRIPTION).is_file()


def load(folder: Place, most: int | None = None) -> Dataset:
    """Reads a prepared dataset, through TFDS's `as_data_source` and without TensorFlow.

    Args:
        folder: where it is; behind a URL it is read from a copy in the cache.
        most: of a dataset with more interactions, only as many of its first users are read as have about so many; its
            fingerprint is then the recorded one, unchecked.

    Raises:
        InputError: not a prepared dataset, damaged, or its content does not have the recorded fingerprint.
    """
    folder = local(place(folder), cache_folder())
    header, catalog = _read_header(folder)
    share = 1.0 if most is None else min(1.0, most / header["interactions"])
    columns = records.read(folder, share)
    content = {
        "user_ids": columns.user_ids,
        "item_ids": ["", *catalog["item_id"].to_list()],
        "offsets": columns.offsets,
        "items": columns.items,
        "timestamps": columns.timestamps,
        "values": columns.values,
        "catalog": catalog,
    }
    found = fingerprint(**content) if share == 1.0 else header["fingerprint"]
    if found != header["fingerprint"]:
        raise InputError(
            f"the prepared dataset in {folder} is damaged: "
            f"its fingerprint is {found[:12]}, expected {header['fingerprint'][:12]}"
        )
    return Dataset(name=header["name"], **content, description=header["description"], fingerprint=found)


def load_unread(folder: Place) -> Dataset:
    """A prepared dataset whose histories stay in their shards, see `recjax.data.stored`.

    Its fingerprint is the recorded one, unchecked, and ratings are left out.

    Raises:
        InputError: not a prepared dataset, or parts of it are missing.
    """
    folder = local(place(folder), cache_folder())
    header, catalog = _read_header(folder)
    shards = Shards(folder)
    items, timestamps = (
        StoredColumn(shards, name, shards.offsets[:-1], shards.offsets) for name in ("items", "timestamps")
    )
    content: dict[str, Any] = {"user_ids": StoredIds(shards), "items": items, "timestamps": timestamps}
    return Dataset(
        name=header["name"],
        item_ids=["", *catalog["item_id"].to_list()],
        offsets=shards.offsets,
        values=None,
        catalog=catalog,
        description=header["description"],
        fingerprint=header["fingerprint"],
        **content,
    )


def _read_header(folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """What stands beside the shards."""
    if not is_prepared(folder):
        raise InputError(f"{folder} is not a prepared dataset: it has no {DESCRIPTION}")
    try:
        header = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        catalog = pl.read_parquet(folder / CATALOG)
    except (ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"the prepared dataset in {folder} is damaged: {error}") from error
    if header.get("format") != FORMAT:
        raise InputError(f"{folder} has format {header.get('format')!r}, expected {FORMAT!r}: prepare it again")
    return header, catalog


def find(
    name_or_path: str,
    options: Preparation = Preparation(),  # noqa: B008 (frozen)
    resident: bool = True,
) -> Dataset:
    """The dataset called `name_or_path`, prepared with `options`.

    Raw data are prepared at first use and kept in `$RECJAX_CACHE` (default `~/.cache/recjax`) under a key made of the
    content of the files and of the options, so neither a changed file nor a changed option is ever missed.

    Args:
        name_or_path: a folder (raw or prepared), the name of one under `$RECJAX_DATA` (a folder of datasets, or several
            separated by `os.pathsep`) or `$RECJAX_CACHE`, or the name of an embedded dataset ("synthetic").
        options: filters. A folder that is already prepared keeps its own; asking it for others is an error.
        resident: read the whole of it; False leaves the histories of a prepared folder in their shards.

    Raises:
        InputError: nothing goes by that name; says where it looked, what is there, and the nearest name.
    """
    from recjax.data.embedded import NAMES, generate
    from recjax.data.importers import read

    if name_or_path in NAMES:
        return build(generate(name_or_path), options)
    found = locate(name_or_path, NAMES)
    if is_prepared(found):
        dataset = load(found) if resident else load_unread(found)
        recorded = dataset.description["options"]
        if options != Preparation() and options.to_json() != recorded:
            raise InputError(
                f"{found} is already prepared with {recorded}, not with {options.to_json()}; give the raw data"
            )
        return dataset
    if not resident:
        raise InputError(
            f"{found} is not prepared, and only prepared histories can stay in their shards (data.resident=false): "
            f"recjax prepare NAME --raw {found}"
        )
    key = content_key(found, [FORMAT, json.dumps(options.to_json(), sort_keys=True)])
    cached = cache_folder() / "prepared" / f"{found.name}-{key}"
    damaged = False
    if is_prepared(cached):
        try:
            return load(cached)
        except InputError as error:  # a damaged copy costs nothing but the time to make it again
            logging.getLogger(__name__).warning("%s; preparing it again", error)
            damaged = True
    dataset = build(read(found), options)
    try:
        if damaged or not is_prepared(cached):  # another process may have been faster
            save(dataset, cached)
    except OSError as error:
        logging.getLogger(__name__).warning("cannot keep the prepared dataset in %s: %s", cached, error)
    return dataset
