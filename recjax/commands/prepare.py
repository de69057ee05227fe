"""The command that makes datasets."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from recjax.commands.columns import columns_of
from recjax.data.dataset import Dataset
from recjax.data.embedded.generate import NAMES
from recjax.data.importers import SOURCES, RawLogs, download, read
from recjax.data.importers.logs import Reading
from recjax.data.prepare.audit import audit
from recjax.data.prepare.build import build
from recjax.data.prepare.preparation import Preparation
from recjax.data.splits import LeaveOneOut
from recjax.data.store.locate import cache_folder, locate, place_of_name
from recjax.data.store.prepared import find, header, is_prepared, load, save
from recjax.data.store.remote import Place, local, place
from recjax.files import read_json
from recjax.recipes import RUNS
from recjax.typing import COMMAND, InputError

SHORTEST = 3
"""Events of a user that leave-one-out needs."""

SHOWN_FILES = 4
"""Files of a dataset up to which their number is not worth a line."""

AUDITED = 100_000_000
"""Events of a dataset prepared by Beam, beyond which the audit is one of its first users."""


def prepare(options: Namespace) -> int:
    """Raw logs to a dataset on disk."""
    filters = {name: getattr(options, name) for name in ("k_core", "min_length", "duplicates", "min_rating", "unseen")}
    preparation = Preparation(**{name: value for name, value in filters.items() if value is not None})
    if options.beam_options and options.beam is None:
        raise InputError("--beam-options goes with --beam RUNNER")
    raw = None if options.raw is None else place(options.raw)
    reading = _reading(options)
    told = bool(options.columns) or reading != Reading()
    if raw is None and told and options.dataset not in NAMES and _is_here(options.dataset):
        raw = locate(options.dataset, NAMES)
        if is_prepared(raw):
            raise InputError(f"{raw} is already prepared; give the raw logs: --raw PATH")
    out = None if options.out is None else place(options.out)
    if options.beam is not None:
        out = out or place_of_name(options.dataset)
        if not options.replace:
            _check_free(out)
        dataset = _prepared_by_beam(options, raw, preparation, out)
    elif raw is None and not told and _is_here(options.dataset):
        dataset = find(options.dataset, preparation)
    else:
        out = out or place_of_name(options.dataset)
        if not options.replace:
            _check_free(out, preparation)
        dataset = build(_read(options, raw, reading), preparation)
        if not options.replace:
            _check_free(out, preparation, dataset.fingerprint)
    for line in [*_account(dataset), *_audited(dataset)]:
        print(line)
    if out is not None:
        if options.beam is None:
            save(dataset, out)
        print(f"written to {out}")
    return 0


def _reading(options: Namespace) -> Reading:
    """Options of reading tables, as the command line says."""
    return Reading(
        items=None if options.items is None else place(options.items),
        header=tuple(name.strip() for name in (options.header or "").split(",") if name.strip()),
        time_format=options.time_format,
        where=tuple(options.where),
        weights=options.weights,
        returns=options.returns,
    )


def _read(options: Namespace, raw: Place | None, reading: Reading) -> RawLogs:
    """The raw logs, or the catalog alone where there are none."""
    columns = columns_of(options) or None
    if raw is None and reading.items is not None and options.dataset not in SOURCES:
        if reading != Reading(items=reading.items):
            raise InputError(
                "--header, --time-format, --where, --weights and --returns say how logs are read: give --raw"
            )
        return read(local(reading.items, cache_folder()), "catalog", columns, name=options.dataset)
    source = local(raw or download(options.dataset, cache_folder() / "downloads"), cache_folder())
    return read(source, options.format, columns, name=options.dataset, reading=reading)


def _audited(dataset: Dataset) -> list[str]:
    """The audit of leave-one-out, or why there is none."""
    if not dataset.n_interactions:
        return ["a catalog without events: models of texts that are trained elsewhere can rank it"]
    short = int((np.diff(dataset.offsets) < SHORTEST).sum())
    lines = []
    if short:
        lines.append(
            f"users with fewer than {SHORTEST} events, on whom leave-one-out trains but does not test: {short:,} of "
            f"{dataset.n_users:,}"
        )
    if short == dataset.n_users:
        return [*lines, "no audit: nobody has the events that leave-one-out needs for a test"]
    return [*lines, *audit(dataset, LeaveOneOut().split(dataset)).lines()]


def _check_free(out: Place, preparation: Preparation | None = None, fingerprint: str | None = None) -> None:
    """Nothing is lost by writing to `out`.

    Args:
        out: where a dataset is to go.
        preparation: its options; None = not compared, so that any dataset there is in the way.
        fingerprint: its fingerprint, where it is known.

    Raises:
        InputError: another dataset is there.
    """
    if not is_prepared(out):
        return
    there = header(out)
    before = there.get("description", {}).get("options", {})
    now = preparation.to_json() if preparation is not None else before
    changed = [f"{name} {before.get(name)}, now {value}" for name, value in now.items() if before.get(name) != value]
    if preparation is not None and not changed and fingerprint in (None, there.get("fingerprint")):
        return
    how = f" with other options ({'; '.join(changed)})" if changed else " from other data" if fingerprint else ""
    using = [run.name for run in sorted(RUNS.glob("*")) if _is_trained_on(run, out)]
    runs = f" (there are {', '.join(using[:5])}{', ...' if len(using) > 5 else ''})" if using else ""
    over = "--replace" if COMMAND.get() else "replace=True"
    raise InputError(
        f"{out} is prepared already{how}, and runs trained on it are evaluated and resume only with it as it is{runs}: "
        f"prepare this under another name, or write over it with {over} (the runs then still recommend)"
    )


def _is_trained_on(run: Path, dataset: Place) -> bool:
    """True if the configuration of a run names a dataset."""
    try:
        data = read_json(run / "config.json")["data"]
    except (InputError, KeyError, TypeError):
        return False
    return any(json.dumps(name) in json.dumps(data) for name in (dataset.name, str(dataset)))


def _prepared_by_beam(options: Namespace, raw: Place | None, preparation: Preparation, out: Place) -> Dataset:
    """The dataset that pipelines have written to `out`; of a very large one its first users."""
    try:
        from recjax.data.prepare import pipeline
    except ImportError as error:
        raise InputError(
            f"--beam needs Apache Beam ({error}): pip install 'recjax[beam]', or pip install -r requirements-beam.txt "
            "in an environment of its own"
        ) from error
    if raw is None and options.items is not None:
        raise InputError("a catalog alone is prepared without --beam")
    if raw is None:
        here = _is_here(options.dataset) and options.dataset not in NAMES
        raw = locate(options.dataset, NAMES) if here else download(options.dataset, cache_folder() / "downloads")
    if is_prepared(raw):
        raise InputError(f"{raw} is already prepared; give the raw logs: --raw PATH")
    runner = pipeline.Runner(options.beam, options.beam_options)
    pipeline.prepare(
        raw,
        out,
        preparation,
        runner,
        name=options.dataset,
        format=options.format,
        columns=columns_of(options) or None,
        reading=_reading(options),
    )
    return load(out, most=AUDITED)


def _is_here(dataset: str) -> bool:
    try:
        return dataset in NAMES or bool(locate(dataset, NAMES))
    except InputError:
        return False


def _account(dataset: Dataset) -> list[str]:
    """Counts of a dataset: rows refused, what each filter left, text, fingerprint."""
    source = dataset.description.get("source", {})
    lines = []
    if (files := len(source.get("files", ()))) > SHOWN_FILES:
        lines.append(f"read from {files:,} files")
    lines += _refused("rows refused", source.get("rows_refused", {}))
    lines += _refused("catalog rows refused", source.get("catalog_rows_refused", {}))
    lines += _left_out(source)
    lines += _times(source.get("timestamps", {}))
    for column, count in source.get("ids_written_as_floats", {}).items():
        lines.append(f"ids written as floats (27.0 for 27) in {column}: {count:,}")
    for column, count in source.get("ids_without_all_digits", {}).items():
        lines.append(
            f"warning: {count:,} ids in {column} are floats that have not all their digits, as in 1.23E+11: "
            "different ones may have become one"
        )
    lines += _catalog(source.get("catalog", {})) + _unseen(dataset)
    for step in dataset.description.get("steps", []):
        counts = ", ".join(f"{step[noun]:,} {noun}" for noun in ("users", "items", "interactions"))
        lines.append(f"after {step['step']}: {counts}")
    titled = dataset.n_items - dataset.catalog["title"].null_count()
    whole = dataset.description["steps"][-1]
    lines.append(
        f"{dataset.name}: {whole['users']:,} users, {dataset.n_items:,} items ({titled:,} with a title), "
        f"{whole['interactions']:,} interactions"
    )
    if dataset.n_users < whole["users"]:
        lines.append(f"the audit is of the first {dataset.n_users:,} users, {dataset.n_interactions:,} interactions")
    return [*lines, f"fingerprint {dataset.fingerprint}"]


def _refused(label: str, found: dict[str, Any]) -> list[str]:
    """Counts of refused rows, and the first of them."""
    lines = []
    for file, refused in {"": found}.items() if "total" in found else found.items():  # one account, or one a file
        if not refused["total"]:
            continue
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in refused["reasons"].items())
        lines.append(f"{label}  {refused['total']:,}" + (f" ({reasons})" if reasons else "") + f" {file}".rstrip())
        unit = refused.get("unit", "line")
        lines += [f"  {unit} {row['line']}: {row['reason']}, found {row['found']!r}" for row in refused["first"]]
    return lines


def _left_out(source: dict[str, Any]) -> list[str]:
    """Rows that do not count, and returns."""
    lines = [f"rows left out  {count:,} ({label})" for label, count in source.get("rows_left_out", {}).items()]
    lines += [f"rows left out  {count:,} ({label})" for label, count in source.get("returns_cancelled", {}).items()]
    negative, policy = source.get("negative_quantities", 0), source.get("reading", {}).get("returns", "keep")
    if negative and policy == "keep":
        lines.append(
            f"warning: {negative:,} events have a quantity below 0: are they returns? --returns drop leaves them out, "
            "--returns cancel also the purchases that they undo"
        )
    return lines


def _unseen(dataset: Dataset) -> list[str]:
    """The rows of the catalog that have no event, and whether they are items of the dataset."""
    counts = dataset.description.get("catalog", {})
    without = counts.get("rows_without_events", 0)
    if not without or not dataset.n_interactions:
        return []
    what = f"{without:,} of {counts['rows']:,} rows of the catalog are items without events"
    if dataset.n_unseen:
        return [f"{what}, kept: models of texts rank them, models of item ids do not (--unseen drop leaves them out)"]
    return [f"{what}, left out (--unseen keep keeps them, for models of texts)"]


def _times(note: dict[str, Any]) -> list[str]:
    """Account of how timestamps were read."""
    if "unit" not in note:
        return []
    units, parsed = note.get("units"), note.get("from_text", 0)
    shown = [f"{parsed:,} in ISO-8601"] if parsed else []
    shown += [f"{count:,} in {unit}" for unit, count in units.items()] if units is not None else [note["unit"]]
    return [f"times  {', '.join(shown)}"]


def _catalog(note: dict[str, Any]) -> list[str]:
    """Account of what a catalog has that is not used, and lacks."""
    lines = []
    if left_out := note.get("columns_left_out"):
        shown = ", ".join(f"{column} ({kind})" for column, kind in left_out.items())
        lines.append(f"columns of {note['file']} that hold no text, left out: {shown}")
    if again := note.get("duplicate_ids", 0):
        shown = ", ".join(map(repr, note["first_duplicates"]))
        lines.append(f"rows of {note['file']} whose id was there before, left out  {again:,} (first {shown})")
    if without := note.get("rows_without_id", 0):
        lines.append(f"rows of {note['file']} without an id, left out  {without:,}")
    if few := note.get("few_items_known"):
        lines.append(
            f"warning: {few['known']:,} of {few['items']:,} items have a row in {note['file']}; "
            f"the log has ids like {few['log']!r}, the catalog ids like {few['catalog']!r}"
        )
    return lines
