"""What each command does: call one function of another room, print what it returns."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from rich.console import Console

from recjax import recipes
from recjax.compare.run_results import EVALUATION, ONLINE
from recjax.config import RunConfig, diff, keys, override_all
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.prepare.preparation import Preparation
from recjax.data.splits import LeaveOneOut
from recjax.data.store.prepared import find
from recjax.evaluate import protocol as protocols
from recjax.evaluate.online import online_cost
from recjax.evaluate.predictions import evaluate_predictions
from recjax.evaluate.protocol import Evaluate
from recjax.evaluate.report import Report, compare, comparison_table
from recjax.models.parts import published_checkpoint
from recjax.parallel.mesh import MeshShape
from recjax.plan.plan import plan as plan_run
from recjax.plan.report import render, to_json
from recjax.text.encoder import SentenceEncoder
from recjax.text.hashed import Hashed
from recjax.text.hub import find_folder
from recjax.text.space import Channel, TextSpace
from recjax.track.console import PLAIN_WIDTH
from recjax.track.goodput import goodput_line
from recjax.track.model_table import model_table
from recjax.train.alignment import align as align_encoder
from recjax.train.catalogs import CODES
from recjax.train.imports import check_free, write_run
from recjax.train.loop import fit
from recjax.train.optimiser import AdamW
from recjax.train.pretrained import is_pretrained, load_pretrained
from recjax.train.run import Run, load_run
from recjax.train.schedule import Train
from recjax.train.tokenization import tokenize_catalogs
from recjax.typing import InputError

PROTOCOL, PREPARATION = "evaluate.", "data.prepare."
"""Settings that can change after training."""


def train(options: Namespace) -> int:
    """A recipe to a run folder, and its evaluation."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    folder: Path = options.run or recipes.default_run(recipe.name, options.settings)
    result = fit(config, folder)
    if not (result.preempted or options.no_evaluate):
        run = _load(folder, recipe=recipe.module)
        report = _report(run, recipe.name, config.evaluate)
        if options.online:
            with jax.set_mesh(run.mesh):
                cost = online_cost(run.model, run.params, run.config.data.view)
            report = replace(report, notes=report.notes | ({ONLINE: cost} if cost else {}))
        _save(report, folder)
        _console().print(report.table())
    return 0


def evaluate(options: Namespace) -> int:
    """Runs, or another library's lists, to reports."""
    console = _console()
    if bool(options.runs) == bool(options.predictions):
        raise InputError("give a RUN or several, or --predictions FILE --data NAME")
    reports: list[Report] = []
    configs: list[RunConfig] = []
    if options.predictions:
        if options.data is None:
            raise InputError("--predictions needs --data NAME, the dataset that the lists are for")
        changes = _changes(options)
        dataset = find(options.data, override_all(Preparation(), _under(PREPARATION, changes)))
        split, protocol = LeaveOneOut().split(dataset), override_all(Evaluate(), _under(PROTOCOL, changes))
        reports.append(evaluate_predictions(options.predictions, dataset, split, protocol))
    else:
        for folder in options.runs:
            run = _load(folder, options.data, _recipe(options), _changes(options))
            name = str(folder) if len(options.runs) > 1 else folder.resolve().name
            reports.append(_report(run, name, run.config.evaluate, floors=not reports))
            configs.append(run.config)
            if options.data is None and options.split is None and not options.settings and len(options.runs) == 1:
                _save(reports[0], folder)
    compared = compare(_systems(reports, configs)) if len(reports) > 1 else None
    if options.json:
        found = [report.to_json() for report in reports]
        print(json.dumps({"runs": found, "comparison": compared} if compared else found[0], indent=2))
        return 0
    for report in reports:
        console.print(report.table())
    if compared:
        console.print(comparison_table(compared))
    return 0


def _load(
    folder: Path, dataset: str | None = None, recipe: ModuleType | None = None, settings: Sequence[str] = ()
) -> Run:
    """A run, or the model that comes with recjax; says on standard error which checkpoints were damaged."""
    if is_pretrained(folder):
        return load_pretrained(dataset, settings)
    run = load_run(folder, dataset, recipe=recipe, settings=settings)
    _tell(folder, run)
    return run


def _tell(folder: Path, run: Run) -> None:
    if jax.process_index() == 0:
        for note in run.notes:
            print(f"{folder}: {note}", file=sys.stderr)


def _report(run: Run, name: str, evaluate: Any, floors: bool = True) -> Report:
    with jax.set_mesh(run.mesh):
        return protocols.evaluate(
            run.model,
            run.params,
            run.dataset,
            run.split,
            run.config.data.view,
            evaluate,
            run.items,
            floors=floors,
            name=name,
            vectors=run.text_vectors(),
        )


def _changes(options: Namespace) -> list[str]:
    """What the command line changes of a run's settings: how it is evaluated, and how the data are prepared."""
    for setting in options.settings:
        if not setting.startswith((PROTOCOL, PREPARATION)):
            raise InputError(
                f"--set {setting}: only the protocol can change after training, {PROTOCOL}KEY=VALUE, and how the data "
                f"are prepared, {PREPARATION}KEY=VALUE"
            )
    given = {"split": options.split, "baselines": options.baselines}
    return [*options.settings, *(f"{PROTOCOL}{key}={value}" for key, value in given.items() if value)]


def _under(prefix: str, settings: Sequence[str]) -> list[str]:
    return [setting.removeprefix(prefix) for setting in settings if setting.startswith(prefix)]


def _systems(reports: list[Report], configs: list[RunConfig]) -> dict[str, Sequence[Report]]:
    """Reports by system: runs that differ in nothing but the seed are one system, called as the first of them."""
    systems: list[tuple[RunConfig, list[Report]]] = []
    for report, config in zip(reports, configs, strict=True):
        alike = (group for first, group in systems if set(diff(first, config)) <= {"seed"})
        if (group := next(alike, None)) is not None:
            group.append(report)
        else:
            systems.append((config, [report]))
    return {group[0].name: group for _, group in systems}


def _save(report: Report, folder: Path) -> None:
    if jax.process_index() == 0:
        report.save(folder / EVALUATION)


def tokenize(options: Namespace) -> int:
    """A recipe's catalogs to item codes, and what they look like."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    console = _console()
    for catalog in tokenize_catalogs(config, options.run, options.data):
        dataset = catalog.dataset
        note = "" if catalog.fitted_on else "; the tokenizer is not fitted on it"
        console.print(f"{dataset.name}, fingerprint {dataset.fingerprint}{note}", highlight=False, markup=False)
        console.print(catalog.tokenized.table())
    if options.run is not None:
        console.print(f"kept in {options.run / CODES}", highlight=False, markup=False)
    return 0


def align(options: Namespace) -> int:
    """A recipe to a sentence encoder that has learned from users."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    metric, console = config.train.metric, _console()

    def tell(metrics: dict[str, float]) -> None:
        console.print(f"before training, {metric} {metrics[metric]:.4f} on the held-out catalog", highlight=False)

    aligned = align_encoder(
        config, options.run or recipes.default_run(recipe.name, options.settings), options.out, tell
    )
    if aligned.out is not None:
        console.print(f"encoder written to {aligned.out}", highlight=False, markup=False)
    return 0


PUBLISHED_TEXT = "'title': '{title}', 'description': ['{description}'], 'categories': ['{categories}"
"""Item texts as published: the printed dict of an item's fields, braces off."""


def import_recgpt(options: Namespace) -> int:
    """The published PyTorch checkpoints to a run folder."""
    check_free(options.run)
    published = published_checkpoint.import_recgpt(
        options.checkpoint, options.tokenizer, heads=options.heads, levels=_levels(options.levels)
    )
    encoder = _encoder(options.encoder, options.template or PUBLISHED_TEXT)
    _check_width(encoder, options.encoder, published.config.slots, published.config.aux_width)
    config = RunConfig(
        name="recgpt_published",
        data=Data(options.data, Shifted(max_length=published.config.max_items, align="left"), rows=8),
        text=TextSpace((Channel(encoder, whiten=False),)),
        tokenizer=published.tokenizer,
        model=published.config,
        optim=AdamW(learning_rate=1e-4, weight_decay=0.01, b2=0.999),
        mesh=MeshShape(),
        train=Train(steps=1, evaluate_every=0),
        evaluate=Evaluate(),
    )
    published.save_tokenizer(options.run / CODES)
    tokenize_catalogs(config, options.run)[0].tokenized.save(options.run / CODES)
    write_run(options.run, config, published.params)
    count = sum(array.size for array in jax.tree.leaves(published.params))
    _console().print(f"{count:,} parameters written to {options.run}", highlight=False, markup=False)
    return 0


def _levels(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--levels {text!r}: expected whole numbers, such as 8,8,8,6,5")
    return tuple(map(int, parts))


def _encoder(name: str, template: str) -> SentenceEncoder | Hashed:
    kind, separator, width = name.partition(":")
    if kind != "hashed" or not separator:
        found = find_folder(name)  # told at once where there is none
        whole = str(found.resolve()) if Path(name).expanduser() == found else name  # a run outlives the directory
        return SentenceEncoder(whole, template=template)
    if not width.isdecimal():
        raise InputError(f"--encoder {name!r}: expected hashed:WIDTH, such as hashed:768")
    return Hashed(int(width), template=template)


def _check_width(encoder: SentenceEncoder | Hashed, name: str, slots: int, width: int) -> None:
    found = encoder.encode(["a text"]).shape[1]
    if found != slots * width:
        raise InputError(
            f"the published model takes item vectors of {slots} x {width} = {slots * width} coordinates, but those of "
            f"encoder {name!r} have {found}"
        )


def plan(options: Namespace) -> int:
    """A recipe and a topology to what each device would need."""
    config = override_all(recipes.read(options.recipe).config, options.settings)
    found = plan_run(
        config,
        options.topology,
        slices=options.slices,
        items=options.items,
        text_width=options.text_width,
        ranking=not options.no_ranking,
    )
    if options.json:
        print(json.dumps(to_json(found), indent=2))
    else:
        _console().print(render(found), highlight=False, markup=False)
    return 0


def inspect(options: Namespace) -> int:
    """A run's parameters, step, configuration, dataset and results."""
    run = _load(options.run, recipe=_recipe(options))
    console = _console()
    console.print(model_table(run.params))
    console.print(f"step {run.step} of {options.run}", highlight=False)
    console.print(f"dataset {run.dataset.name}, fingerprint {run.dataset.fingerprint}", highlight=False)
    for key, value in keys(run.config):
        console.print(f"{key} = {value}", highlight=False, markup=False)
    if line := goodput_line(options.run):
        console.print(line, highlight=False)
    path = options.run / EVALUATION
    if path.is_file():
        metrics = Report.load(path).metrics["all"]
        console.print("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()), highlight=False)
    return 0


def _recipe(options: Namespace) -> ModuleType | None:
    return recipes.read(options.recipe).module if options.recipe else None


def _console() -> Console:
    """Standard output of the first process; the others say nothing."""
    console = Console(quiet=jax.process_index() != 0)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console
