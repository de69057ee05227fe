"""The catalog of a run, kept in its folder: what it needs to recommend where its dataset is not.

`items/catalog/` has the table of the items (id, title, training events, all events), the columns and relations that
the model reads of them, and a description with the dataset's name and fingerprint. Users and their events are not in
it. Each file has a digest.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from recjax import array_files
from recjax.array_files import DamagedFileError
from recjax.data.dataset import Dataset
from recjax.data.items import Items, Relation, bare_items
from recjax.data.store.columns import StoredColumn
from recjax.data.transitions import item_counts
from recjax.files import file_digest, read_json, replacing, sealed, unsealed
from recjax.models.model import ItemStats
from recjax.train.catalogs import ITEMS
from recjax.typing import InputError

FORMAT = "recjax run catalog 1"
CATALOG = "catalog"
"""Folder of it inside `items/`."""

DESCRIPTION, TABLE, ARRAYS = "catalog.json", "catalog.parquet", "columns.safetensors"
COLUMN, IDS, VALUES = "column/", "relation ids/", "relation values/"
"""Beginnings of the names of arrays."""


@dataclass(frozen=True, eq=False)
class OwnCatalog:
    """Catalog that a run ranks, as its folder has it.

    Attributes:
        dataset: the catalog without users; name and fingerprint are those of the whole dataset.
        stats: what the model is built with.
        items: on the host.
        popularity: int64 [items + 1], events of each item.
    """

    dataset: Dataset
    stats: ItemStats
    items: Items
    popularity: np.ndarray


def folder_of(run_dir: Path) -> Path:
    """Folder of a run's catalog."""
    return run_dir / ITEMS / CATALOG


def write(run_dir: Path, dataset: Dataset, stats: ItemStats, items: Items | None) -> None:
    """Keeps a catalog in a run's folder, unless it is there; of several processes, the first one writes.

    Args:
        run_dir: of the run.
        dataset: the one that the run ranks.
        stats: what its model is built with.
        items: of this catalog alone, on the host; None for a model of item ids.
    """
    folder = folder_of(run_dir)
    if jax.process_index() != 0 or _is_of(run_dir, dataset):
        return
    folder.mkdir(parents=True, exist_ok=True)
    stored = isinstance(dataset.items, StoredColumn)  # counting those would read the whole log
    popularity = stats.counts if stored else item_counts(dataset.items, dataset.n_items)
    table = dataset.catalog.select("item_id", "title").with_columns(
        pl.Series("trained", np.asarray(stats.counts)[1:], dtype=pl.Int64),
        pl.Series("events", np.asarray(popularity)[1:], dtype=pl.Int64),
    )
    with replacing(folder / TABLE) as new:
        table.write_parquet(new)
    items = bare_items(dataset.n_items) if items is None else items
    arrays = {COLUMN + name: np.asarray(column) for name, column in items.columns.items()}
    for name, relation in items.relations.items():
        arrays |= {IDS + name: np.asarray(relation.ids), VALUES + name: np.asarray(relation.values)}
    if arrays:
        array_files.write(folder / ARRAYS, arrays)
    entries = {
        "format": FORMAT,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "items": dataset.n_items},
        "code_sizes": list(stats.code_sizes),
        "sizes": {name: list(sizes) for name, sizes in stats.sizes.items()},
        "table": file_digest(folder / TABLE),
        "arrays": bool(arrays),
    }
    with replacing(folder / DESCRIPTION) as new:
        new.write_text(json.dumps(sealed(entries), indent=2) + "\n", encoding="utf-8")


def _is_of(run_dir: Path, dataset: Dataset) -> bool:
    try:
        about = description(run_dir)
    except InputError:  # damaged: written anew
        return False
    return about is not None and about["dataset"]["fingerprint"] == dataset.fingerprint


def read(run_dir: Path) -> OwnCatalog | None:
    """The catalog in a run's folder; None where it has none, as folders of earlier versions.

    Raises:
        InputError: a file is damaged or missing.
    """
    folder = folder_of(run_dir)
    about = description(run_dir)
    if about is None:
        return None
    table = _table(folder / TABLE, about["table"])
    try:
        arrays = array_files.read(folder / ARRAYS).arrays if about["arrays"] else {}
    except FileNotFoundError:
        raise InputError(f"{folder / ARRAYS} does not exist: bring it back from a copy of the run") from None
    except DamagedFileError as error:
        raise InputError(f"{error}; bring it back from a copy of the run") from None
    named = about["dataset"]
    counts, popularity = (np.concatenate([[0], table[name].to_numpy()]) for name in ("trained", "events"))
    columns = {name.removeprefix(COLUMN): array for name, array in arrays.items() if name.startswith(COLUMN)}
    relations: dict[str, Any] = {
        name.removeprefix(IDS): Relation(array, arrays[VALUES + name.removeprefix(IDS)])  # pyright: ignore
        for name, array in arrays.items()
        if name.startswith(IDS)
    }
    items = replace(bare_items(table.height, columns), relations=relations)
    sizes = {name: tuple(each) for name, each in about["sizes"].items()}
    stats = ItemStats(table.height, counts, items.row_shapes, tuple(about["code_sizes"]), sizes)
    dataset = without_users(named["name"], named["fingerprint"], table.select("item_id", "title"))
    return OwnCatalog(dataset, stats, items, popularity)


def description(run_dir: Path) -> dict[str, Any] | None:
    """Catalog of a run's folder; None where it has none.

    Raises:
        InputError: it is damaged.
    """
    path = folder_of(run_dir) / DESCRIPTION
    if not path.exists():
        return None
    about = read_json(path)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path} is not the description of a run's catalog, expected format {FORMAT!r}")
    return unsealed(about, path)


def read_table(run_dir: Path) -> pl.DataFrame | None:
    """`item_id` and `title` of the items of a run, among others; None where its folder does not have them.

    Raises:
        InputError: a file is damaged or missing.
    """
    about = description(run_dir)
    return None if about is None else _table(folder_of(run_dir) / TABLE, about["table"])


def without_users(name: str, fingerprint: str, catalog: pl.DataFrame) -> Dataset:
    """A dataset of which only the catalog is known."""
    nothing = np.zeros(0, np.int64)
    ids = ["", *catalog["item_id"].to_list()]
    content: dict[str, Any] = {"offsets": np.zeros(1, np.int64), "items": nothing.astype(np.int32)}
    return Dataset(name, [], ids, **content, timestamps=nothing, values=None, catalog=catalog, description={},
                   fingerprint=fingerprint)  # fmt: skip


def _table(path: Path, digest: str) -> pl.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} does not exist: bring it back from a copy of the run")
    if file_digest(path) != digest:
        raise InputError(f"{path} is damaged: it is not what was written; bring it back from a copy of the run")
    return pl.read_parquet(path)
