"""What each command does: call one function of another room, print what it returns."""

import json
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import jax
import polars as pl
import rich.box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recjax import recipes
from recjax.cli import default_run
from recjax.config import keys, override_all
from recjax.data.audit import audit
from recjax.data.dataset import Dataset, build, find, save
from recjax.data.importers import download, read
from recjax.data.locate import cache_folder, locate
from recjax.data.preparation import Preparation
from recjax.data.splits import LeaveOneOut
from recjax.data.synthetic import NAMES
from recjax.evaluate.recommend import Requests, lists_table, requests, typed_history
from recjax.evaluate.recommend import recommend as rank
from recjax.track.model_table import model_table
from recjax.train.loop import fit
from recjax.train.run import load_run
from recjax.typing import InputError

EVALUATION = "evaluation.json"


def prepare(options: Namespace) -> int:
    """Raw logs to a dataset on disk."""
    filters = {name: getattr(options, name) for name in ("k_core", "min_length", "duplicates", "min_rating")}
    preparation = Preparation(**{name: value for name, value in filters.items() if value is not None})
    out: Path | None = options.out
    if options.raw is None and _is_here(options.dataset):
        dataset = find(options.dataset, preparation)
    else:
        source = options.raw or download(options.dataset, cache_folder() / "downloads")
        columns = dict(_pair(column) for column in options.columns)
        dataset = build(read(source, options.format, columns or None, name=options.dataset), preparation)
        out = out or cache_folder() / options.dataset
    for line in [*_account(dataset), *audit(dataset, LeaveOneOut().split(dataset)).lines()]:
        print(line)
    if out is not None:
        save(dataset, out)
        print(f"written to {out}")
    return 0


def _pair(column: str) -> tuple[str, str]:
    ours, separator, theirs = column.partition("=")
    if not separator:
        raise InputError(f"--column {column!r}: expected OURS=THEIRS, such as user_id=CustomerID")
    return ours.strip(), theirs.strip()


def _is_here(dataset: str) -> bool:
    try:
        return dataset in NAMES or bool(locate(dataset, NAMES))
    except InputError:
        return False


def _account(dataset: Dataset) -> list[str]:
    """Counts of a dataset: rows refused, what each filter left, text, fingerprint."""
    source, lines = dataset.description.get("source", {}), []
    if refused := source.get("refused"):
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in refused["reasons"].items())
        lines.append(f"rows refused  {refused['total']:,}" + (f" ({reasons})" if reasons else ""))
        lines += [f"  line {row['line']}: {row['reason']}, found {row['found']!r}" for row in refused["first"]]
    for step in dataset.description.get("steps", []):
        counts = ", ".join(f"{step[noun]:,} {noun}" for noun in ("users", "items", "interactions"))
        lines.append(f"after {step['step']}: {counts}")
    titled = dataset.n_items - dataset.catalog["title"].null_count()
    lines.append(
        f"{dataset.name}: {dataset.n_users:,} users, {dataset.n_items:,} items ({titled:,} with a title), "
        f"{dataset.n_interactions:,} interactions"
    )
    return [*lines, f"fingerprint {dataset.fingerprint}"]


def train(options: Namespace) -> int:
    """A recipe to a run folder, and its evaluation."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    folder = options.run or default_run(recipe.name, options.settings)
    result = fit(config, folder)
    if result.preempted or options.no_evaluate:
        return 0
    return 0


def recommend(options: Namespace) -> int:
    """A run and histories to lists of items."""
    if options.out is not None and options.users is None:
        raise InputError("--out goes with --users; a typed history is printed")
    run = load_run(options.run, recipe=_recipe(options))
    console = _console()
    if options.users is None:
        typed = [item.strip() for item in options.history.split(",") if item.strip()]
        asked = Requests(typed_history(run.dataset, typed), ["typed"], {}, [])
    else:
        asked = requests(run.dataset, read(options.users).interactions)
    with jax.set_mesh(run.mesh):
        items, scores = rank(run.model, run.params, asked.histories, run.config.data.view, options.k)
    lists = lists_table(run.dataset, asked.user_ids, items, scores)
    for line in _left_out(asked, run.dataset.name):
        console.print(line, markup=False, highlight=False)
    if options.out is None:
        console.print(_list_table(lists, options.history is not None))
    elif jax.process_index() == 0:
        partial = options.out.with_name(options.out.name + ".partial")
        lists.write_parquet(partial)
        partial.replace(options.out)
        console.print(f"{len(asked.user_ids):,} users, {lists.height:,} rows written to {options.out}", highlight=False)
    return 0


def _left_out(asked: Requests, dataset: str) -> list[str]:
    lines = []
    if unknown := asked.unknown_items:
        shown = ", ".join(map(repr, list(unknown)[:5])) + (", ..." if len(unknown) > 5 else "")
        events = sum(unknown.values())
        lines.append(
            f"{events:,} events left out: dataset {dataset} does not have the items {shown} ({len(unknown):,})"
        )
    if users := asked.without_history:
        shown = ", ".join(map(repr, users[:5])) + (", ..." if len(users) > 5 else "")
        lines.append(f"{len(users):,} users left out, with no event on a known item: {shown}")
    return lines


def _list_table(lists: pl.DataFrame, one_user: bool) -> Table:
    table = Table(box=rich.box.SIMPLE_HEAD)
    names = [name for name in lists.columns if not (one_user and name == "user_id")]
    for name in names:
        table.add_column(name, justify="right" if name in ("rank", "score") else "left", overflow="fold")
    for row in lists.select(names).iter_rows():
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else escape(str(cell or "")) for cell in row))
    return table


def inspect(options: Namespace) -> int:
    """A run's parameters, step, configuration, dataset and results."""
    run = load_run(options.run, recipe=_recipe(options))
    console = _console()
    console.print(model_table(run.params))
    console.print(f"step {run.step} of {options.run}", highlight=False)
    console.print(f"dataset {run.dataset.name}, fingerprint {run.dataset.fingerprint}", highlight=False)
    for key, value in keys(run.config):
        console.print(f"{key} = {value}", highlight=False, markup=False)
    path = options.run / EVALUATION
    if path.is_file():
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]["all"]
        console.print("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()), highlight=False)
    return 0


def _recipe(options: Namespace) -> ModuleType | None:
    return recipes.read(options.recipe).module if options.recipe else None


def _console() -> Console:
    """Standard output of the first process; the others say nothing."""
    return Console(quiet=jax.process_index() != 0)
