"""Runs as the commands open and evaluate them."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import jax

from recjax import recipes
from recjax.config import RunConfig
from recjax.evaluate.report import EVALUATION, Report
from recjax.train.pretrained import load_named
from recjax.train.run import Run


def run_of(
    folder: Path,
    dataset: str | None = None,
    recipe: ModuleType | None = None,
    settings: Sequence[str] = (),
    like: RunConfig | None = None,
) -> Run:
    """`load_named`; says on standard error which checkpoints were damaged."""
    run = load_named(folder, dataset, recipe, settings, like=like)
    report_notes(folder, run)
    return run


def report_notes(folder: Path, run: Run) -> None:
    """Prints on standard error which checkpoints were damaged."""
    if jax.process_index() == 0:
        for note in run.notes:
            print(f"{folder}: {note}", file=sys.stderr)


def save(report: Report, folder: Path) -> None:
    """Writes a report into its run's folder, once for all processes."""
    if jax.process_index() == 0:
        report.save(folder / EVALUATION)


def recipe_of(options: Namespace) -> ModuleType | None:
    """The module that defines configurations of the run's own, where one is named."""
    return recipes.read(options.recipe).module if options.recipe else None
