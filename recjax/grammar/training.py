"""Grammar of the commands that read a recipe, or make a run folder."""

import argparse

from recjax.grammar.options import local, recipe, settings


def train(command: argparse.ArgumentParser) -> None:
    recipe(command)
    settings(command, "change a setting of the recipe, e.g. model.width=128; may be repeated")
    command.add_argument(
        "--run", type=local, metavar="DIR", help="run folder (default runs/RECIPE, with a hash when --set is used)"
    )
    command.add_argument("--no-evaluate", action="store_true", help="stop after training")
    command.add_argument("--online", action="store_true", help="also time one more event of a user")


def tokenize(command: argparse.ArgumentParser) -> None:
    recipe(command)
    settings(command, "change a setting of the recipe, e.g. tokenizer.steps=2000; may be repeated")
    command.add_argument(
        "--run",
        type=local,
        metavar="DIR",
        help="run folder whose tokenizer to show, or where to keep a new one",
    )
    command.add_argument("--data", metavar="NAME", help="show another dataset too, by the same tokenizer")


def align(command: argparse.ArgumentParser) -> None:
    recipe(command)
    settings(command, "change a setting of the recipe, e.g. train.steps=2000; may be repeated")
    command.add_argument(
        "--run", type=local, metavar="DIR", help="run folder (default runs/RECIPE, with a hash when --set is used)"
    )
    command.add_argument("--out", type=local, metavar="DIR", help="the encoder's folder (default RUN/encoder)")
    command.add_argument(
        "--no-train", action="store_true", help="write the encoder of the best step so far, of a run that was stopped"
    )


def import_recgpt(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=local, metavar="CKPT.pt", help="the published model")
    command.add_argument("tokenizer", type=local, metavar="TOKENIZER.pt", help="the published FSQ autoencoder")
    command.add_argument("--run", type=local, required=True, metavar="DIR", help="run folder to make")
    command.add_argument(
        "--encoder",
        required=True,
        metavar="NAME",
        help="sentence encoder of item texts: a folder, a name under $RECJAX_ENCODERS, or hashed:WIDTH for hashed "
        "n-grams (to try things out; the published weights know all-mpnet-base-v2 only)",
    )
    command.add_argument("--template", metavar="TEXT", help="text of an item (default: as published)")
    command.add_argument("--heads", type=int, default=12, metavar="N", help="attention heads (default 12)")
    command.add_argument(
        "--levels", default="8,8,8,6,5", metavar="N,N,...", help="values of each digit of a code (default 8,8,8,6,5)"
    )
    command.add_argument(
        "--data", default="synthetic", metavar="NAME", help="dataset of the run (default the embedded synthetic one)"
    )


def ablate(command: argparse.ArgumentParser) -> None:
    recipe(command, "experiments/ablations/")
    settings(command, "change a setting of every row, e.g. train.steps=500; may be repeated")
    command.add_argument(
        "--seeds", default="1", metavar="N", help="how many seeds a row, or which, e.g. 0,1,2 (default 1)"
    )
    command.add_argument("--only", metavar="NAME,...", help="these rows of the sweep alone")
    command.add_argument(
        "--out", type=local, metavar="DIR", help="where runs, results.json and index.html go (default as for train)"
    )
    command.add_argument(
        "--devices-per-cell", type=int, metavar="K", help="run side by side, each on K devices (default: one, on all)"
    )
    command.add_argument(
        "--target", type=float, metavar="X", help="validation metric to time (default 95 %% of the first row's best)"
    )
    command.add_argument("--json", action="store_true", help="print results.json instead of tables")


def plan(command: argparse.ArgumentParser) -> None:
    recipe(command)
    command.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="v5e:16x16, v5p:8x8x8, v6e:16x16, tpu7x:4x4x4 and the like (need libtpu, but no TPU); cpu:N for N host "
        "devices; or gpu, those of this machine",
    )
    command.add_argument("--slices", type=int, default=1, metavar="N", help="slices of the topology (default 1)")
    command.add_argument(
        "--items",
        type=int,
        metavar="N",
        help="catalog size (default: that of the recipe's datasets; then no data is needed)",
    )
    command.add_argument(
        "--text-width", type=int, metavar="N", help="coordinates of a sentence encoder's vectors, if it is not here"
    )
    settings(command, "change a setting of the recipe, e.g. mesh.model=4; may be repeated")
    command.add_argument("--no-ranking", action="store_true", help="compile the training step only")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
