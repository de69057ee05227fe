"""The command that compiles a run for a pod that is not there."""

import json
from argparse import Namespace

from recjax import recipes
from recjax.commands.console import plain_console
from recjax.config import override_all
from recjax.plan.plan import plan as plan_run
from recjax.plan.report import render, to_json


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
        plain_console().print(render(found), highlight=False, markup=False)
    return 0
