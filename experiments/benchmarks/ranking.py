"""Ranking alone, given user vectors: users a second, and memory that does not grow with users x items.

    python experiments/benchmarks/ranking.py

Top 20 and the rank of one item, histories masked, width 64. "Temporary" is what XLA plans for the compiled function
beside its inputs and results; "scores" is the array of all users by all items, which is never made. The goal is 10,000
users a second at 12 thousand items on 2 cores. "users/CPU-s" is the figure to read on a machine that others use too.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # also where recjax is not installed

from recjax.ops.items.topk import masked_rank, masked_topk
from recjax.parallel.startup import disable_faulty_cpu_fusion

WIDTH, K = 64, 20
SIZES = ((12_101, 8_192, 64), (12_101, 8_192, 512), (100_000, 2_048, 64), (1_000_000, 256, 64), (1_000_000, 2_048, 64))
"""Items, users, seen items of each user."""


def measure(what: str, items: int, users: int, seen: int, seconds: float) -> dict[str, Any]:
    """Compiles, runs until `seconds` are over, and keeps the fastest run."""
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.standard_normal((items + 1, WIDTH), np.float32))
    states = jnp.asarray(rng.standard_normal((users, WIDTH), np.float32))
    targets = jnp.asarray(rng.integers(1, items + 1, users, np.int32))
    hidden = jnp.asarray(rng.integers(1, items + 1, (users, seen), np.int32))
    # Parameters are arguments, never closed over: constants would be folded, and some fusions go wrong on CPU.
    functions = {
        "top 20": lambda states, table, targets, hidden: masked_topk(states, table, hidden, K),
        "rank": lambda states, table, targets, hidden: masked_rank(states, table, targets, hidden),
        "both": lambda states, table, targets, hidden: (
            masked_topk(states, table, hidden, K),
            masked_rank(states, table, targets, hidden),
        ),
    }
    inputs = (states, table, targets, hidden)
    compiled = jax.jit(functions[what]).lower(*inputs).compile()
    plan = compiled.memory_analysis()
    assert plan is not None
    jax.block_until_ready(compiled(*inputs))
    walls, runs, end, processor = [], 0, time.perf_counter() + seconds, time.process_time()
    while not runs or time.perf_counter() < end:
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*inputs))
        walls.append(time.perf_counter() - begun)
        runs += 1
    return {
        "what": what,
        "items": items,
        "users": users,
        "seen": seen,
        "users_per_second": users / min(walls),
        "users_per_second_median": users / float(np.median(walls)),
        "users_per_processor_second": users * runs / (time.process_time() - processor),
        "temporary_bytes": plan.temp_size_in_bytes,
        "scores_bytes": 4 * users * items,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=3.0, help="for each line (default 3)")
    options.add_argument("--out", type=Path, metavar="FILE.json", help="keep the measurements")
    chosen = options.parse_args()
    disable_faulty_cpu_fusion()
    names = (
        "items",
        "users",
        "seen",
        "what",
        "users/s (best)",
        "users/s (median)",
        "users/CPU-s",
        "temporary",
        "scores",
    )
    table = Table(*(name for name in names), box=None, title=f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores")
    results = []
    for items, users, seen in SIZES:
        for what in ("top 20", "rank", "both"):
            found = measure(what, items, users, seen, chosen.seconds)
            results.append(found | {"load": os.getloadavg()[0]})
            rates = ("users_per_second", "users_per_second_median", "users_per_processor_second")
            sizes = (f"{found[name] / 2**20:,.0f} MiB" for name in ("temporary_bytes", "scores_bytes"))
            table.add_row(f"{items:,}", f"{users:,}", str(seen), what, *(f"{found[r]:,.0f}" for r in rates), *sizes)
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
