"""The catalog: one row an item, ids and texts cleaned, and a row for every item that has events."""

import html
from typing import Any

import polars as pl

from recjax.data.importers.logs import SHOWN, Options
from recjax.data.importers.rows import Rows, identifier, text
from recjax.data.remote import Place
from recjax.typing import InputError


def finish(
    catalog: pl.DataFrame | None, path: Place | None, events: pl.DataFrame, notes: dict[str, Any]
) -> pl.DataFrame:
    """Cleans a catalog and completes it from the events; adds `catalog` to `notes`.

    Duplicate ids: the first row is kept and the others are counted. Rows without id are dropped and counted. Items with
    events but no row get one without text, and are counted. White space is collapsed; empty text is null.

    Args:
        catalog: `item_id` and any other columns, which become text; None when the source has no catalog.
        path: its file, for messages.
        events: with `item_id`.
        notes: extended in place.

    Returns:
        See `RawLogs.catalog`.

    Raises:
        InputError: there is a catalog and it is empty.
    """
    if catalog is None:
        rows = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
        note: dict[str, Any] = {"file": None, "rows": 0}
    else:
        if not catalog.height:
            raise InputError(f"the catalog {path} has no rows: fill it, or remove it to go on without item texts")
        rows, note = _cleaned(catalog)
        note = {"file": path.name if path else None} | note
        if not rows.height:
            raise InputError(f"the catalog {path} has no row with an item id")
    known = events.select(pl.col("item_id").unique(maintain_order=True))
    missing = known.join(rows, on="item_id", how="anti", maintain_order="left")
    note["items_without_row"] = missing.height
    note["first_without_row"] = missing["item_id"].head(SHOWN).to_list()
    notes["catalog"] = note
    return pl.concat([rows, missing], how="diagonal")


def collect(rows: Rows, options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    """The rows of a catalog's file; adds `catalog_rows_refused` to `notes`.

    Raises:
        InputError: more rows are refused than `options.max_refused`.
    """
    rows, frame = rows.sound()
    if total := frame.height + rows.refusals.total:
        rows.refusals.check(total, options.max_refused, rows.path)
    notes["catalog_rows_refused"] = rows.refusals.to_json()
    notes |= {f"catalog_{key}": value for key, value in rows.notes.items()}
    return frame


def _cleaned(catalog: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    rows = catalog.height
    texts = [column for column in catalog.columns if column != "item_id"]
    collapsed = [text(column).str.replace_all(r"\s+", " ") for column in texts]
    catalog = catalog.select(identifier("item_id", catalog.schema["item_id"]), *collapsed)
    catalog = catalog.filter(pl.col("item_id").is_not_null())
    without_id = rows - catalog.height
    repeats = catalog.filter(~pl.col("item_id").is_first_distinct())["item_id"]
    catalog = catalog.unique("item_id", keep="first", maintain_order=True)
    if "title" not in texts:
        catalog = catalog.with_columns(pl.lit(None, pl.String).alias("title"))
    note = {
        "rows": rows,
        "rows_without_id": without_id,
        "duplicate_ids": repeats.len(),
        "first_duplicates": repeats.unique(maintain_order=True).head(SHOWN).to_list(),
    }
    return catalog.select("item_id", "title", pl.exclude("item_id", "title")), note


def from_events(frame: pl.DataFrame) -> pl.DataFrame:
    """A catalog from rows of events that carry item columns: of each item the first value that is not missing."""
    columns = [column for column in frame.columns if column != "item_id"]
    frame = frame.with_columns(identifier("item_id", frame.schema["item_id"]))
    first = [text(column).drop_nulls().first() for column in columns]
    return frame.group_by("item_id", maintain_order=True).agg(first)


def unescape(column: str) -> pl.Expr:
    """Text of a web page to plain text: tags dropped, entities replaced (twice, as shops escape twice)."""
    value = pl.col(column)
    plain = value.str.replace_all(r"(?s)<(script|style)\b.*?</(script|style)>", " ").str.replace_all(r"<[^<>]*>", " ")
    has_entity = plain.str.contains("&", literal=True)
    decoded = plain.map_elements(lambda entry: html.unescape(html.unescape(entry)), return_dtype=pl.String)
    return pl.when(has_entity).then(decoded).otherwise(plain).alias(column)
