"""The command that writes a run's vectors, weights and ranking for other software."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from recjax import array_files
from recjax.commands.columns import columns_among
from recjax.commands.console import plain_console
from recjax.commands.recommend import EVENT, opened
from recjax.evaluate import lists
from recjax.typing import InputError

EXPORTED = {"items": ".parquet", "users": ".parquet", "weights": ".safetensors"}
"""Files that an export writes, and their endings."""


def export(options: Namespace) -> int:
    """A run to files that other software reads."""
    _check_export(options)
    model, console = opened(options), plain_console()

    def say(path: Path, what: str) -> None:
        console.print(f"{what} written to {path}", markup=False, highlight=False)

    if options.items is not None:
        table = model.item_vectors()
        lists.write(table, options.items)
        say(options.items, f"vectors of {table.height:,} items")
    if options.users is not None:
        users: dict[str, Any] = {"users": "all"} if options.histories is None else {"histories": options.histories}
        found = model.vectors_of(model.events(**users, columns=columns_among(options, EVENT)))
        for line in found.lines(model.run.dataset):
            console.print(line, markup=False, highlight=False)
        lists.write(found.table, options.users)
        say(options.users, f"vectors of {found.table.height:,} users")
    if options.weights is not None:
        arrays, run = model.weights(), model.run
        about = {"run": run.config.name, "step": str(run.step), "dataset": run.dataset.fingerprint}
        try:
            options.weights.parent.mkdir(parents=True, exist_ok=True)
            array_files.write(options.weights, arrays, about)
        except OSError as error:
            raise lists.unwritable(options.weights, error) from error
        say(options.weights, f"{sum(array.size for array in arrays.values()):,} parameters")
    if options.program is not None:
        found = model.export_program(options.program, k=options.k or 10, batch=options.batch or 8)
        say(
            options.program,
            f"the ranking, lists of {found['k']} for {', '.join(found['platforms'])}, and its README.md",
        )
    return 0


def _check_export(options: Namespace) -> None:
    """Raises InputError where the options of an export do not go together, before anything is read."""
    given = {name: getattr(options, name) for name in (*EXPORTED, "program")}
    if not any(path is not None for path in given.values()):
        raise InputError("say what to export: --items FILE, --users FILE, --weights FILE or --program DIR")
    if options.histories is not None and options.users is None:
        raise InputError("--histories goes with --users FILE, the file of their vectors")
    for name in ("k", "batch"):
        value = getattr(options, name)
        if value is not None and options.program is None:
            raise InputError(f"--{name} goes with --program DIR")
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}, expected at least 1")
    lists.check_distinct({f"--{name}": path for name, path in {**given, "histories": options.histories}.items()})
    for name, ending in EXPORTED.items():
        if (path := given[name]) is not None:
            if path.suffix.lower() != ending:
                raise InputError(f"--{name} {path}: expected a name that ends in {ending}")
            lists.check_writable(path)
    if options.program is not None:
        lists.check_writable(options.program / "README.md")
