"""Prepared datasets in folders: TFDS ArrayRecord shards, a catalog and a description; written, read and found."""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.dataset import Dataset
from recjax.data.prepare.build import build
from recjax.data.prepare.fingerprint import fingerprint
from recjax.data.prepare.preparation import Preparation
from recjax.data.store import records
from recjax.data.store.columns import Shards, StoredColumn, StoredIds
from recjax.data.store.locate import cache_folder, content_key, locate
from recjax.data.store.remote import Place, errors_named, local, place, remove
from recjax.files import file_digest, read_json, sealed, unsealed
from recjax.scratch import scratch_beside
from recjax.typing import InputError

DESCRIPTION = "dataset.json"
CATALOG = "catalog.parquet"
FORMAT = "recjax dataset 1"
READING = "reading 3"
"""Of the importers: another one where they read the same files otherwise, so that no older copy is taken for theirs."""

_HEADER = {"name": str, "fingerprint": str, "users": int, "items": int, "interactions": int, "description": dict}
"""Entries of the description of a dataset beside its format."""


def save(dataset: Dataset, folder: Place) -> None:
    """Writes a prepared dataset: TFDS ArrayRecord shards, `catalog.parquet` and `dataset.json`.

    The folder appears complete or not at all. An older prepared dataset at that place is replaced; any other folder
    that is not empty is left alone.

    Raises:
        InputError: `folder` holds something that is not a prepared dataset.
    """
    with atomic_folder(place(folder)) as scratch:
        records.write(
            records.Records(dataset.user_ids, dataset.offsets, dataset.items, dataset.timestamps, dataset.values),
            scratch,
        )
        sizes = (dataset.n_users, dataset.n_items, dataset.n_interactions)
        write_header(scratch, dataset.name, dataset.fingerprint, sizes, dataset.catalog, dataset.description)


@contextlib.contextmanager
def atomic_folder(folder: Place) -> Iterator[Place]:
    """An empty folder beside `folder` that takes its place when all is written, and disappears when that fails.

    Behind a URL, where folders cannot be moved, it is `folder` itself, and an older dataset goes first: what is half
    written has no `dataset.json`, which is written last.

    Raises:
        InputError: `folder` holds something that is not a prepared dataset.
    """
    if folder.exists() and not is_prepared(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a prepared dataset: it will not be overwritten")
    if not isinstance(folder, Path):
        with errors_named(folder):
            remove(folder)
        try:
            yield folder
        except BaseException:
            remove(folder)
            raise
        return
    with scratch_beside(folder) as scratch:
        yield scratch


def write_header(
    folder: Place,
    name: str,
    fingerprint: str,
    sizes: tuple[int, int, int],
    catalog: pl.DataFrame,
    description: dict[str, Any],
) -> None:
    """Writes what stands beside the shards: `catalog.parquet`, and `dataset.json`, which makes the folder a dataset.

    `dataset.json` has digests of itself, of the catalog and of the offsets; the records of a shard have checksums of
    ArrayRecord's own.

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
    header["files"] = {file: file_digest(folder / file) for file in (CATALOG, records.OFFSETS)}
    text = json.dumps(sealed(header), indent=2, ensure_ascii=False)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def is_prepared(folder: Place) -> bool:
    """True if `folder` is one that `save` wrote."""
    return (folder / DESCRIPTION).is_file()


def load(folder: Place, most: int | None = None) -> Dataset:
    """Reads a prepared dataset.

    Args:
        folder: where it is; behind a URL it is read from a copy in the cache.
        most: of a dataset with more interactions, only as many of its first users are read as have about so many; its
            fingerprint is then the recorded one, unchecked.

    Raises:
        InputError: not a prepared dataset, damaged, or its content does not have the recorded fingerprint.
    """
    folder = local(place(folder), cache_folder())
    about, catalog = _read_header(folder)
    share = 1.0 if most is None else min(1.0, most / max(about["interactions"], 1))
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
    found = fingerprint(**content) if share == 1.0 else about["fingerprint"]
    if found != about["fingerprint"]:
        raise InputError(
            f"the prepared dataset in {folder} is damaged: "
            f"its fingerprint is {found[:12]}, expected {about['fingerprint'][:12]}"
        )
    return Dataset(name=about["name"], **content, description=about["description"], fingerprint=found)


def load_unread(folder: Place) -> Dataset:
    """A prepared dataset whose histories stay in their shards, see `recjax.data.store.columns`.

    Its fingerprint is the recorded one, unchecked, and ratings are left out.

    Raises:
        InputError: not a prepared dataset, or parts of it are missing or damaged.
    """
    folder = local(place(folder), cache_folder())
    about, catalog = _read_header(folder)
    if not about["users"]:
        return load(folder)
    _check_file(folder, records.OFFSETS, about)
    shards = Shards(folder)
    items, timestamps = (
        StoredColumn(shards, name, shards.offsets[:-1], shards.offsets) for name in ("items", "timestamps")
    )
    content: dict[str, Any] = {"user_ids": StoredIds(shards), "items": items, "timestamps": timestamps}
    return Dataset(
        name=about["name"],
        item_ids=["", *catalog["item_id"].to_list()],
        offsets=shards.offsets,
        values=None,
        catalog=catalog,
        description=about["description"],
        fingerprint=about["fingerprint"],
        **content,
    )


def header(folder: Place) -> dict[str, Any]:
    """Header of a prepared dataset: its name, fingerprint, sizes and description.

    Raises:
        InputError: damaged, or of another format.
    """
    found = read_json(folder / DESCRIPTION)
    written = found.get("format") if isinstance(found, dict) else found
    if written != FORMAT:
        raise InputError(f"{folder} has format {str(written)[:50]!r}, expected {FORMAT!r}: prepare it again")
    found = unsealed(found, folder / DESCRIPTION)
    for name, kind in _HEADER.items():
        if not isinstance(found.get(name), kind):
            raise InputError(f"the prepared dataset in {folder} is damaged: its {name} is {found.get(name)!r}")
    return found


def _read_header(folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """The description and the catalog beside the shards, compared with their digests."""
    if not is_prepared(folder):
        raise InputError(f"{folder} is not a prepared dataset: it has no {DESCRIPTION}")
    found = header(folder)
    _check_file(folder, CATALOG, found)
    try:
        catalog = pl.read_parquet(folder / CATALOG)
    except (ValueError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"the prepared dataset in {folder} is damaged: {CATALOG}: {error}") from error
    return found, catalog


def _check_file(folder: Path, name: str, about: dict[str, Any]) -> None:
    """Compares a file with its digest in the description; datasets of earlier versions have none."""
    expected = about.get("files", {}).get(name)
    file = folder / name
    if expected is not None and file.is_file() and file_digest(file) != expected:
        raise InputError(f"the prepared dataset in {folder} is damaged: {name} is not what was written")


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
    from recjax.data.embedded.generate import NAMES, generate
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
    key = content_key(found, [FORMAT, READING, json.dumps(options.to_json(), sort_keys=True)])
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
