"""Peak memory of the full softmax loss with its gradients: in chunks, and with all logits at once.

    python experiments/benchmarks/loss_memory.py

For 12 thousand, 100 thousand and a million items: the temporary memory that XLA plans for the compiled loss and
gradients, which needs no run; and what a process of its own really grows by while it runs them, where that fits.
"Logits" is the one array that the dense loss cannot do without.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import contest

KINDS = ("chunked", "dense")


def one(kind: str, items: int, tokens: int, width: int, run: bool) -> dict[str, Any]:
    """Plans, and if asked runs, one loss in this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from peers.turns import forget_peak, memory_peak

    from recjax.ops.items.softmax import full_softmax, full_softmax_dense
    from recjax.parallel.startup import disable_faulty_cpu_fusion

    disable_faulty_cpu_fusion()
    loss = full_softmax if kind == "chunked" else full_softmax_dense

    def total(hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        return loss(hidden, table, None, targets, weights, items=items)

    shapes = (
        jax.ShapeDtypeStruct((tokens, width), jnp.float32),
        jax.ShapeDtypeStruct((items + 1, width), jnp.float32),
        jax.ShapeDtypeStruct((tokens,), jnp.int32),
        jax.ShapeDtypeStruct((tokens,), jnp.float32),
    )
    compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(*shapes).compile()
    plan = compiled.memory_analysis()
    assert plan is not None
    result = {"temporary": plan.temp_size_in_bytes, "results": plan.output_size_in_bytes}
    if run:
        random = np.random.default_rng(0)
        inputs = (
            jnp.asarray(random.standard_normal((tokens, width), np.float32) * 0.1),
            jnp.asarray(random.standard_normal((items + 1, width), np.float32) * 0.1),
            jnp.asarray(random.integers(1, items + 1, tokens), jnp.int32),
            jnp.ones(tokens, jnp.float32),
        )
        jax.block_until_ready(inputs)
        forget_peak()
        before, began = memory_peak(), time.perf_counter()
        value, _ = jax.block_until_ready(compiled(*inputs))
        result |= {"grown": memory_peak() - before, "seconds": time.perf_counter() - began, "loss": float(value)}
    return result


def available() -> int:
    """Bytes that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def apart(kind: str, items: int, options: Any, run: bool) -> dict[str, Any]:
    """`one` in a process of its own."""
    words = ["--one", kind, "--items", str(items), "--tokens", str(options.tokens), "--width", str(options.width)]
    command = [sys.executable, __file__, *words, *(["--run"] if run else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", default="12000,100000,1000000", help="catalog sizes (%(default)s)")
    parser.add_argument("--tokens", type=int, default=6400, help="positions of a batch (%(default)s: 32 rows of 200)")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--plan-only", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, int(options.items), options.tokens, options.width, options.run)))
        return
    facts = contest.machine()
    contest.print_machine(facts)
    title = f"{options.tokens:,} tokens, width {options.width}: loss and gradients"
    shown = contest.table(title, ("items", "logits", "kind", "planned", "dense / chunked", "measured", "time"))
    records = []
    for items in (int(size) for size in options.items.split(",")):
        found = {}
        for kind in KINDS:
            plan = apart(kind, items, options, run=False)
            # Leave most of the machine to others.
            fits = plan["temporary"] + plan["results"] < available() / 2
            found[kind] = apart(kind, items, options, run=True) if fits and not options.plan_only else plan
        for kind, result in found.items():
            records.append({"items": items, "kind": kind, **result})
            shown.add_row(
                f"{items:,}",
                contest.gigabytes(4 * items * options.tokens),
                kind,
                contest.gigabytes(result["temporary"]),
                "" if kind == "chunked" else f"{result['temporary'] / found['chunked']['temporary']:.1f}",
                contest.gigabytes(result["grown"]) if "grown" in result else "not run",
                f"{result['seconds']:.1f} s" if "seconds" in result else "",
            )
    contest.CONSOLE.print(shown)
    contest.save(options.out, {"benchmark": "loss_memory", "machine": facts, "records": records})


if __name__ == "__main__":
    main()
