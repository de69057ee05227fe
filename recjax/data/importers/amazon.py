"""Amazon reviews of 2014, 2018 and 2023 (McAuley et al.): JSON lines, with the metadata file beside them joined.

| year | reviews                                         | metadata                 |
|------|-------------------------------------------------|--------------------------|
| 2014 | `reviews_Beauty_5.json.gz`                      | `meta_Beauty.json.gz`    |
| 2018 | `Gift_Cards_5.json.gz`                          | `meta_Gift_Cards.json.gz`|
| 2023 | `Gift_Cards.jsonl.gz`, or `Gift_Cards.csv(.gz)` | `meta_Gift_Cards.jsonl.gz`|

Reviews that the publisher has twice are kept: dropping them is a choice of the preparation. The items of 2023 are the
parent products, which is what its metadata describe.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recjax.data.importers import catalog, delimited, json_lines
from recjax.data.importers.delimited import Layout
from recjax.data.importers.logs import Options, RawLogs, files_note
from recjax.data.importers.rows import to_events
from recjax.data.importers.tables import match, renamed
from recjax.typing import InputError, shorten

NAME = "amazon"
EXPECTED = "reviews as JSON lines (.json, .jsonl, or .gz) of 2014, 2018 or 2023, with meta_<category> beside them"

_EVENTS = {
    "user_id": ("reviewerID", "user_id"),
    "item_id": ("parent_asin", "asin"),
    "timestamp": ("unixReviewTime", "timestamp"),
    "rating": ("overall", "rating"),
}
_ITEMS = ("parent_asin", "asin", "title", "category", "categories", "main_category", "brand", "store", "price",
          "description")  # fmt: skip
_JSON = re.compile(r"\.jsonl?(\.gz)?$")
_CSV = re.compile(r"\.csv(\.gz)?$")
_PRICE = r"^\$?\d[\d,]*(\.\d+)?( ?- ?\$?\d[\d,]*(\.\d+)?)?$"
"""A price or a range of prices; some cells of 2018 hold page source."""


def find(files: Sequence[Path], sure: bool) -> list[tuple[Path, ...]]:
    """The review files among `files`; `sure` = the user says they are Amazon's."""
    found = []
    for file in files:
        if file.name.startswith("meta_") and len(files) > 1:
            continue
        if _JSON.search(file.name):
            keys = set(json_lines.first_keys(file))
            if (sure and len(files) == 1) or keys & {"reviewerID", "unixReviewTime"} or {"user_id", "asin"} <= keys:
                found.append((file,))
        elif _CSV.search(file.name) and "parent_asin" in delimited.first_line(file)[1]:
            found.append((file,))
    return found


def read(paths: Sequence[Path], options: Options) -> RawLogs:
    """Reads reviews, and their metadata when the file is beside them.

    Raises:
        InputError: see `recjax.data.importers.rows.to_events`.
    """
    (path,) = paths
    metadata = _metadata_of(path)
    notes: dict[str, Any] = {"format": NAME, "files": files_note(path, metadata)}
    if _CSV.search(path.name):
        found = delimited.header(path, Layout())
        names = match(found, _EVENTS, {}, path, required=("user_id", "item_id", "timestamp"), preferred=_EVENTS)
        rows = delimited.read(path, Layout(), list(names.values()))
    else:
        found = json_lines.first_keys(path)
        if not found:
            raise InputError(f"{path}, line 1: expected a JSON object, found {delimited.first_line(path)[1][:80]!r}")
        names = match(found, _EVENTS, {}, path, required=("user_id", "item_id", "timestamp"), preferred=_EVENTS)
        rows = json_lines.read(path, list(names.values()))
    notes["columns"] = names
    events = to_events(renamed(rows, names), options, notes, names)
    items = _items(metadata, options, notes) if metadata else None
    return RawLogs(_category(path), events, catalog.finish(items, metadata, events, notes), notes)


def _category(path: Path) -> str:
    """`Beauty` of `reviews_Beauty_5.json.gz`."""
    stem = _CSV.sub("", _JSON.sub("", path.name)).removeprefix("reviews_")
    return re.sub(r"_\d+$", "", stem)


def _metadata_of(path: Path) -> Path | None:
    names = [f"meta_{_category(path)}.json{suffix}" for suffix in ("l.gz", "l", ".gz", "")]
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _items(path: Path, options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    """Columns `item_id`, `title`, `categories`, `brand`, `price`, `description`, as plain text."""
    found = json_lines.first_keys(path)
    line, start = delimited.first_line(path)
    if not found and start:
        raise InputError(f"{path}, line {line}: expected a JSON object, found {start[:80]!r}")
    if not found:
        raise InputError(f"the metadata {path} has no rows: fill it, or remove it to continue without item texts")
    if not {"asin", "parent_asin"} & set(found):
        shown = shorten(", ".join(found), 500)
        raise InputError(f"{path} has no product id: expected the key asin or parent_asin, found {shown}")
    # Every key, not only those of the first lines: what few products have may come late.
    frame = catalog.collect(json_lines.read(path, _ITEMS), options, notes)

    def first(*candidates: str) -> pl.Expr:
        return pl.coalesce(pl.col(key) for key in candidates)

    frame = frame.select(
        first("parent_asin", "asin").alias("item_id"),
        first("title").alias("title"),
        catalog.joined_lists(first("categories", "category"), "|").alias("categories"),
        first("brand", "store").alias("brand"),
        first("price").str.strip_chars().alias("price"),
        catalog.joined_lists(first("description"), " ").alias("description"),
        first("main_category").alias("main_category"),
    )
    return frame.select(
        "item_id",
        catalog.unescape("title"),
        catalog.unescape("categories").fill_null(pl.col("main_category")),
        catalog.unescape("brand"),
        pl.when(pl.col("price").str.contains(_PRICE)).then(pl.col("price")).alias("price"),
        catalog.unescape("description"),
    )
