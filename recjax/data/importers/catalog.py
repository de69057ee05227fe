"""The catalog: one row an item, ids and texts cleaned, and how many items of the events it knows.

Columns of a table that are no plain text become text by one rule: lists of text are joined (the categories by `|`, else
by spaces), bytes that are UTF-8 are text, numbers and dates are written out. Structures, vectors and other bytes are
left out and named.
"""

import html
import json
from typing import Any

import polars as pl

from recjax.data.importers.logs import SHOWN, Options
from recjax.data.importers.rows import Rows, has_text, identifier, text
from recjax.data.store.remote import Place
from recjax.typing import InputError


def finish(
    catalog: pl.DataFrame | None, path: Place | None, events: pl.DataFrame, notes: dict[str, Any]
) -> pl.DataFrame:
    """Cleans a catalog and compares it with the events; adds `catalog` to `notes`.

    Duplicate ids: the first row is kept and the others are counted. Rows without id are dropped and counted. White
    space is collapsed; empty text is null. Where the catalog knows few items with events, the note has an id of each.

    Args:
        catalog: `item_id` and any other columns, which become text; None when the source has no catalog.
        path: its file, for messages.
        events: with `item_id`.
        notes: extended in place.

    Returns:
        See `RawLogs.catalog`.

    Raises:
        InputError: there is a catalog and it is empty, or its ids are none.
    """
    if catalog is None:
        rows = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
        note: dict[str, Any] = {"file": None, "rows": 0}
    else:
        if not catalog.height:
            raise InputError(f"the catalog {path} has no rows: fill it, or remove it to continue without item texts")
        rows, note = _cleaned(catalog, path)
        note = {"file": path.name if path else None} | note
        if not rows.height:
            raise InputError(f"the catalog {path} has no row with an item id")
    known = events.select(pl.col("item_id").unique(maintain_order=True))
    missing = known.join(rows, on="item_id", how="anti", maintain_order="left")
    note["items_without_row"] = missing.height
    note["first_without_row"] = missing["item_id"].head(SHOWN).to_list()
    if catalog is not None and 2 * missing.height > known.height:
        note["few_items_known"] = _unlike(known, missing, rows)
    notes["catalog"] = note
    return rows


def _unlike(known: pl.DataFrame, missing: pl.DataFrame, rows: pl.DataFrame) -> dict[str, Any]:
    """Counts, and an id without a row beside one of the catalog: one number in two spellings, where there is one."""
    bare = pl.col("item_id").str.strip_chars_start("0").alias("bare")
    others = rows.join(known, on="item_id", how="anti", maintain_order="left").select("item_id", bare)
    pairs = missing.with_columns(bare).join(others, on="bare", how="inner", maintain_order="left").head(1)
    log = pairs["item_id"] if pairs.height else missing["item_id"]
    ours = pairs["item_id_right"] if pairs.height else others["item_id"] if others.height else rows["item_id"]
    return {"items": known.height, "known": known.height - missing.height, "log": log[0], "catalog": ours[0]}


def collect(rows: Rows, options: Options, notes: dict[str, Any]) -> pl.DataFrame:
    """The rows of a catalog's file; adds `catalog_rows_refused` to `notes`.

    Raises:
        InputError: more rows are refused than `options.max_refused`.
    """
    rows, frame = rows.collect()
    if total := frame.height + rows.refusals.total:
        rows.refusals.check(total, options.max_refused, rows.path)
    notes["catalog_rows_refused"] = rows.refusals.to_json()
    notes |= {f"catalog_{key}": value for key, value in rows.notes.items()}
    return frame


def _cleaned(catalog: pl.DataFrame, path: Place | None) -> tuple[pl.DataFrame, dict[str, Any]]:
    rows, types = catalog.height, dict(catalog.schema)
    catalog, dropped = plain_texts(catalog)
    texts = [column for column in catalog.columns if column != "item_id"]
    try:
        identifier("item_id", catalog.schema["item_id"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
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
    if dropped:
        note["columns_left_out"] = {column: str(types[column]) for column in dropped}
    return catalog.select("item_id", "title", pl.exclude("item_id", "title")), note


def plain_texts(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """A frame whose columns but `item_id` are text, see the top of this file; and the columns that are left out."""
    columns, dropped = [pl.col("item_id")], []
    for column, dtype in frame.schema.items():
        if column == "item_id":
            continue
        value = _as_text(pl.col(column), dtype, "|" if column == "categories" else " ")
        if value is None or (dtype == pl.Binary and _is_no_text(frame[column])):
            dropped.append(column)
        else:
            columns.append(value.alias(column))
    return frame.select(columns), dropped


def _as_text(value: pl.Expr, dtype: Any, separator: str, outer: bool = True) -> pl.Expr | None:
    """Text of a column, None where its type has none; bytes have text only as a column (`outer`)."""
    if isinstance(dtype, pl.Array):
        dtype = pl.List(dtype.inner)
        value = value.cast(dtype)
    if isinstance(dtype, pl.List):
        inner = _as_text(pl.element(), dtype.inner, separator, outer=False)
        if inner is None or (isinstance(dtype.inner, pl.DataType) and dtype.inner.is_float()):
            return None
        return value.list.eval(inner).list.join(separator, ignore_nulls=True)
    if dtype.is_numeric() or (dtype.is_temporal() and dtype != pl.Duration):
        return value.cast(pl.String)
    if has_text(dtype) or dtype in (pl.Boolean, pl.Null, *([pl.Binary] if outer else [])):
        return value.cast(pl.String)
    return None


def _is_no_text(column: pl.Series) -> bool:
    try:
        column.cast(pl.String)
    except pl.exceptions.PolarsError:
        return True
    return False


def from_events(frame: pl.DataFrame) -> pl.DataFrame:
    """A catalog from rows of events that carry item columns: of each item the first value that is not missing."""
    frame, dropped = plain_texts(frame)
    if dropped:
        raise InputError(f"the column named as {dropped[0]} holds no text")
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


def joined_lists(value: pl.Expr, separator: str) -> pl.Expr:
    """JSON lists as one text; of a list of lists (the category paths of 2014) the first; other text as it is."""

    def join(entry: str) -> str | None:
        parts = json.loads(entry)
        if parts and isinstance(parts[0], list):
            parts = parts[0]
        return separator.join(part.strip() for part in parts if isinstance(part, str) and part.strip()) or None

    is_list = value.str.starts_with("[")
    return pl.when(is_list).then(pl.when(is_list).then(value).map_elements(_guarded(join), return_dtype=pl.String)
                                 ).otherwise(value)  # fmt: skip


def _guarded(join: Any) -> Any:
    """`join`, leaving text that only looks like a list as it is."""

    def safe(entry: str) -> str | None:
        try:
            return join(entry)
        except (ValueError, RecursionError):
            return entry

    return safe
