"""Grammar of the commands that read runs."""

import argparse

from recjax.grammar.options import columns, local, own_classes, run_and_data, settings


def evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs",
        nargs="*",
        type=local,
        metavar="RUN",
        help="run folder; several are compared; `pretrained` is the model that comes with recjax, for any --data, "
        "`pretrained:ENCODER` has texts read by a sentence encoder, `pretrained+RUN` is a run beside the evidence of "
        "its catalog",
    )
    command.add_argument("--predictions", type=local, metavar="FILE", help="score lists of another library instead")
    command.add_argument("--data", metavar="NAME", help="another dataset than the one trained on")
    command.add_argument("--split", choices=("test", "validation"), help="(default: that of the recipe, test)")
    command.add_argument(
        "--baselines",
        metavar="NAME,...",
        help="also rank, beside the floors, some of item_knn, ease, session_knn and vector_transition (seconds each)",
    )
    settings(
        command,
        "change the protocol, e.g. evaluate.mask_seen=none, or how the data are prepared, e.g. "
        "data.prepare.duplicates=consecutive; may be repeated",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    own_classes(command)


def recommend(command: argparse.ArgumentParser) -> None:
    run_and_data(command)
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--history", metavar="ID,ID,...", help="raw item ids, oldest first")
    who.add_argument(
        "--users",
        type=local,
        metavar="FILE",
        help="csv or parquet with user_id, item_id, timestamp; or with nothing but users (one column; .txt: an id a "
        "line), whose histories are those of the run's dataset",
    )
    who.add_argument("--all-users", action="store_true", help="all users of the run's dataset")
    who.add_argument("--similar", metavar="ID,ID,...", help="items: lists the items most like each of them")
    who.add_argument(
        "--stream",
        type=local,
        metavar="FILE",
        help="csv or parquet of events that follow those seen so far: each advances what the model keeps of its user "
        "(see --state), and no history is read again",
    )
    command.add_argument(
        "--state",
        type=local,
        metavar="FILE.safetensors",
        help="with --stream: the users' states; read if the file is there, and written back together with the lists",
    )
    command.add_argument(
        "--late",
        choices=("skip", "refuse"),
        help="with --stream: events that are not after those of their user in the states are left out and counted "
        "(default), or the file is refused",
    )
    command.add_argument(
        "--out", type=local, metavar="FILE", help="where to write the lists: .csv or .parquet, by the ending"
    )
    for option, what in (("--candidates", "the only items that may be listed"), ("--exclude", "items that may not be")):
        command.add_argument(
            option, type=local, metavar="FILE", help=f"ids of {what}: .txt with an id a line, csv or parquet"
        )
    command.add_argument(
        "--fallback",
        choices=("popularity", "none"),
        default="popularity",
        help="lists of users of whom no event can be used: the most popular items (default), or none",
    )
    columns(command, "what the files call a column, e.g. user_id=CustomerID; may be repeated")
    command.add_argument("--k", type=int, default=10, metavar="N", help="items per list (default 10)")
    own_classes(command)


def ask(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", type=local, metavar="RUN", help="run folder, or `pretrained` or `pretrained:ENCODER` with --data"
    )
    command.add_argument("--data", metavar="NAME", help="another dataset than the one trained on")
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--history", metavar="ID,ID,...", help="raw item ids, oldest first; the questions are yours")
    who.add_argument(
        "--rehearse", type=int, metavar="USERS", help="ask so many held-out users, who answer by their next item"
    )
    who.add_argument(
        "--measure", action="store_true", help="print coverage and size of the sets of the test users, unasked"
    )
    command.add_argument("--coverage", type=float, default=0.7, metavar="SHARE", help="stated (default 0.7)")
    command.add_argument(
        "--about",
        metavar="COLUMN,...",
        help="of the catalog (default: categories, genres, brand; else titles)",
    )
    command.add_argument(
        "--choice",
        choices=("set", "entropy", "random"),
        default="set",
        help="of the next question: of the smallest set (default), of the surest model, any",
    )
    command.add_argument("--enough", type=int, default=10, metavar="N", help="items that are few enough (default 10)")
    command.add_argument("--most", type=int, default=20, metavar="N", help="questions (default 20)")
    command.add_argument(
        "--wrong", type=float, default=0.0, metavar="SHARE", help="of the answers may be wrong (default 0)"
    )
    command.add_argument("--users", type=int, default=1000, metavar="N", help="held-out users to calibrate on (1000)")
    command.add_argument("--show", type=int, default=20, metavar="N", help="items that are shown (default 20)")
    own_classes(command)


def export(command: argparse.ArgumentParser) -> None:
    run_and_data(command)
    command.add_argument("--items", type=local, metavar="FILE.parquet", help="write the vectors of the items")
    command.add_argument("--users", type=local, metavar="FILE.parquet", help="write the vectors of users")
    command.add_argument(
        "--histories",
        type=local,
        metavar="FILE",
        help="with --users: events or ids of these users, as for recommend --users (default: all of the run's dataset)",
    )
    command.add_argument("--weights", type=local, metavar="FILE.safetensors", help="write the parameters")
    command.add_argument(
        "--program", type=local, metavar="DIR", help="write the ranking as StableHLO with a page on how to run it"
    )
    command.add_argument("--k", type=int, metavar="N", help="with --program: items per list (default 10)")
    command.add_argument("--batch", type=int, metavar="N", help="with --program: users of a call (default 8)")
    columns(command, "what the file of histories calls a column, e.g. user_id=CustomerID; may be repeated")
    own_classes(command)


def serve(command: argparse.ArgumentParser) -> None:
    run_and_data(command)
    command.add_argument("--port", type=int, default=8000, metavar="N", help="(default 8000; 0 for any free one)")
    command.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="(default 127.0.0.1, this machine alone)"
    )
    command.add_argument("--max-k", type=int, default=100, metavar="N", help="items of the longest list (default 100)")
    command.add_argument(
        "--max-users", type=int, default=10_000, metavar="N", help="users whose events are remembered (default 10000)"
    )
    command.add_argument(
        "--count-events",
        action="store_true",
        help="events that clients send count for everybody's lists, with models that rank by counts (`pretrained`)",
    )
    own_classes(command)


def report(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", type=local, metavar="RUN", help="run folder; several are compared")
    command.add_argument("--out", type=local, metavar="FILE.html", help="the page (default RUN/report.html)")


def inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=local, metavar="RUN", help="run folder")
    own_classes(command)
