"""The command that lists items for histories, users or beside items."""

import csv
import sys
from argparse import Namespace
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax

from recjax.commands.columns import columns_among
from recjax.commands.console import plain_console
from recjax.commands.runs import recipe_of, report_notes
from recjax.config import load, to_json
from recjax.data.batches.mixture import Mixture
from recjax.evaluate import lists
from recjax.evaluate.recommend import Recommendations, recommend_stream
from recjax.evaluate.selection import item_mask, read_ids
from recjax.evaluate.stream import Stream
from recjax.evaluate.stream_files import StateFile, identity
from recjax.evaluate.user_events import UserEvents, typed
from recjax.recommender import Recommender
from recjax.train.folder.run_folder import CONFIG
from recjax.train.pretrained import is_pretrained, open_run
from recjax.typing import InputError

EVENT = ("user_id", "item_id", "timestamp")
"""Columns of a file of users, of which one of ids alone has some."""


def recommend(options: Namespace) -> int:
    """A run, and histories, users or items, to lists of items."""
    _check_files(options)
    model = opened(options)
    run, console, chosen = model.run, plain_console(), _chosen(options)
    trained = None if is_pretrained(options.run) else load(options.run / CONFIG, model.recipe).data
    if isinstance(trained, Mixture):
        console.print(trained.ranked(run.dataset.name), markup=False, highlight=False)
    if options.similar is not None:
        found = model.alike(typed_ids(options.similar, "--similar"), options.k, **chosen)
    elif options.stream:
        with jax.set_mesh(run.mesh):
            found = _streamed(model, options, chosen)
    else:
        found = model.answer(_events(model, options), k=options.k, fallback=options.fallback, **chosen)
    if isinstance(trained, Mixture) and options.data is None and options.history and found.unknown:
        ids = ", ".join(map(repr, list(found.unknown)[:3]))
        raise InputError(
            f"{run.dataset.name} has no item {ids}, and the run was trained on several catalogs: "
            f"name the one that is meant with --data ({', '.join(trained.datasets)}, or any other)"
        )
    if options.out is not None and options.state is None and jax.process_index() == 0:
        lists.write(found.table, options.out)
    one_user = options.history is not None
    for line in found.lines(run.dataset, one_user):
        console.print(line, markup=False, highlight=False)
    if options.out is None:
        console.print(lists.shown(found.table, one_user))
    else:
        noun = "item" if options.similar is not None else "user"
        count = found.table[f"{noun}_id"].n_unique()
        line = f"{count:,} {noun}{'s' if count != 1 else ''}, {found.table.height:,} rows written to {options.out}"
        console.print(line, markup=False, highlight=False)
    return 0


def _check_files(options: Namespace) -> None:
    """Raises InputError where the options of a command do not go together, before anything is read."""
    if options.out is not None and options.history is not None:
        raise InputError("--out goes with --users, --all-users, --stream or --similar; a typed history is printed")
    if options.out is None and options.all_users:
        raise InputError("--all-users goes with --out FILE: lists of all users are too many to print")
    if options.state is not None and options.stream is None:
        raise InputError("--state goes with --stream: it keeps what the model knows of the users between calls")
    if options.late is not None and options.stream is None:
        raise InputError("--late goes with --stream: whole histories may be in any order")
    for read in ("users", "stream", "candidates", "exclude"):
        lists.check_distinct({f"--{name}": getattr(options, name) for name in (read, "state", "out")})
    if options.out is not None and jax.process_index() == 0:
        lists.check(options.out)


def opened(options: Namespace) -> Recommender:
    """The run that is named; says on standard error which checkpoints were damaged."""
    module = recipe_of(options)
    one_query = getattr(options, "history", None) is not None and jax.process_count() == 1
    run = open_run(options.run, options.data, module, one_query=one_query)
    report_notes(options.run, run)
    return Recommender(run, options.run, module)


def _chosen(options: Namespace) -> dict[str, Any]:
    """Ids of the items that may be listed, and of those that may not, of the files that are given."""
    files = {"candidates": options.candidates, "exclude": options.exclude}
    columns = columns_among(options, EVENT)
    return {name: read_ids(path, columns=columns) for name, path in files.items() if path is not None}


def typed_ids(text: str, option: str) -> list[str]:
    """Ids separated by commas or lines; one with a comma of its own in double quotes, as in a csv file."""
    try:
        rows = list(csv.reader(text.splitlines(keepends=True), skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"{option}: {error}") from error
    ids = [item.strip() for row in rows for item in row if item.strip()]
    if not ids and option == "--similar":
        raise InputError(f"{option} {text!r}: expected item ids, separated by commas")
    return ids


def _events(model: Recommender, options: Namespace) -> UserEvents:
    """The events of the users who are asked about."""
    if options.history is not None:
        return typed([typed_ids(options.history, "--history")])
    if options.all_users:
        return model.events(users="all")
    return model.events(options.users, columns=columns_among(options, EVENT))


def _streamed(model: Recommender, options: Namespace, chosen: dict[str, Any]) -> Recommendations:
    """Lists after the events of a file, from states in another, which are then written together."""
    run = model.run
    config, view = to_json(run.config), run.config.data.view
    stream = Stream(run.model, run.params, view, items=run.items)
    mask, notes = item_mask(run.dataset, **chosen)
    advanced = partial(
        recommend_stream,
        stream,
        run.dataset,
        options.stream,
        k=options.k,
        mask_seen=run.config.evaluators[0].mask_seen,
        candidates=mask,
        popularity=run.popularity,
        fallback=options.fallback,
        columns=columns_among(options, EVENT),
        late=options.late or "skip",
    )
    if options.state is None:
        return advanced().after(notes)
    named = {"run": run.config.name, "step": run.step, "dataset": run.dataset.fingerprint}
    file = StateFile(options.state, identity(run.params, [config["model"], config["data"]["view"]], **named))
    first = jax.process_index() == 0
    with file.held() if first else nullcontext():
        for path in file.repaired:
            print(f"{path}: written by an earlier call that was stopped, and put in its place now", file=sys.stderr)
        file.restore(stream)
        found = advanced().after(notes)
        if first:
            file.write(stream, found.table, options.out)
    return found
