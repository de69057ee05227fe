"""Cost of a mixer as histories grow: a training step of every mixer from 512 to 8,192 events, and the exponent.

    python experiments/benchmarks/length.py --out results/length.json
    python experiments/benchmarks/length.py --mixers attention,lru --lengths 512,1024,2048

One mixer alone, no feed-forward network, float32, one row that is one history: the gradient of a weighted sum of its
outputs with respect to its parameters and its input. All lengths of a mixer are compiled first, then take turns. The
exponent is the slope of log cost over log length; of CPU time also between the two greatest lengths, where what grows
slowly (projections, calls) counts least. Products are those of the compiled program's matrix products, its loops
counted, and left out where a loop's length is only known as it runs. Memory is what XLA plans beside arguments and
results.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import contest
import jax
import jax.numpy as jnp
import numpy as np

from recjax.mixers.mixer import SeqContext
from recjax.mixers.pattern import pattern
from recjax.parallel.startup import disable_faulty_cpu_fusion
from recjax.plan.costs import products
from recjax.plan.hlo import read

EXPECTED = {
    "attention": "2",
    "attention(positions=rotary)": "2",
    "attention(positions=rotary; window=128)": "1",
    "hstu(max_length={length})": "2",
    "static_mixing": "2",
    "memory": "1 and a choice among length / 32 blocks",
    "performer": "1",
    "reformer": "1 at a fixed bucket size; 2 at a fixed number of buckets",
    "linformer(length={length})": "1",
    "linear_attention": "1",
    "retention": "1",
    "gla": "1",
    "mamba2": "1",
    "lightnet": "1",
    "lru": "1",
    "s5": "1",
    "rg_lru": "1",
    "s4": "1 and a logarithm",
    "s4d": "1 and a logarithm",
}
"""Pattern of a mixer -> the exponent its mathematics promises."""


def step(name: str, length: int, width: int, heads: int) -> dict[str, Any]:
    """A compiled training step of one mixer, and what the compiler says of it."""
    (config,) = pattern(name.format(length=length), heads=heads)
    causal = config.capabilities.causal
    module: Any = config.build(width=width, causal=causal, dtype=jnp.dtype("float32"), name="mixer")
    random = np.random.default_rng(0)
    x, weight = (jnp.asarray(random.standard_normal((1, length, width)), jnp.float32) for _ in range(2))
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    context = SeqContext(jnp.ones_like(positions), positions, 3_600 * positions)
    params = jax.jit(module.init)(jax.random.key(0), x, context)

    def loss(params: Any, x: jax.Array, context: SeqContext, weight: jax.Array) -> jax.Array:
        return jnp.sum(module.apply(params, x, context) * weight)

    arguments = params, x, context, weight
    began = time.process_time()
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments).compile()
    took, plan = time.process_time() - began, compiled.memory_analysis()
    assert plan is not None
    program = read(compiled.as_text() or "")
    return {
        "run": lambda: jax.block_until_ready(compiled(*arguments)),
        "compile": took,
        "products": 0 if program.unknown else products(program)[0],
        "bytes": plan.temp_size_in_bytes,
    }


def measured(name: str, lengths: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """Costs of one mixer at all lengths; times are the least of all rounds, in ms of CPU and of the wall."""
    steps = {length: step(name, length, options.width, options.heads) for length in lengths}
    cpu: dict[int, list[float]] = {length: [] for length in lengths}
    wall: dict[int, list[float]] = {length: [] for length in lengths}
    for number in range(options.rounds + 1):  # the first round warms up
        for length, made in steps.items():
            began, used, calls = time.perf_counter(), time.process_time(), 0
            while calls == 0 or (number and time.perf_counter() - began < options.seconds):
                made["run"]()
                calls += 1
            if number:
                wall[length].append(1e3 * (time.perf_counter() - began) / calls)
                cpu[length].append(1e3 * (time.process_time() - used) / calls)
    return {
        "mixer": name.partition("(max_length")[0].partition("(length")[0],
        "expected": EXPECTED.get(name, ""),
        "lengths": lengths,
        "cpu": [min(cpu[length]) for length in lengths],
        "wall": [min(wall[length]) for length in lengths],
        **{key: [steps[length][key] for length in lengths] for key in ("products", "bytes", "compile")},
    }


def exponent(lengths: list[int], costs: list[float]) -> float:
    """Slope of log cost over log length; NaN where something costs nothing."""
    if min(costs) <= 0:
        return float("nan")
    return float(np.polyfit(np.log(lengths), np.log(costs), 1)[0])


def table_of(records: list[dict[str, Any]], lengths: list[int]) -> Any:
    columns = ["mixer", *(f"CPU ms {length:,}" for length in lengths), "exponent", "last doubling", "products'"]
    shown = contest.table("a training step of one mixer", [*columns, "memory's", "compile, CPU s", "expected"])
    for record in records:
        fits = [exponent(lengths, record["cpu"]), exponent(lengths[-2:], record["cpu"][-2:])]
        fits += [exponent(lengths, record["products"]), exponent(lengths, record["bytes"])]
        shown.add_row(
            record["mixer"],
            *(f"{value:,.1f}" for value in record["cpu"]),
            *("-" if np.isnan(value) else f"{value:.2f}" for value in fits),
            f"{max(record['compile']):.1f}",
            record["expected"],
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", help="patterns of one mixer, separated by commas (default: all)")
    parser.add_argument("--lengths", default="512,1024,2048,4096,8192", help="two or more (default %(default)s)")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each length (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep the measurements")
    options = parser.parse_args()
    lengths = sorted(int(part) for part in options.lengths.split(","))
    if len(lengths) < 2:
        parser.error("an exponent needs two lengths or more")
    disable_faulty_cpu_fusion()
    contest.print_machine(contest.machine())
    records = []
    for name in options.mixers.split(",") if options.mixers else EXPECTED:
        records.append(measured(name, lengths, options))
        print(f"{name}: {[round(value, 1) for value in records[-1]['cpu']]} CPU ms", file=sys.stderr, flush=True)
        contest.save(options.out, {"benchmark": "length", "machine": contest.machine(), "records": records})
    contest.CONSOLE.print(table_of(records, lengths))


if __name__ == "__main__":
    main()
