"""Scores the lists of any other library by the rules that recjax's own models are held to.

The file is csv, tsv (plain or gzipped) or parquet with one row a recommended item: a user, an item, and either a score
(higher is better) or a rank (from 1). A list may be of any length; to be compared at 20 with seen items masked it
should hold 20 items after the seen ones are taken out.

| what the file has                       | what happens                                                    |
|-----------------------------------------|-----------------------------------------------------------------|
| no list for a test user                 | a miss, counted                                                 |
| a user-item pair twice                  | the better one stays, counted                                   |
| users the dataset or split does not have| left out, counted, the first five named                         |
| items the dataset does not have         | left out, counted, the first five named                         |
| items of the user's history             | left out where the protocol masks them, counted                 |
| equal scores or ranks                   | smaller item number first, as everywhere                        |
| a missing, NaN or infinite score or rank| an error that names the user and the row                        |
| a rank and a score                      | the rank counts; an error where the score disagrees             |
| a target in every list                  | said: it looks like lists of sampled candidates                 |
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.data.dataset import Dataset
from recjax.data.importers import tables
from recjax.data.importers.rows import identifier
from recjax.data.splits import Examples, Split
from recjax.evaluate.metrics import MISS
from recjax.evaluate.protocol import Evaluate, examples_of, report, rules_of
from recjax.evaluate.ranking import Rankings
from recjax.evaluate.report import Report
from recjax.typing import InputError, shorten

ORDERS = {"rank": ("rank",), "score": ("score", "prediction")}
"""Columns that order a list, with their names in files; users and items are called as in logs."""

FEWEST_LISTS = 20
"""From so many lists on, a target in each of them is no luck."""


def evaluate_predictions(
    path: Path,
    dataset: Dataset,
    split: Split,
    config: Evaluate = Evaluate(),  # noqa: B008 (frozen)
    *,
    floors: bool = True,
    name: str | None = None,
    progress: bool = True,
) -> Report:
    """The report of a file of recommended items.

    Args:
        path: the file.
        dataset: the catalog.
        split: its split.
        config: the protocol; the whole catalog must compete.
        floors: whether to rank the floors for the same users.
        name: what to call the lists; the file's name by default.
        progress: show how far it is, see `recjax.track.console.tracked`.

    Raises:
        InputError: unreadable file, missing column, a score or rank that is none, or no user of the split in the file.
    """
    if config.candidates != "full":
        raise InputError(f"a predictions file is scored against the whole catalog, not {config.candidates!r}")
    examples = examples_of(config, dataset, split)
    table = read_predictions(path)
    rankings, notes = rank_lists(table, dataset, examples, config, path)
    return report(
        rankings,
        dataset,
        split,
        config,
        rules_of(config, dataset, split),
        name=name or path.name.split(".")[0],
        seconds=0.0,
        floors=floors,
        progress=progress,
        notes={"predictions": notes},
    )


def read_predictions(path: Path) -> pl.DataFrame:
    """Columns user (str), item (str), goodness (float64, higher is better) and row (from 1), in file order.

    Raises:
        InputError: see `evaluate_predictions`.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    found = tables.names(path)
    usual = {name: tables.EVENT_COLUMNS[name] for name in ("user_id", "item_id")} | ORDERS
    mapping = tables.match(found, usual, {}, path, required=("user_id", "item_id"))
    orders = [name for name in ORDERS if name in mapping]
    if not orders:
        raise InputError(f"{path} has no column score or rank (found: {shorten(', '.join(found), 500)})")
    table = _table(path, mapping)
    table = table.with_columns((pl.int_range(pl.len()) + 1).alias("row"))
    for column in ("user", "item"):
        if (empty := table.filter(pl.col(column).is_null())).height:
            raise InputError(f"{path}: rows without {column}: {empty.height:,}, first row {empty['row'][0]}")
    for order in orders:
        _check_numbers(table, order, path)
    if len(orders) > 1:
        _check_agreement(table, path)
    goodness = -pl.col("rank") if "rank" in orders else pl.col("score")
    return table.select("user", "item", goodness.alias("goodness"), "row")


def _table(path: Path, mapping: dict[str, str]) -> pl.DataFrame:
    """Columns user, item, score and rank of those that are there (float64), and what the file has in the latter two."""
    rows = tables.renamed(tables.load(path, list(mapping.values())), mapping)
    schema = rows.schema()
    columns = []
    for name, short in (("user_id", "user"), ("item_id", "item")):
        try:
            columns.append(identifier(name, schema[name]).alias(short))
        except InputError as error:
            raise InputError(f"{path}: {error}, one row a recommended item") from None
    for name in ORDERS:
        if name not in mapping:
            continue
        if not (schema[name].is_numeric() or schema[name] in (pl.String, pl.Null)):
            raise InputError(f"{path}: the column {mapping[name]} holds {schema[name]}, expected numbers")
        columns.append(pl.col(name).cast(pl.Float64, strict=False))
        columns.append(pl.col(name).cast(pl.String).alias(f"found {name}"))
    rows, table = rows.collect(lambda frame: frame.select(columns))
    if rows.refusals.total:
        rows.refusals.check(table.height + rows.refusals.total, 0.0, path)
    return table


def _check_numbers(table: pl.DataFrame, order: str, path: Path) -> None:
    """Raises InputError where a score or rank is none."""
    bad = table.filter(~pl.col(order).is_finite().fill_null(False))
    if bad.height:
        first = bad.row(0, named=True)
        raise InputError(
            f"{path}: {bad.height:,} rows have a {order} that is not a finite number, first user {first['user']!r} "
            f"(row {first['row']}, found {first[f'found {order}']!r})"
        )
    wrong = table.filter((pl.col("rank") < 1) | (pl.col("rank") % 1 != 0)) if order == "rank" else bad
    if wrong.height:
        first = wrong.row(0, named=True)
        raise InputError(f"{path}: rank {first['found rank']} in row {first['row']}, expected whole numbers from 1")


def _check_agreement(table: pl.DataFrame, path: Path) -> None:
    """Raises InputError where a file has ranks and scores that order a list differently."""
    ordered = table.sort("user", "rank", maintain_order=True)
    rises = (pl.col("score").diff() > 0) & (pl.col("user") == pl.col("user").shift()) & (pl.col("rank").diff() > 0)
    if (against := ordered.filter(rises)).height:
        first = against.row(0, named=True)
        raise InputError(
            f"{path} has both rank and score, and they disagree, first for user {first['user']!r} "
            f"(row {first['row']}): leave one of the columns out"
        )


def rank_lists(
    table: pl.DataFrame, dataset: Dataset, examples: Examples, config: Evaluate, path: Path
) -> tuple[Rankings, dict[str, Any]]:
    """Ranks targets in the lists of `read_predictions`, and says what was left out.

    Returns:
        Rankings in the order of the examples, and counts for the report.
    """
    users = pl.DataFrame({"user": dataset.user_ids}).with_row_index("number")
    asked = pl.DataFrame({"number": examples.histories.users, "example": np.arange(len(examples))})
    users = users.join(asked.with_columns(pl.col("number").cast(pl.UInt32)), on="number", how="left")
    items = pl.DataFrame({"item": dataset.item_ids[1:]}).with_row_index("id", offset=1)
    rows = table.join(users, on="user", how="left").join(items, on="item", how="left")
    unknown_users = rows.filter(pl.col("number").is_null())["user"].unique(maintain_order=True)
    other_users = rows.filter(pl.col("number").is_not_null() & pl.col("example").is_null())["user"].unique()
    unknown_items = rows.filter(pl.col("id").is_null())["item"].unique(maintain_order=True)
    rows = rows.filter(pl.col("example").is_not_null() & pl.col("id").is_not_null())
    if not rows.height:
        raise InputError(
            f"{path} has no list for any of the {len(examples):,} {config.split} users of {dataset.name!r}: it names "
            f"users like {_shown(table['user'].unique(maintain_order=True))} and items like "
            f"{_shown(table['item'].unique(maintain_order=True))}; the dataset's are like "
            f"{_shown(pl.Series(dataset.user_ids[:3]))} and {_shown(pl.Series(dataset.item_ids[1:4]))}"
        )
    order, descending = ["example", "goodness", "id"], [False, True, False]
    rows = rows.sort(order, descending=descending)
    distinct = rows.unique(["example", "id"], keep="first", maintain_order=True)
    kept = distinct
    if config.mask_seen == "history":
        lengths = examples.histories.lengths
        example = np.repeat(np.arange(len(examples)), lengths)
        seen = pl.DataFrame({"example": example, "id": examples.histories.items.astype(np.uint32)}).unique()
        kept = distinct.join(seen, on=["example", "id"], how="anti", maintain_order="left")
    kept = kept.with_columns((pl.int_range(pl.len()) + 1).over("example").alias("place"))
    rankings = _rankings(kept, examples, config)
    listed = kept["example"].n_unique()
    short = listed - kept.filter(pl.col("place") == config.k).height
    notes: dict[str, Any] = {"rows": table.height, "users without a list": len(examples) - listed}
    counted = {
        "duplicates left out": rows.height - distinct.height,
        "seen items left out": distinct.height - kept.height,
        f"lists shorter than {config.k}": short,
        "users that are not in the split": len(other_users),
        "unknown users": len(unknown_users),
        "unknown items": len(unknown_items),
    }
    notes |= {label: count for label, count in counted.items() if count}
    if listed >= FEWEST_LISTS and (rankings.ranks != MISS).sum() >= listed and rows.height < listed * dataset.n_items:
        notes["every list holds its target"] = "as lists of sampled candidates do; those say nothing of a whole catalog"
    if len(unknown_users):
        notes["first unknown users"] = unknown_users.head(5).to_list()
    if len(unknown_items):
        notes["first unknown items"] = unknown_items.head(5).to_list()
    return rankings, notes


def _rankings(kept: pl.DataFrame, examples: Examples, config: Evaluate) -> Rankings:
    example, place, item = (kept[column].to_numpy() for column in ("example", "place", "id"))
    ranks = np.full(len(examples), MISS)
    hit = item == examples.targets[example]
    ranks[example[hit]] = place[hit]
    if config.mask_seen == "history":
        ranks[examples.repeats()] = MISS
    lists = np.zeros((len(examples), config.k), np.int32)
    top = place <= config.k
    lists[example[top], place[top] - 1] = item[top]
    return Rankings(ranks, lists)


def _shown(ids: pl.Series) -> str:
    return ", ".join(repr(shorten(entry)) for entry in ids.head(3).to_list())
