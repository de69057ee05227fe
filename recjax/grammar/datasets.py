"""Grammar of the commands that fetch what training reads: datasets and sentence encoders."""

import argparse

from recjax.grammar.options import columns, local


def prepare(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", metavar="DATASET", help="its name, e.g. ml-1m")
    command.add_argument(
        "--raw",
        metavar="PATH",
        help="file or folder of raw logs, here or at gs:// or s3://; without it a known dataset is downloaded",
    )
    command.add_argument(
        "--items",
        metavar="PATH",
        help="table of the catalog, or a folder of its parts, where it is not beside the logs as items.*; without "
        "--raw the catalog alone is the dataset",
    )
    _tables(command)
    command.add_argument(
        "--out",
        metavar="DIR",
        help="where to write it, here or at gs:// or s3:// (default $RECJAX_CACHE/DATASET, found by name)",
    )
    command.add_argument(
        "--replace", action="store_true", help="write over a dataset of that name that has other options or other data"
    )
    command.add_argument("--k-core", type=int, metavar="N", help="drop users and items with fewer events, repeatedly")
    command.add_argument("--min-length", type=int, metavar="N", help="drop users with fewer events")
    command.add_argument(
        "--duplicates",
        choices=("keep", "consecutive", "pair"),
        help="keep repeats (default), drop an item that directly follows itself, or keep each user-item pair once",
    )
    command.add_argument("--min-rating", type=float, metavar="X", help="drop events rated below this")
    command.add_argument(
        "--unseen",
        choices=("auto", "keep", "drop"),
        help="items of the catalog without events: kept where a shop's own tables are not filtered (default), always, "
        "or never",
    )
    command.add_argument(
        "--beam",
        metavar="RUNNER",
        help="prepare by Apache Beam pipelines, for logs that outgrow one machine: DirectRunner (here), "
        "DataflowRunner, FlinkRunner, SparkRunner, ...; the dataset is the same, byte for byte (needs the extra beam)",
    )
    _beam_options(command)


def count(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", metavar="DATASET", help="a prepared dataset, its name or folder")
    command.add_argument(
        "--beam",
        default="DirectRunner",
        metavar="RUNNER",
        help="DirectRunner (here, the default), DataflowRunner, FlinkRunner, SparkRunner, ...",
    )
    _beam_options(command)
    command.add_argument(
        "--training",
        action="store_true",
        help="count the training events alone, as `recjax evaluate pretrained` does (default all, as `recommend` does)",
    )
    command.add_argument("--encoder", metavar="NAME", help="of pretrained:NAME, the sentence encoder that reads texts")
    command.add_argument(
        "--work",
        metavar="DIR",
        help="a new folder that every worker reaches, for the time of the pipeline (default one in $RECJAX_CACHE)",
    )


def _beam_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--beam-options",
        default="",
        metavar="TEXT",
        help="options of Beam and its runner, as one text: --beam-options='--project=p --region=r --temp_location=gs://b/t'",
    )


def _tables(command: argparse.ArgumentParser) -> None:
    """Options of reading raw logs."""
    command.add_argument("--format", metavar="NAME", help="format of the raw logs; found out by itself when left out")
    columns(
        command,
        "what a table calls a column, e.g. user_id=CustomerID, of the catalog alone items.item_id=SKU, order=NAME "
        "for what orders events of one time; rating= for none; may be repeated",
    )
    command.add_argument("--header", metavar="NAME,...", help="names of the columns of a log without a header line")
    command.add_argument(
        "--time-format",
        metavar="TEXT",
        help="of the log's times, e.g. '%%d/%%m/%%Y %%H:%%M' (found out by itself for ISO-8601)",
    )
    command.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="which rows of the log count, e.g. event=view,buy or event!=view or Quantity>0; may be repeated",
    )
    command.add_argument(
        "--weights",
        metavar="COLUMN:KIND=NUMBER,...",
        help="ratings by kinds of events, e.g. event:view=1,buy=3; no others count",
    )
    command.add_argument(
        "--returns",
        choices=("keep", "drop", "cancel"),
        default="keep",
        help="rows with a quantity below 0: events like any other (default), left out, or left out with what they undo",
    )


def fetch_encoder(command: argparse.ArgumentParser) -> None:
    _fetch(command, "all-MiniLM-L6-v2", "encoders", "RECJAX_ENCODERS")


def fetch_language_model(command: argparse.ArgumentParser) -> None:
    _fetch(command, "SmolLM2-135M-Instruct", "language-models", "RECJAX_LANGUAGE_MODELS")


def _fetch(command: argparse.ArgumentParser, name: str, folder: str, variable: str) -> None:
    command.add_argument("name", nargs="?", default=name, metavar="NAME", help="(default %(default)s)")
    command.add_argument(
        "--into", type=local, metavar="DIR", help=f"folder to put it in (default the first of ${variable}, or {folder})"
    )
    command.add_argument(
        "--wheel", type=local, metavar="FILE", help="the package's wheel, where it was fetched elsewhere"
    )
