"""The command that evaluates runs, or lists of another library."""

import json
from argparse import Namespace
from collections.abc import Sequence

from recjax.commands.console import plain_console
from recjax.commands.runs import recipe_of, run_of, save
from recjax.compare.run_results import by_system
from recjax.config import RunConfig, override_all
from recjax.data.prepare.preparation import Preparation
from recjax.data.splits import LeaveOneOut
from recjax.data.store.prepared import find
from recjax.evaluate.predictions import evaluate_predictions
from recjax.evaluate.protocol import Evaluate
from recjax.evaluate.report import Report, compare, comparison_table
from recjax.train.pretrained import is_pretrained, named_parts
from recjax.train.run import run_config
from recjax.typing import InputError

PROTOCOL, PREPARATION = "evaluate.", "data.prepare."
"""Settings that can change after training."""


def evaluate(options: Namespace) -> int:
    """Runs, or another library's lists, to reports."""
    console = plain_console()
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
        like = _trained(options) if options.data is None else None
        for folder in options.runs:
            run = run_of(folder, options.data, recipe_of(options), _changes(options), like)
            here = not is_pretrained(folder)  # a folder that a report belongs into
            name = folder.resolve().name if here and len(options.runs) == 1 else str(folder)
            reports.append(run.report(name, floors=not reports))
            configs.append(run.config)
            if (
                here
                and options.data is None
                and options.split is None
                and not options.settings
                and len(options.runs) == 1
            ):
                save(reports[0], folder)
    systems = by_system(list(zip(reports, configs, strict=False)), lambda entry: entry[1])
    named = {group[0][0].name: [report for report, _ in group] for group in systems}
    compared = compare(named) if len(reports) > 1 else None
    if options.json:
        found = [report.to_json() for report in reports]
        print(json.dumps({"runs": found, "comparison": compared} if compared else found[0], indent=2))
        return 0
    for report in reports:
        console.print(report.table())
    if compared:
        console.print(comparison_table(compared))
    return 0


def _trained(options: Namespace) -> RunConfig | None:
    """Configuration of the first trained run, whose dataset `pretrained` beside it takes."""
    folders = [named_parts(name)[1] if is_pretrained(name) else name for name in options.runs]
    trained = next((folder for folder in folders if folder is not None), None)
    return (
        None if trained is None or None not in folders else run_config(trained, recipe_of(options), _changes(options))
    )


def _changes(options: Namespace) -> list[str]:
    """Changes of a run's settings on the command line: how it is evaluated, and how the data are prepared."""
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
