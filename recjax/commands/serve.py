"""The command that answers over HTTP."""

from argparse import Namespace

from recjax.commands.runs import recipe_of, report_notes
from recjax.train.pretrained import open_run
from recjax.typing import InputError


def serve(options: Namespace) -> int:
    """A run over HTTP, until a signal ends it."""
    try:
        from recjax.serve import server
        from recjax.serve.limits import Limits
        from recjax.serve.served import of_run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("recjax"):
            raise
        raise InputError(
            f"serving needs the extra `serve` ({error.name} is missing): pip install 'recjax[serve]'"
        ) from None
    for name in ("max_k", "max_users"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected at least 1")
    limits = Limits(k=options.max_k, users=options.max_users)
    recipe = recipe_of(options)
    with server.bound(options.host, options.port) as listener:
        run = open_run(options.run, options.data, recipe, one_query=True)
        report_notes(options.run, run)
        run = of_run(run, count_events=options.count_events)
        step = f", step {run.step}" if run.step else ""  # what comes with recjax has none
        tell(f"{run.name}{step}: {len(run.catalog):,} items of {run.dataset}; compiling its rankings")
        server.serve(run, listener, limits, tell)
    return 0


def tell(line: str) -> None:
    """Prints a line and flushes it, for the script or person that waits for the server."""
    print(line, flush=True)
