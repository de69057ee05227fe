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
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.data.dataset import Dataset
from recjax.data.splits import Examples, Split
from recjax.evaluate.metrics import MISS
from recjax.evaluate.protocol import Evaluate, examples_of, report, rules_of
from recjax.evaluate.ranking import Rankings
from recjax.evaluate.report import Report
from recjax.typing import InputError

USER_COLUMNS = ("user_id", "user", "uid")
ITEM_COLUMNS = ("item_id", "item", "iid")
ORDER_COLUMNS = ("score", "rank")


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
        progress: show progress bars where standard error is a terminal.

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
    table = _read(path)
    user, item = (_column(table, names, path) for names in (USER_COLUMNS, ITEM_COLUMNS))
    order = next((name for name in ORDER_COLUMNS if name in table.columns), None)
    if order is None:
        raise InputError(f"{path} has no column score or rank (found: {', '.join(table.columns)})")
    rows = table.select(
        pl.col(user).cast(pl.String).alias("user"),
        pl.col(item).cast(pl.String).alias("item"),
        pl.col(order).cast(pl.Float64, strict=False).alias("goodness"),
        pl.col(order).cast(pl.String).alias("found"),
        (pl.int_range(pl.len()) + 1).alias("row"),
    )
    for column in ("user", "item"):
        if (empty := rows.filter(pl.col(column).is_null())).height:
            raise InputError(f"{path}: {empty.height:,} rows have no {column}, first row {empty['row'][0]}")
    bad = rows.filter(~pl.col("goodness").is_finite().fill_null(False))
    if bad.height:
        first = bad.row(0, named=True)
        raise InputError(
            f"{path}: {bad.height:,} rows have a {order} that is not a finite number, first user {first['user']!r} "
            f"(row {first['row']}, found {first['found']!r})"
        )
    if order == "rank":
        wrong = rows.filter((pl.col("goodness") < 1) | (pl.col("goodness") != pl.col("goodness").floor()))
        if wrong.height:
            first = wrong.row(0, named=True)
            raise InputError(f"{path}: rank {first['found']} in row {first['row']}, expected whole numbers from 1")
        rows = rows.with_columns(-pl.col("goodness"))
    return rows.drop("found")


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        if path.name.endswith(".parquet"):
            return pl.read_parquet(path)
        separator = "\t" if ".tsv" in path.name else ","
        return pl.read_csv(path, separator=separator, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable csv, tsv or parquet file: {str(error).splitlines()[0]}") from error


def _column(table: pl.DataFrame, names: tuple[str, ...], path: Path) -> str:
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        raise InputError(f"{path} has no column {' or '.join(names[:2])} (found: {', '.join(table.columns)})")
    return found


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
    return ", ".join(map(repr, ids.head(3).to_list()))
