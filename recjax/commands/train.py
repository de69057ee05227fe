"""The command that trains: a recipe to a run folder, and its evaluation."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import jax

from recjax import recipes
from recjax.commands.console import plain_console
from recjax.commands.runs import run_of, save
from recjax.compare.run_results import ONLINE
from recjax.config import override_all
from recjax.evaluate.online import online_cost
from recjax.train.loop import fit


def train(options: Namespace) -> int:
    """A recipe to a run folder, and its evaluation."""
    recipe = recipes.read(options.recipe)
    config = override_all(recipe.config, options.settings)
    folder: Path = options.run or recipes.default_run(recipe.name, options.settings)
    result = fit(config, folder)
    if not (result.preempted or options.no_evaluate):
        run = run_of(folder, recipe=recipe.module)
        report = run.report(recipe.name, config.evaluate)
        if options.online:
            with jax.set_mesh(run.mesh):
                cost = online_cost(run.model, run.params, run.config.data.view)
            report = replace(report, notes=report.notes | ({ONLINE: cost} if cost else {}))
        save(report, folder)
        plain_console().print(report.table())
    return 0
