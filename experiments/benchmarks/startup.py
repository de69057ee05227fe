"""From the command to the first step, and the share of a step spent waiting for data.

    RECJAX_DATA=... python experiments/benchmarks/startup.py --recipe sasrec_ml1m

Runs `recjax train RECIPE` as a user would, for a number of steps: once with an empty cache, which prepares the dataset,
then again. The first step counts as made when its loss stands in `metrics.jsonl`; by then Python, JAX, the dataset, the
packing plan, the parameters and both compilations are behind it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import contest

from recjax.track.metrics import read_metrics


def run(recipe: str, steps: int, extra: list[str], folder: Path, cache: Path) -> dict[str, Any]:
    """One run: seconds to the first step and to the end, and what the log says of the steps after it."""
    run_dir = folder / "run"
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
    environment = {**os.environ, "RECJAX_CACHE": str(cache), "PYTHONPATH": str(contest.REPOSITORY)}
    log = run_dir / "metrics.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, cwd=contest.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    first = None
    while process.poll() is None:
        if first is None and log.exists() and log.stat().st_size:
            first = time.perf_counter() - began
        time.sleep(0.02)
    whole = time.perf_counter() - began
    assert process.stdout is not None
    if process.returncode or first is None:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}:\n{process.stdout.read()}")
    curves = read_metrics(run_dir)
    return {
        "first_step": first,
        "whole": whole,
        "data_wait": [value for _, value in curves["data_wait"]],
        "targets_per_second": [value for _, value in curves["interactions_per_second"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", default="sasrec_ml1m")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3, help="runs after the one that prepares the data (%(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    facts, runs = contest.machine(), []
    with contest.scratch() as folder:
        for number in range(options.runs + 1):
            place = folder / str(number)
            place.mkdir()
            loaded = contest.load()
            runs.append(run(options.recipe, options.steps, options.settings, place, folder / "cache"))
            runs[-1]["load"] = loaded
    contest.print_machine(facts)
    columns = ("run", "to the first step", "waiting for data", "targets/s", "whole", "load")
    shown = contest.table(f"recjax train {options.recipe}, {options.steps} steps", columns)
    for number, found in enumerate(runs):
        shown.add_row(
            "again" if number else "prepares the data",
            f"{found['first_step']:.1f} s",
            f"{statistics.mean(found['data_wait']):.2%}",
            f"{statistics.median(found['targets_per_second']):,.0f}",
            f"{found['whole']:.1f} s",
            f"{found['load']:.1f}",
        )
    contest.CONSOLE.print(shown)
    contest.save(options.out, {"benchmark": "startup", "machine": facts, "recipe": options.recipe, "runs": runs})


if __name__ == "__main__":
    main()
