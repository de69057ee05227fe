"""The command that asks a user questions until few items are left."""

from argparse import Namespace
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from recjax.commands.console import plain_console
from recjax.commands.recommend import typed_ids
from recjax.commands.runs import recipe_of, run_of
from recjax.evaluate import lists
from recjax.evaluate.calibrated import Calibrated
from recjax.evaluate.conformal import PredictionSets, coverage_margin
from recjax.evaluate.intervals import paired_values
from recjax.evaluate.questions import Asking, Dialogue
from recjax.evaluate.user_events import typed
from recjax.settings import SettingError
from recjax.typing import InputError

LEVELS = (0.3, 0.5, 0.7, 0.9)
"""Coverages that are measured beside the stated one."""

MEASURED = 5000
"""Most users whose sets are measured: each takes a sort of the catalog."""

ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": None}


def ask(options: Namespace) -> int:
    """A run and a history, to a prediction set that answers have made small; or figures of held-out users."""
    asking = _asking(options)
    about = None if options.about is None else [name.strip() for name in options.about.split(",")]
    run, console = run_of(options.run, options.data, recipe_of(options)), plain_console()
    if options.measure:
        levels = (asking.coverage, *(level for level in LEVELS if level != asking.coverage))
        both = (PredictionSets(levels, users=MEASURED), PredictionSets(levels, calibrate="test", users=MEASURED))
        console.print(run.report(options.run.resolve().name, both).table())
        return 0
    if options.rehearse is not None:
        _print_rehearsal(run.calibrated(about, asking, options.users, options.rehearse), console)
        return 0
    calibrated = run.calibrated(about, asking, options.users)
    found, beliefs = calibrated.beliefs(typed([typed_ids(options.history, "--history")]))
    for line in found.lines(run.dataset, typed=True):
        console.print(line)
    talk = calibrated.dialogue(beliefs)
    console.print(
        f"{len(talk.items):,} of {run.dataset.n_items:,} items hold what comes next with a probability of "
        f"{asking.coverage:.0%} (by {calibrated.asker.calibrated:,} held-out users)"
    )
    _ask(talk, console)
    _print_set(talk, console, options.show)
    return 0


def _asking(options: Namespace) -> Asking:
    """The options of the dialogue; InputError where one is out of range."""
    for name, least in (("users", 10), ("show", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}, expected {least} or more")
    if options.rehearse is not None and options.rehearse < 2:
        raise InputError(f"--rehearse is {options.rehearse}, expected 2 users or more")
    try:
        return Asking(options.coverage, options.choice, options.enough, options.most, options.wrong)
    except SettingError as error:
        raise InputError(str(error).replace("Asking.", "--")) from None


def _ask(talk: Dialogue, console: Console) -> None:
    """Questions on the console, until the set is small, or the user stops."""
    if talk.question is not None:
        console.print("Is it ...? y, n, return if you don't know, q to stop")
    while talk.question is not None:
        try:
            given = input(f"{talk.text}? ").strip().lower()
        except EOFError:
            console.print()
            return
        if given in ("q", "quit"):
            return
        if given not in ANSWERS:
            console.print(f"{given!r}: expected y, n, q or nothing")
            continue
        talk.answer(ANSWERS[given])
        if ANSWERS[given] is not None:
            console.print(f"  {len(talk.items):,} items")


def _print_set(talk: Dialogue, console: Console, most: int) -> None:
    """The first items of the set, and how many more there are."""
    table = talk.table
    console.print(lists.shown(table.head(most), True))
    if table.height > most:
        console.print(f"and {table.height - most:,} more")


def _print_rehearsal(calibrated: Calibrated, console: Console) -> None:
    """A row for each way to choose questions, and the ways compared."""
    found, asking = calibrated.rehearse(), calibrated.asker.asking
    users = len(calibrated.held_out)
    margin = coverage_margin(asking.coverage, calibrated.asker.calibrated, users)
    first = next(iter(found.values()))["first"]
    console.print(
        f"{users:,} held-out users answer by their next item; thresholds are of "
        f"{calibrated.asker.calibrated:,} others; stated coverage {asking.coverage:.0%}, by chance within "
        f"{margin:.1%}; before the first question a set has "
        f"{first.mean():,.0f} of {calibrated.data.dataset.n_items:,} items"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("questions chosen by")
    for name in ("questions", f"at most {asking.enough} left", "size", "coverage"):
        table.add_column(name, justify="right")
    for choice, rows in found.items():
        table.add_row(choice, *(f"{_mean(rows, name):.3f}" for name in ("questions", "reached", "size", "covers")))
    console.print(table)
    for other in ("entropy", "random"):
        one, two = (found[name]["questions"].cast(pl.Float64).to_numpy() for name in (other, "set"))
        test = paired_values(one, two, "questions")
        low, high = test["interval"]
        console.print(f"set - {other}: questions {test['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")


def _mean(rows: pl.DataFrame, name: str) -> Any:
    return rows[name].cast(pl.Float64).mean()
