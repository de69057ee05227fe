"""The command that makes datasets: `prepare`."""

from argparse import Namespace

from recjax.data.audit import audit
from recjax.data.building import build
from recjax.data.dataset import Dataset
from recjax.data.embedded import NAMES
from recjax.data.importers import download, read
from recjax.data.locate import cache_folder, locate, place_of_name
from recjax.data.preparation import Preparation
from recjax.data.prepared import find, is_prepared, load, save
from recjax.data.remote import Place, local, place
from recjax.data.splits import LeaveOneOut
from recjax.typing import InputError

AUDITED = 100_000_000
"""Events of a dataset prepared by Beam, beyond which the audit is one of its first users."""


def prepare(options: Namespace) -> int:
    """Raw logs to a dataset on disk."""
    filters = {name: getattr(options, name) for name in ("k_core", "min_length", "duplicates", "min_rating")}
    preparation = Preparation(**{name: value for name, value in filters.items() if value is not None})
    if options.beam_options and options.beam is None:
        raise InputError("--beam-options goes with --beam RUNNER")
    raw = None if options.raw is None else place(options.raw)
    out = None if options.out is None else place(options.out)
    if options.beam is not None:
        out = out or place_of_name(options.dataset)
        dataset = _prepared_by_beam(options, raw, preparation, out)
    elif raw is None and _is_here(options.dataset):
        dataset = find(options.dataset, preparation)
    else:
        out = out or place_of_name(options.dataset)
        source = local(raw or download(options.dataset, cache_folder() / "downloads"), cache_folder())
        dataset = build(read(source, options.format, _columns(options), name=options.dataset), preparation)
    for line in [*_account(dataset), *audit(dataset, LeaveOneOut().split(dataset)).lines()]:
        print(line)
    if out is not None:
        if options.beam is None:
            save(dataset, out)
        print(f"written to {out}")
    return 0


def _prepared_by_beam(options: Namespace, raw: Place | None, preparation: Preparation, out: Place) -> Dataset:
    """The dataset that pipelines have written to `out`; of a very large one its first users."""
    try:
        from recjax.data import pipeline
    except ImportError as error:
        raise InputError(
            f"--beam needs Apache Beam ({error}): pip install 'recjax[beam]', or pip install -r requirements-beam.txt "
            "in an environment of its own"
        ) from error
    if raw is None:
        here = _is_here(options.dataset) and options.dataset not in NAMES
        raw = locate(options.dataset, NAMES) if here else download(options.dataset, cache_folder() / "downloads")
    if is_prepared(raw):
        raise InputError(f"{raw} is already prepared; give the raw logs: --raw PATH")
    runner = pipeline.Runner(options.beam, options.beam_options)
    pipeline.prepare(
        raw, out, preparation, runner, name=options.dataset, format=options.format, columns=_columns(options)
    )
    return load(out, most=AUDITED)


def _columns(options: Namespace) -> dict[str, str] | None:
    return dict(_pair(column) for column in options.columns) or None


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
    found = source.get("rows_refused", {})
    for file, refused in {"": found}.items() if "total" in found else found.items():  # one account, or one a file
        if not refused["total"]:
            continue
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in refused["reasons"].items())
        lines.append(f"rows refused  {refused['total']:,}" + (f" ({reasons})" if reasons else "") + f" {file}".rstrip())
        lines += [f"  line {row['line']}: {row['reason']}, found {row['found']!r}" for row in refused["first"]]
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
