"""An ablation: one recipe, a sweep of changes to it, and seeds; each combination is a cell, an ordinary run.

A cell is the command `recjax train RECIPE --set ... --online --run DIR/cells/NAME-seedK`, in a process of its own: what
it costs in memory is then its own, whatever ends it ends it alone, and anybody can repeat it by hand. A cell that is
done is not touched again; one that was stopped or killed resumes from its checkpoint, as the command does.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recjax.compare.comparison import Comparison, Row
from recjax.compare.run_results import compare_runs, differing, read_outcome
from recjax.config import RunConfig, override_all
from recjax.evaluate.report import EVALUATION
from recjax.files import read_json, replacing
from recjax.limits import require
from recjax.recipes import Recipe
from recjax.train.folder import run_folder
from recjax.typing import InputError

CELLS = "cells"
STATE = "cell.json"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")


@dataclass(frozen=True)
class State:
    """Record of a cell's past, in its folder.

    Attributes:
        status: "new", "finished" (trained and evaluated), "failed" or "stopped".
        seconds: its processes lived so long, all together.
        message: why it failed, or "".
        commit: of the code that ran last.
        machine: where that was.
    """

    status: str = "new"
    seconds: float = 0.0
    message: str = ""
    commit: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Cell:
    """One run of an ablation.

    Attributes:
        row: name in the sweep.
        seed: of the run.
        folder: of the run.
        recipe: the recipe's file.
        settings: key=value, what the command line and the sweep change, and the seed.
        config: what they make of the recipe.
    """

    row: str
    seed: int
    folder: Path
    recipe: Path
    settings: tuple[str, ...]
    config: RunConfig

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def arguments(self) -> list[str]:
        """Of the `recjax` command that is the cell."""
        changes = [part for setting in self.settings for part in ("--set", setting)]
        return ["train", str(self.recipe), *changes, "--online", "--run", str(self.folder)]

    @property
    def command(self) -> str:
        """The command as typed."""
        return shlex.join(["recjax", *self.arguments])

    def state(self) -> State:
        """Its past; that of a cell whose evaluation was taken away is not finished."""
        path = self.folder / STATE
        if not path.exists():
            return State()
        try:
            state = State(**read_json(path))
            require(state)
        except (InputError, TypeError) as error:
            raise InputError(f"{path} is not the state of a cell: {error}; remove it to run the cell again") from None
        if state.status == "finished" and not (self.folder / EVALUATION).is_file():
            return replace(state, status="stopped")
        return state

    def keep(self, state: State) -> None:
        """Writes its state, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / STATE) as new:
            new.write_text(json.dumps(vars(state), indent=2) + "\n", encoding="utf-8")


def sweep_of(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Name of each row -> its key=value settings, in order, from the recipe's `sweep()`.

    Raises:
        InputError: there is no `sweep()`, or it does not return names and settings.
    """
    make = getattr(recipe.module, "sweep", None)
    if not callable(make):
        raise InputError(f"{recipe.path} defines no sweep(); an ablation is config() and sweep() -> name -> settings")
    found = make()
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{recipe.path}: sweep() returned {found!r}, expected a dict of name -> settings")
    rows = {}
    for name, changes in found.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(
                f"{recipe.path}: sweep() calls a row {name!r}; names are folders too, so letters, digits and . _ + = -"
            )
        rows[name] = _settings(changes, f"{recipe.path}: sweep()[{name!r}]")
    return rows


def _settings(changes: Any, where: str) -> tuple[str, ...]:
    if isinstance(changes, Mapping):
        changes = [f"{key}={_text(value)}" for key, value in changes.items()]
    if isinstance(changes, str) or not isinstance(changes, Iterable):
        raise InputError(f"{where} is {changes!r}, expected key=value strings, or a dict of key -> value")
    settings = tuple(changes)
    for setting in settings:
        if not isinstance(setting, str) or "=" not in setting:
            raise InputError(f"{where} has {setting!r}, expected key=value, such as model.width=128")
        if setting.partition("=")[0].strip() == "seed":
            raise InputError(f"{where} sets the seed; every row runs with the seeds of --seeds")
    return settings


def _text(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return ",".join(map(_text, value)) if isinstance(value, tuple | list) else str(value)


def seeds_of(text: str) -> list[int]:
    """`3` -> 0, 1, 2; `0,7` -> 0, 7.

    Raises:
        InputError: it is neither.
    """
    parts = [part.strip() for part in text.rstrip(",").split(",")]
    if not all(part.isdecimal() for part in parts) or (len(parts) == 1 and "," not in text and int(parts[0]) < 1):
        raise InputError(f"--seeds {text!r}: expected how many, such as 3, or which, such as 0,1,2")
    seeds = list(range(int(parts[0]))) if "," not in text else [int(part) for part in parts]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text!r}: the same seed twice is the same run twice")
    return seeds


def plan(
    recipe: Recipe, settings: Sequence[str], seeds: Sequence[int], out: Path, only: Sequence[str] = ()
) -> list[Cell]:
    """The cells of an ablation, row after row; every configuration is made, so that none fails for a word later.

    Args:
        recipe: with a `sweep()`.
        settings: key=value of the command line, for every row; the sweep's come after.
        seeds: of each row.
        out: folder of the ablation.
        only: names of rows, or none for all.

    Raises:
        InputError: a name or a setting that is not there, or a cell's folder that holds another configuration; says
            which settings differ.
    """
    rows = sweep_of(recipe)
    for name in only:
        if name not in rows:
            raise InputError(f"--only {name!r}: {recipe.path} sweeps over {', '.join(rows)}")
    cells = []
    for name in only or rows:
        for seed in seeds:
            own = (*settings, *rows[name], f"seed={seed}")
            try:
                config = override_all(recipe.config, own)
            except InputError as error:
                raise InputError(f"row {name!r}: {error}") from None
            cell = Cell(name, seed, out / CELLS / f"{name}-seed{seed}", recipe.path, own, config)
            run_folder.check_config(cell.folder, config)
            cells.append(cell)
    return cells


def gather(cells: Sequence[Cell], title: str, target: float | None = None) -> Comparison:
    """The finished cells, of which there is one at least, as rows in the sweep's order; rows without any come last."""
    states = {cell.name: cell.state() for cell in cells}
    done = [cell for cell in cells if states[cell.name].status == "finished"]
    names = list(dict.fromkeys(cell.row for cell in cells))
    failures = {name: [_failure(c, states[c.name]) for c in cells if c.row == name and c not in done] for name in names}
    groups = {name: [read_outcome(cell.folder) for cell in done if cell.row == name] for name in names}
    comparison = compare_runs(groups, title, target)
    commands = {name: [cell.command for cell in cells if cell.row == name] for name in names}
    first = next(cell for cell in cells if cell.row == comparison.rows[0].name)
    absent = [cell for cell in cells if not groups[cell.row] and cell.seed == cells[0].seed]
    missing = [Row(cell.row, settings=differing(first.config, cell.config)) for cell in absent]
    rows = [*comparison.rows, *missing]
    return replace(
        comparison,
        rows=[replace(row, commands=commands[row.name], failures=failures[row.name]) for row in rows],
        slices={name: [*values, *[None] * len(missing)] for name, values in comparison.slices.items()},
        wall_seconds=sum(states[cell.name].seconds for cell in done),
        machine=_distinct(states[cell.name].machine for cell in done),
        commit="; ".join(_distinct(states[cell.name].commit for cell in done)),
    )


def _failure(cell: Cell, state: State) -> str:
    return f"seed {cell.seed} {'has not run' if state.status == 'new' else state.status}" + (
        f": {state.message}" if state.message else ""
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def question_of(recipe: Recipe) -> str:
    """Question in the recipe's docstring: its text without the command and the figures."""
    text = (recipe.module.__doc__ or "").strip()
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(part for part in parts if not part.startswith(("recjax ", "Expected:")))
