"""The command that runs an ablation."""

import json
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from recjax import recipes
from recjax.commands.console import plain_console
from recjax.compare.ablation import Cell, gather, plan, question_of, seeds_of
from recjax.compare.comparison import Comparison
from recjax.compare.page import write_page
from recjax.compare.run_cells import locked, probe, run_cells, slices
from recjax.compare.tables import comparison_tables
from recjax.files import replacing
from recjax.parallel.startup import launched_with_others
from recjax.track.machine import commit, processor
from recjax.typing import InputError

RESULTS, PAGE = "results.json", "index.html"


def ablate(options: Namespace) -> int:
    """A recipe and its sweep to runs, a table and a page; status 1 where a cell failed."""
    if launched_with_others():
        raise InputError("ablate starts its own processes on one host; on several, train each cell with recjax train")
    recipe = recipes.read(options.recipe)
    out: Path = options.out or recipes.default_run(recipe.name, options.settings)
    only = [name.strip() for name in (options.only or "").split(",") if name.strip()]
    cells = plan(recipe, options.settings, seeds_of(options.seeds), out, only)
    console = plain_console(errors=options.json)
    say = partial(console.print, soft_wrap=True)
    with locked(out, say):
        if any(cell.state().status != "finished" for cell in cells):
            _check([cell for cell in cells if cell.state().status != "finished"])
            devices = probe()
            environments = slices(devices, options.devices_per_cell)
            count = options.devices_per_cell or devices.count
            machine = f"{count} x {devices.kind} a cell, {len(environments)} at a time; host: {processor()}"
            with console.status("") as status:
                run_cells(cells, environments, machine=machine, commit=commit(), say=say, show=status.update)
        states = {cell.state().status for cell in cells}
        failed = 1 if "failed" in states else 0
        if "finished" not in states:
            say("no cell is finished yet")
            return failed
        comparison = replace(
            gather(cells, f"Ablation {recipe.name}", options.target),
            question=question_of(recipe),
            commands=[_command(options)],
        )
        _write(comparison, out)
    if options.json:
        print(json.dumps(comparison.to_json(), indent=2))
    else:
        console.print(comparison_tables(comparison))
        console.print(f"written to {out / PAGE} and {out / RESULTS}", highlight=False, markup=False)
    return failed


def _check(cells: Sequence[Cell]) -> None:
    """Raises InputError where cells could not start, before any does; a second or so a row."""
    from recjax.plan.check import check_start  # late: `report` needs no model

    jax.config.update("jax_platforms", "cpu")  # the accelerators belong to the cells
    found: dict[str, list[str]] = {}
    for cell in {cell.row: cell for cell in cells}.values():
        try:
            check_start(cell.config)
        except InputError as error:
            found.setdefault(str(error), []).append(cell.row)
    if found:
        rows = [f"row{'s' * (len(names) > 1)} {', '.join(map(repr, names))}: {error}" for error, names in found.items()]
        raise InputError(f"no cell was started; {'; '.join(rows)}")


def _command(options: Namespace) -> str:
    words = ["recjax", "ablate", options.recipe]
    words += [part for setting in options.settings for part in ("--set", setting)]
    words += ["--seeds", options.seeds]
    for name in ("only", "out", "devices_per_cell", "target"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _write(comparison: Comparison, out: Path) -> None:
    with replacing(out / RESULTS) as new:
        new.write_text(json.dumps(comparison.to_json(), indent=2) + "\n", encoding="utf-8")
    write_page(comparison, out / PAGE)
