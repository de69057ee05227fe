"""The command that shows a run."""

from argparse import Namespace

from recjax.commands.console import plain_console
from recjax.commands.runs import recipe_of, run_of
from recjax.config import keys
from recjax.evaluate.report import EVALUATION, Report
from recjax.track.goodput import goodput_line
from recjax.track.model_table import model_table
from recjax.train.folder.starts import read_starts


def inspect(options: Namespace) -> int:
    """A run's parameters, step, configuration, dataset and results."""
    run = run_of(options.run, recipe=recipe_of(options))
    console = plain_console()
    console.print(model_table(run.params))
    console.print(f"step {run.step} of {options.run}", highlight=False)
    console.print(f"dataset {run.dataset.name}, fingerprint {run.dataset.fingerprint}", highlight=False)
    for start in read_starts(options.run):
        by = start.command or "from Python"
        line = f"started {start.time} UTC after step {start.step}: {by} ({start.machine}; recjax {start.recjax})"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for key, value in keys(run.config):
        console.print(f"{key} = {value}", highlight=False, markup=False)
    if line := goodput_line(options.run):
        console.print(line, highlight=False)
    path = options.run / EVALUATION
    if path.is_file():
        metrics = Report.load(path).metrics["all"]
        console.print("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()), highlight=False)
    return 0
