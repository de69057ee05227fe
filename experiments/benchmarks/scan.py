"""Ways to run a linear recurrence and its gradient: time, compilation, memory.

    python experiments/benchmarks/scan.py
    python experiments/benchmarks/scan.py --lengths 512,1024,2048,4096,8192

Each side computes the states of h_t = a h_{t-1} + b_t for complex decays that never change (LRU, S5), and the gradients
of what is read from them: of a `scan` alone, or of an LRU's whole `layer` with its matrices. `associative` and `scan`
are what JAX offers, differentiated by JAX; `associative + adjoint` and `sequential` are
`recjax.ops.scan.elementwise`; `fft` is a convolution by Fourier transforms of twice the length.

All sides are compiled first; then they take turns in one process, each round beginning with another one. A ratio is
taken within a round; the tables show its median and, in brackets, the least and the most. CPU time depends less than
wall time on what else the machine is doing, and is shown beside it. Memory is what XLA plans beside arguments and
results, in multiples of the input b.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import contest
import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from recjax.mixers.parts.diagonal import product, real_product
from recjax.ops.scan.elementwise import linear_scan
from recjax.parallel.startup import disable_faulty_cpu_fusion

Recurrence = Callable[[jax.Array, jax.Array], jax.Array]


def plain_associative(a: jax.Array, b: jax.Array) -> jax.Array:
    """`lax.associative_scan`, differentiated by JAX."""
    elements = (jnp.broadcast_to(a, b.shape), b)
    return jax.lax.associative_scan(lambda x, y: (y[0] * x[0], y[0] * x[1] + y[1]), elements, axis=1)[1]


def fft(a: jax.Array, b: jax.Array) -> jax.Array:
    """The convolution with a^0, a^1, ... by transforms of twice the length."""
    length = b.shape[1]
    kernel = jnp.exp(jnp.log(a) * jnp.arange(length)[:, None])
    spectrum = jnp.fft.fft(b, 2 * length, axis=1) * jnp.fft.fft(kernel, 2 * length, axis=0)
    return jnp.fft.ifft(spectrum, axis=1)[:, :length]


SIDES: dict[str, Recurrence] = {
    "sequential": lambda a, b: linear_scan(a, b, impl="sequential")[0],
    "associative + adjoint": lambda a, b: linear_scan(a, b, impl="associative")[0],
    "scan": lambda a, b: linear_scan(a, b, impl="reference")[0],
    "associative": plain_associative,
    "fft": fft,
}


def inputs(kind: str, rows: int, length: int, width: int) -> tuple[jax.Array, ...]:
    """Decays and complex inputs of a scan; or decays, real inputs and the matrices of a layer."""
    random = np.random.default_rng(0)
    decay = random.uniform(0.8, 0.99, width) * np.exp(1j * random.uniform(0, 2 * np.pi, width))
    if kind == "scan":
        b = random.standard_normal((rows, length, width)) + 1j * random.standard_normal((rows, length, width))
        return jnp.asarray(decay, jnp.complex64), jnp.asarray(b, jnp.complex64)
    model = width // 2
    shapes = (rows, length, model), (model, width, 2), (width, model, 2)
    arrays = (jnp.asarray(0.1 * random.standard_normal(shape), jnp.float32) for shape in shapes)
    return jnp.asarray(decay, jnp.complex64), *arrays


def total(kind: str, recurrence: Recurrence, *arrays: jax.Array) -> jax.Array:
    """A scalar of all states, or of all outputs of the layer."""
    if kind == "scan":
        h = recurrence(*arrays)
        return jnp.sum(h.real * h.real + 0.5 * h.imag)
    decay, x, write, read = arrays
    y = real_product(recurrence(decay, product(x, write)), read, jnp.dtype("float32"))
    return jnp.sum(jnp.square(y))


def prepared(kind: str, side: str, arrays: tuple[jax.Array, ...]) -> dict[str, Any]:
    """A side's compiled gradient, the seconds its compilation took, and the memory it plans."""
    step = jax.value_and_grad(partial(total, kind, SIDES[side]), argnums=tuple(range(len(arrays))))
    began = time.process_time()
    compiled = jax.jit(step).lower(*arrays).compile()
    took, plan = time.process_time() - began, compiled.memory_analysis()
    assert plan is not None
    return {"run": compiled, "compile": took, "bytes": plan.temp_size_in_bytes}


def measured(sides: dict[str, Any], arrays: tuple[jax.Array, ...], rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds a step, by the wall and by the CPU, of every round of every side."""
    times: dict[str, Any] = {side: {"wall": [], "cpu": []} for side in sides}
    for number in range(rounds + 1):
        order = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
        for side in order:
            wall, cpu, steps = time.perf_counter(), time.process_time(), 0
            while steps == 0 or time.perf_counter() - wall < seconds:
                jax.block_until_ready(sides[side]["run"](*arrays))
                steps += 1
            if number:  # the first round warms up
                times[side]["wall"].append(1e3 * (time.perf_counter() - wall) / steps)
                times[side]["cpu"].append(1e3 * (time.process_time() - cpu) / steps)
    return times


def spread(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} [{values.min():.2f}, {values.max():.2f}]"


def table(kind: str, length: int, sides: dict[str, Any], times: dict[str, Any], size: int) -> Table:
    """Every side against `sequential`."""
    columns = ("side", "ms", "CPU ms", "time / sequential", "CPU / sequential", "compile, CPU s", "memory / input")
    shown = contest.table(f"{kind}, length {length}", columns)
    base = times["sequential"]
    for side, made in sides.items():
        wall, cpu = (np.asarray(times[side][clock]) for clock in ("wall", "cpu"))
        shown.add_row(
            side,
            f"{np.median(wall):.1f}",
            f"{np.median(cpu):.1f}",
            spread(wall / np.asarray(base["wall"])),
            spread(cpu / np.asarray(base["cpu"])),
            f"{made['compile']:.1f}",
            f"{made['bytes'] / size:.1f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", default="scan,layer")
    parser.add_argument("--lengths", default="2048")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--width", type=int, default=64, help="complex numbers of a state")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a side's turn")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    disable_faulty_cpu_fusion()
    contest.print_machine(contest.machine())
    records = []
    for kind in options.kinds.split(","):
        cpu: dict[str, list[float]] = {}
        lengths = [int(length) for length in options.lengths.split(",")]
        for length in lengths:
            arrays = inputs(kind, options.rows, length, options.width)
            sides = {side: prepared(kind, side, arrays) for side in options.sides.split(",")}
            times = measured(sides, arrays, options.rounds, options.seconds)
            size = 8 * options.rows * length * options.width
            contest.CONSOLE.print(table(kind, length, sides, times, size))
            for side, made in sides.items():
                cpu.setdefault(side, []).append(float(np.median(times[side]["cpu"])))
                facts = {"kind": kind, "length": length, "side": side, "compile": made["compile"]}
                records.append(facts | {"bytes": made["bytes"], "input_bytes": size} | times[side])
        if len(lengths) > 1:
            slopes = {side: np.polyfit(np.log(lengths), np.log(values), 1)[0] for side, values in cpu.items()}
            contest.CONSOLE.print(
                "CPU time grows as length to the power of:", {k: round(float(v), 2) for k, v in slopes.items()}
            )
    contest.save(options.out, {"benchmark": "scan", "machine": contest.machine(), "records": records})


if __name__ == "__main__":
    main()
