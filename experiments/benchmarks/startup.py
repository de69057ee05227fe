"""From the command to the first list and to the first step, and the share of a step spent waiting for data.

    RECJAX_DATA=... python experiments/benchmarks/startup.py --recipe sasrec_ml1m

Runs the commands as a user would, by turns: `recjax train RECIPE` for a number of steps, `recjax recommend` with that
run, and with the model that comes with recjax on the recipe's dataset. The first turn begins with an empty cache, so it
prepares the dataset and compiles; those after it are what a user waits for every day. Beside them stands what importing
JAX, Flax, Orbax and Polars alone takes on the machine as it is in that minute (without the garbage collector).

Processor time counts all threads of the process. The first step counts as made when its loss stands in `metrics.jsonl`;
the column "start-up" is without the computation of that step, which takes as long as that of the second.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contest

from recjax import recipes
from recjax.track.metrics import read_metrics
from recjax.train.own_items import read_table

IMPORTS = "import gc; gc.disable(); import jax, flax.linen, orbax.checkpoint.experimental.v1, polars; gc.freeze()"


def environment(cache: Path) -> dict[str, str]:
    """That of a user, with a cache of its own and compiled Python files."""
    found = {**os.environ, "RECJAX_CACHE": str(cache), "PYTHONPATH": str(contest.REPOSITORY)}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def called(arguments: Sequence[str], cache: Path) -> dict[str, Any]:
    """One call of Python: its seconds by the clock and of the processor, and what it printed."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], env=environment(cache), cwd=contest.REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with status {process.returncode}:\n{printed}")
    return {"wall": time.perf_counter() - began, "cpu": used.ru_utime + used.ru_stime, "printed": printed}


def used_by(process: int) -> float:
    """Seconds of the processor that a running process has used; 0.0 where the system does not tell."""
    path = Path(f"/proc/{process}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(recipe: str, steps: int, extra: list[str], run_dir: Path, cache: Path) -> dict[str, Any]:
    """One run: seconds to the first step and to the end, and what the log says of the steps after it."""
    wanted = {
        "train.epochs": "none",
        "train.steps": steps,
        "train.evaluate_every": 0,
        "train.patience": "none",
        "train.save_every": steps,
        "train.log_every": 1,
    }
    settings = [word for key, value in wanted.items() for word in ("--set", f"{key}={value}")]
    settings += [word for setting in extra for word in ("--set", setting)]
    command = [sys.executable, "-m", "recjax", "train", recipe, *settings, "--no-evaluate", "--run", str(run_dir)]
    log = run_dir / "metrics.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment(cache),
        cwd=contest.REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen: list[tuple[int, float, float]] = []  # size of the log, clock, processor
    while process.poll() is None:
        size = log.stat().st_size if log.exists() else 0
        if size > (seen[-1][0] if seen else 0):
            seen.append((size, time.perf_counter() - began, used_by(process.pid)))
        time.sleep(0.01)
    whole = time.perf_counter() - began
    assert process.stdout is not None
    if process.returncode or len(seen) < 2:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}:\n{process.stdout.read()}")
    curves = read_metrics(run_dir)
    (_, first, first_cpu), (_, _, second_cpu) = seen[:2]
    return {
        "wall": first,
        "cpu": first_cpu,
        "startup": first_cpu - (second_cpu - first_cpu),
        "whole": whole,
        "data_wait": [value for _, value in curves["data_wait"]],
        "targets_per_second": [value for _, value in curves["interactions_per_second"]],
    }


def turns(options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The measurements of every command, that of the empty cache first."""
    dataset, cache = recipes.read(options.recipe).config.data.dataset, folder / "cache"
    found: dict[str, list[dict[str, Any]]] = {"imports": [], "train": [], "run": [], "pretrained": []}
    for number in range(options.runs + 1):
        found["imports"].append(called(["-c", IMPORTS], cache))
        run_dir = folder / f"run{number}"
        found["train"].append(train(options.recipe, options.steps, options.settings, run_dir, cache))
        table = read_table(folder / "run0")
        assert table is not None
        ask = ["--history", ",".join(table["item_id"][:3])]
        found["run"].append(called(["-m", "recjax", "recommend", str(folder / "run0"), *ask], cache))
        found["pretrained"].append(called(["-m", "recjax", "recommend", "pretrained", "--data", dataset, *ask], cache))
        for name in ("run", "pretrained"):
            if found[name][-1]["printed"] != found[name][0]["printed"]:
                raise SystemExit(f"recommend gives two lists for one history:\n{found[name][-1]['printed']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", default="sasrec_ml1m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5, help="turns after the one with an empty cache (%(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    facts = contest.machine()
    with contest.scratch() as folder:
        found = turns(options, folder)
    contest.print_machine({**facts, "load at the end": round(contest.load(), 2)})
    columns = ("command", "empty cache", "again: processor", "start-up", "least by the clock")
    shown = contest.table(f"seconds from the command on, {options.recipe}", columns)
    names = {
        "imports": "importing JAX, Flax, Orbax and Polars",
        "run": "recommend RUN --history, to the end",
        "pretrained": "recommend pretrained --data, to the end",
        "train": "train, to the loss of the first step",
    }
    for name, label in names.items():
        first, *again = found[name]
        startup = contest.median([run["startup"] for run in again], ".2f") if name == "train" else ""
        times = contest.median([run["cpu"] for run in again], ".2f")
        shown.add_row(label, f"{first['cpu']:.2f}", times, startup, f"{min(run['wall'] for run in again):.2f}")
    contest.CONSOLE.print(shown)
    waits = [wait for run in found["train"] for wait in run["data_wait"]]
    speed = statistics.median(value for run in found["train"] for value in run["targets_per_second"])
    contest.CONSOLE.print(f"waiting for data {statistics.mean(waits):.2%} of a step, {speed:,.0f} targets/s")
    contest.save(options.out, {"benchmark": "startup", "machine": facts, "recipe": options.recipe, "runs": found})


if __name__ == "__main__":
    main()
