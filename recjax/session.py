"""Datasets and runs from Python: what `recjax.prepare` and `recjax.train` do."""

import argparse
import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recjax import cli, frames, recipes
from recjax.commands import prepare as command
from recjax.config import RunConfig, override_all
from recjax.data.dataset import Dataset
from recjax.data.store.locate import place_of_name
from recjax.data.store.prepared import load as load_dataset
from recjax.data.store.remote import place
from recjax.parallel.startup import initialize
from recjax.recommender import Recommender, load
from recjax.settings import change
from recjax.train.loop import fit
from recjax.typing import InputError


def prepare(
    events: Any,
    name: str,
    *,
    items: Any = None,
    columns: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    replace: bool = False,
    **filters: Any,
) -> Dataset:
    """A dataset of a table of events and perhaps one of items, see `recjax.prepare`."""
    initialize()
    if events is None and frames.is_frame(items):
        with frames.as_file(items, "items") as path:
            return _prepared(name, path, columns, out, replace, filters)
    if not frames.is_frame(events):
        if not isinstance(events, str | Path):
            raise InputError(
                f"events are {type(events).__name__}, expected a polars or pandas frame, the path of raw logs or None "
                "beside a frame of items"
            )
        if items is not None:
            raise InputError("items go with a frame of events; a folder of logs has its items in items.csv or the like")
        return _prepared(name, Path(events), columns, out, replace, filters)
    with frames.as_file(events, "interactions") as path:
        if items is None:
            return _prepared(name, path, columns, out, replace, filters)
        with frames.as_file(items, "items", folder=path.parent):
            return _prepared(name, path, columns, out, replace, filters)


def _prepared(
    name: str,
    raw: Path,
    columns: Mapping[str, str] | None,
    out: str | Path | None,
    replace: bool,
    filters: Mapping[str, Any],
) -> Dataset:
    """Dataset of `recjax prepare NAME --raw RAW`, printed account included."""
    arguments = [name, "--raw", str(raw), *(["--replace"] if replace else [])]
    arguments += [] if out is None else ["--out", str(out)]
    arguments += [part for ours, theirs in (columns or {}).items() for part in ("--column", f"{ours}={theirs}")]
    for option, value in filters.items():
        if value is not None:
            arguments += [f"--{option.replace('_', '-')}", str(value)]
    command.prepare(_options(["prepare", *arguments]))  # outside a command its advice is in the words of Python
    return load_dataset(place_of_name(name) if out is None else place(str(out)))


def _options(arguments: list[str]) -> argparse.Namespace:
    """The command line's options; InputError in the place of its message and exit."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return cli.parser().parse_args(arguments)
    except SystemExit:
        last = said.getvalue().strip().splitlines()[-1]
        raise InputError(f"options of prepare: {last.rpartition('error: ')[2]}") from None


def train(
    config: RunConfig | str | Path,
    run: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | Sequence[str] = (),
) -> Recommender:
    """Trains a configuration or a recipe in a run folder, see `recjax.train`."""
    initialize()
    recipe = None if isinstance(config, RunConfig) else recipes.read(str(config))
    chosen = recipe.config if recipe is not None else config
    assert isinstance(chosen, RunConfig)
    changed = change(chosen, settings) if isinstance(settings, Mapping) else override_all(chosen, settings)
    given = [f"{key}={value}" for key, value in settings.items()] if isinstance(settings, Mapping) else list(settings)
    folder = Path(run) if run is not None else recipes.default_run(recipe.name if recipe else changed.name, given)
    fit(changed, folder)
    return load(folder, None if recipe is None else recipe.path)
