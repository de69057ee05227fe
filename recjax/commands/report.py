"""The command that makes a page of runs."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recjax.commands.console import plain_console
from recjax.compare.page import write_page
from recjax.compare.run_results import Outcome, by_system, compare_runs, read_outcome
from recjax.compare.tables import comparison_tables
from recjax.track.machine import commit


def report(options: Namespace) -> int:
    """Run folders to a page."""
    outcomes = [read_outcome(folder) for folder in options.runs]
    groups = _systems(outcomes)
    title = f"Run {next(iter(groups))}" if len(groups) == 1 else " · ".join(groups)
    out: Path = options.out or options.runs[0] / "report.html"
    words = ["recjax", "report", *map(str, options.runs), *(["--out", str(out)] if options.out else [])]
    comparison = compare_runs(groups, title)
    comparison = replace(comparison, commands=[shlex.join(words)], commit=comparison.commit or commit())
    write_page(comparison, out)
    console = plain_console()
    console.print(comparison_tables(comparison))
    console.print(f"written to {out}", highlight=False, markup=False)
    return 0


def _systems(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Runs by system: those that differ in nothing but the seed are one, called as the first of them."""
    systems = by_system(outcomes, lambda outcome: outcome.config)
    short = [group[0].folder.resolve().name for group in systems]
    names = short if len(set(short)) == len(short) else [str(group[0].folder) for group in systems]
    return dict(zip(names, systems, strict=True))
