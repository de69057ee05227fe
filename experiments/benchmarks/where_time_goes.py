"""Processor time of a training step by kind of operation, from XLA's own trace of the compiled step.

    RECJAX_DATA=... python experiments/benchmarks/where_time_goes.py sasrec_ml1m --set data.rows=70

Before that whole steps are timed without a trace, and the pages counted that the operating system gives them
(`--set train.accumulate=1` takes the batch whole).

One device, on one core, since operations that several threads share are counted by their first part alone. Loops stand
for what is inside them, which is listed by itself.
"""

import argparse
import os
import re
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before XLA counts them
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])

import contest
import jax
from rich.table import Table

from recjax import recipes
from recjax.config import RunConfig, override_all
from recjax.parallel.startup import initialize
from recjax.train.programs import Alike, programs_of
from recjax.train.task import open_task

INSTRUCTION = re.compile(r"\s*(?:ROOT )?%([\w.\-]+) = (\S+) .*?([\w\-]+)\(")
CONTAINERS = ("while", "conditional", "call")
KINDS = {"dot": "products", "fusion": "element by element", "reduce": "reductions", "reduce-window": "reductions"}


def traced(config: RunConfig, steps: int) -> tuple[str, dict[str, float], dict[str, float]]:
    """The compiled step's text, and of each instruction nanoseconds and executions in a step."""
    mesh = config.mesh.build(jax.devices()[:1])
    with tempfile.TemporaryDirectory() as name, jax.set_mesh(mesh):
        folder = Path(name)
        task = open_task(config, folder)
        programs = programs_of(Alike.of(config, task.model, config.optim.warmup_steps + steps, mesh))
        key, items = jax.random.key(0), task.items[task.loader.catalog(0)]
        batches = [task.loader.batch(number) for number in range(steps)]
        target = programs.target(key, batches[0], items, task.params)
        state: Any = programs.start(target)(key, batches[0], items, task.params)
        compiled: Any = programs.step(target)
        compiled = compiled.lower(state, batches[0], items).compile()
        state, _ = jax.block_until_ready(compiled(state, batches[0], items))
        taken, faults = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for batch in batches:
            started = time.process_time()
            state, _ = jax.block_until_ready(compiled(state, batch, items))
            taken.append(1e3 * (time.process_time() - started))
        faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / steps
        room = contest.gigabytes(compiled.memory_analysis().temp_size_in_bytes)
        what = f"{statistics.median(taken):.0f} ms of processor time, {faults:,.0f} page faults, temporaries of {room}"
        contest.CONSOLE.print(f"a step: {what}")
        with jax.profiler.trace(str(folder / "trace")):
            for batch in batches:
                state, _ = jax.block_until_ready(compiled(state, batch, items))
        (file,) = (folder / "trace").rglob("*.xplane.pb")
        spent, times = defaultdict(float), defaultdict(float)
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    spent[event.name] += event.duration_ns / steps
                    times[event.name] += 1 / steps
        return compiled.as_text(), spent, times


def kind_of(name: str, opcode: str) -> str:
    """Kind of an instruction; those that XLA wraps are called by what is inside."""
    inside = re.sub(r"^wrapped_|[.\d]*$", "", name)
    return KINDS.get(inside if inside in KINDS else opcode, opcode.replace("-", " "))


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("recipe", nargs="?", default="sasrec_ml1m")
    options.add_argument("--steps", type=int, default=3, help="steps that are timed, and traced (default %(default)s)")
    options.add_argument("--top", type=int, default=12, help="instructions to list (default %(default)s)")
    options.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    chosen = options.parse_args()
    initialize()
    text, spent, times = traced(override_all(recipes.read(chosen.recipe).config, chosen.settings), chosen.steps)
    found = {match[1]: (match[2], match[3]) for match in map(INSTRUCTION.match, text.splitlines()) if match}
    own = {name: time for name, time in spent.items() if name in found and found[name][1] not in CONTAINERS}
    total, kinds = sum(own.values()), defaultdict(float)
    for name, taken in own.items():
        kinds[kind_of(name, found[name][1])] += taken
    table = Table(title=f"{chosen.recipe}: {total / 1e6:.1f} ms of operations in a step, {len(own)} instructions")
    for column in ("kind or instruction", "shape", "times", "ms", "share"):
        table.add_column(column, justify="left" if column in ("kind or instruction", "shape") else "right")
    for kind, taken in sorted(kinds.items(), key=lambda pair: -pair[1]):
        table.add_row(kind, "", "", f"{taken / 1e6:.1f}", f"{taken / total:.1%}")
    table.add_section()
    for name in sorted(own, key=lambda name: -own[name])[: chosen.top]:
        shape = found[name][0].split("{")[0]
        table.add_row(name, shape, f"{times[name]:.0f}", f"{own[name] / 1e6:.1f}", f"{own[name] / total:.1%}")
    contest.CONSOLE.print(table)


if __name__ == "__main__":
    main()
