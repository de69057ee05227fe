"""Options that several commands have."""

import argparse
from pathlib import Path


def local(text: str) -> Path:
    """A path of files that are read and written in place: runs, lists, pages."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text} is a URL, and only datasets and raw logs may be behind one; mount the bucket as a folder "
            "(gcsfuse, mount-s3)"
        )
    return Path(text)


def recipe(command: argparse.ArgumentParser, folder: str = "experiments/") -> None:
    """The recipe that a command runs."""
    command.add_argument("recipe", metavar="RECIPE", help=f"path of a .py file, or a name in {folder}")


def settings(command: argparse.ArgumentParser, help: str) -> None:
    """Changes of the configuration, which may be repeated."""
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=help)


def run_and_data(command: argparse.ArgumentParser) -> None:
    """A run that ranks, and the dataset whose catalog it ranks."""
    command.add_argument(
        "run",
        type=local,
        metavar="RUN",
        help="run folder; `pretrained` is the model that comes with recjax, `pretrained:ENCODER` has texts read by a "
        "sentence encoder, a folder or one that fetch-encoder knows; `pretrained+RUN` is a trained run beside the "
        "evidence of its catalog",
    )
    command.add_argument("--data", metavar="NAME", help="another dataset than the one trained on")


def own_classes(command: argparse.ArgumentParser) -> None:
    """The recipe of a run that is read, for its own classes."""
    command.add_argument("--recipe", metavar="FILE", help="the recipe, where the run uses classes that it defines")


def columns(command: argparse.ArgumentParser, help: str) -> None:
    """Column names of the tables that are read, which may be repeated."""
    command.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", dest="columns", help=help)
