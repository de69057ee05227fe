"""Kernels written in Pallas beside what XLA makes of the same function: equal in interpret mode, compiled for a TPU.

    PYTHONPATH=<folder of libtpu> python experiments/benchmarks/kernels.py --topology v5e:2x2

The library's kernel of S4D's, S5's, LRU's and RG-LRU's recurrence (`recjax/ops/scan/kernel.py`), one of matrices with a
decay a head (Mamba-2, RetNet: products inside a chunk, the state kept on the chip), and one of the full softmax's
statistics with the target's logit (blocks of logits that never reach memory), forwards, each checked against the
library's function. The compiler's own estimates are printed: bytes to and from memory, temporaries. No TPU is there, so
what a kernel wins is an estimate.
"""

import argparse
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import contest
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import SingleDeviceSharding

from recjax.ops.items.softmax import full_softmax, full_softmax_dense
from recjax.ops.scan.elementwise import linear_scan
from recjax.ops.scan.outer import outer_scan
from recjax.plan.topology import find_topology

LOWEST = -1e30


def _outer_kernel(q_ref: Any, k_ref: Any, v_ref: Any, decay_ref: Any, out_ref: Any, state: Any) -> None:
    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        state[...] = jnp.zeros_like(state)

    q, k, v, decay = q_ref[0], k_ref[0], v_ref[0], decay_ref[0]  # [t, k], [t, k], [t, c], [1, t]
    size = q.shape[0]
    product = functools.partial(jnp.dot, preferred_element_type=jnp.float32, precision=jax.lax.Precision.HIGHEST)
    seen = jax.lax.broadcasted_iota(jnp.int32, (size, size), 0) >= jax.lax.broadcasted_iota(jnp.int32, (size, size), 1)
    # Sums up to each position, as a column and as a row: a column in memory would be padded to 128 lanes.
    total = jnp.sum(jnp.where(seen, decay, 0.0), axis=1, keepdims=True)
    across = product(decay, seen.T.astype(jnp.float32))
    weights = jnp.exp(jnp.where(seen, total - across, LOWEST))
    own = product(product(q, k.T) * weights, v)
    out_ref[0] = own + product(q * jnp.exp(total), state[...])
    last = total[-1:]
    state[...] = jnp.exp(last) * state[...] + product((k * jnp.exp(last - total)).T, v)


def outer(q: Any, k: Any, v: Any, log_a: Any, *, chunk: int = 128, interpret: bool = False) -> Any:
    """Readings [b, h, l, c] of S_t = exp(log_a_t) S_{t-1} + k_t v_t^T, decays one a head, [b, h, l]."""
    rows, heads, length, width = q.shape
    channels, chunk = v.shape[-1], min(chunk, length)
    flat = [x.reshape(rows * heads, length, -1) for x in (q, k, v)] + [log_a.reshape(rows * heads, 1, length)]
    specs = [pl.BlockSpec((1, chunk, x.shape[-1]), lambda row, time: (row, time, 0)) for x in flat[:3]]
    specs.append(pl.BlockSpec((1, 1, chunk), lambda row, time: (row, 0, time)))
    flops = 2 * rows * heads * length * (chunk * (width + channels + 1) + 2 * width * channels)
    found = pl.pallas_call(
        _outer_kernel,
        out_shape=jax.ShapeDtypeStruct(flat[2].shape, jnp.float32),
        grid=(rows * heads, length // chunk),
        in_specs=specs,
        out_specs=specs[2],
        scratch_shapes=[pltpu.VMEM((width, channels), jnp.float32)],
        cost_estimate=pl.CostEstimate(
            flops=flops,
            transcendentals=rows * heads * length * (chunk + 2),
            bytes_accessed=4 * (sum(x.size for x in flat) + flat[2].size),
        ),
        interpret=interpret,
    )(*flat)
    return found.reshape(v.shape)


def _softmax_kernel(x_ref: Any, table_ref: Any, target_ref: Any, total_ref: Any, picked_ref: Any, *kept: Any) -> None:
    top, total, picked = kept
    block = pl.program_id(1)

    @pl.when(block == 0)
    def _() -> None:
        top[...] = jnp.full_like(top, LOWEST)
        total[...] = jnp.zeros_like(total)
        picked[...] = jnp.zeros_like(picked)

    logits = jnp.dot(x_ref[...], table_ref[...].T, preferred_element_type=jnp.float32)
    ids = block * table_ref.shape[0] + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    logits = jnp.where(ids > 0, logits, LOWEST)  # row 0 is no item
    greatest = jnp.maximum(top[...], jnp.max(logits, axis=1, keepdims=True))
    share = jnp.sum(jnp.exp(logits - greatest), axis=1, keepdims=True)
    total[...] = total[...] * jnp.exp(top[...] - greatest) + share
    picked[...] += jnp.sum(jnp.where(ids == target_ref[...], logits, 0.0), axis=1, keepdims=True)
    top[...] = greatest
    total_ref[...] = greatest + jnp.log(total[...])
    picked_ref[...] = picked[...]


def softmax(x: Any, table: Any, targets: Any, *, tokens: int = 512, items: int = 512, interpret: bool = False) -> Any:
    """Cross-entropies [t] of tokens [t, d] over rows 1.. of a table [n, d]."""
    count, width, rows = *x.shape, table.shape[0]
    column = pl.BlockSpec((tokens, 1), lambda token, item: (token, 0))
    total, picked = pl.pallas_call(
        _softmax_kernel,
        out_shape=[jax.ShapeDtypeStruct((count, 1), jnp.float32)] * 2,
        grid=(count // tokens, rows // items),
        in_specs=[
            pl.BlockSpec((tokens, width), lambda token, item: (token, 0)),
            pl.BlockSpec((items, width), lambda token, item: (item, 0)),
            column,
        ],
        out_specs=[column, column],
        scratch_shapes=[pltpu.VMEM((tokens, 1), jnp.float32)] * 3,
        cost_estimate=pl.CostEstimate(
            flops=2 * count * rows * width,
            transcendentals=count * rows,
            bytes_accessed=x.nbytes + table.nbytes * (count // tokens) + 12 * count,
        ),
        interpret=interpret,
    )(x, table, targets[:, None])
    return (total - picked)[:, 0]


class Case(NamedTuple):
    """A function as a kernel and as XLA compiles it, and its arguments at a size to check and at one to cost.

    Attributes:
        name: of the row.
        kernel: (arguments, interpret) -> result.
        plain: the library's functions: name -> (arguments -> result).
        sizes: (to check, to cost), each given to `arguments`.
        arguments: (random, size) -> arrays.
    """

    name: str
    kernel: Callable[..., Any]
    plain: dict[str, Callable[..., Any]]
    sizes: tuple[tuple[int, ...], tuple[int, ...]]
    arguments: Callable[..., tuple[Any, ...]]


def _scan_arguments(random: np.random.Generator, rows: int, length: int, width: int) -> tuple[Any, ...]:
    a = random.uniform(0.5, 1.0, (rows, length, width)).astype(np.float32)
    b = random.normal(size=a.shape).astype(np.float32)
    return a, b, random.random((rows, length)) < 0.02


def _outer_arguments(random: np.random.Generator, rows: int, heads: int, length: int, width: int) -> tuple[Any, ...]:
    q, k, v = (random.normal(size=(rows, heads, length, width)).astype(np.float32) for _ in range(3))
    return q, k / width, v, np.log(random.uniform(0.9, 1.0, (rows, heads, length))).astype(np.float32)


def _softmax_arguments(random: np.random.Generator, tokens: int, items: int, width: int) -> tuple[Any, ...]:
    x, table = (random.normal(size=(count, width)).astype(np.float32) for count in (tokens, items))
    return x, table / np.sqrt(width).astype(np.float32), random.integers(1, items, tokens).astype(np.int32)


def _scan(a: Any, b: Any, starts: Any, *, interpret: bool = False) -> Any:
    """By the library's kernel, which is interpreted wherever there is no TPU."""
    return linear_scan(a, b, starts=starts, impl="kernel")[0]


def _softmax_sum(x: Any, table: Any, targets: Any, *, interpret: bool = False) -> Any:
    return jnp.sum(softmax(x, table, targets, interpret=interpret))


def _in_chunks(x: Any, table: Any, targets: Any, *, full: Callable[..., Any] = full_softmax) -> Any:
    return full(x, table, None, targets, jnp.ones(targets.shape), items=table.shape[0] - 1)


CASES = (
    Case(
        "scan, elementwise",
        _scan,
        {"XLA, associative": lambda a, b, starts: linear_scan(a, b, starts=starts, impl="associative")[0]},
        ((2, 512, 128), (64, 2048, 256)),
        _scan_arguments,
    ),
    Case(
        "scan of matrices, a decay a head",
        outer,
        {"XLA, in chunks": lambda q, k, v, log_a: outer_scan(q, k, v, log_a)[0]},
        ((2, 2, 256, 64), (64, 4, 2048, 64)),
        _outer_arguments,
    ),
    Case(
        "softmax with the target's logit",
        _softmax_sum,
        {"XLA, in chunks": _in_chunks, "XLA, all logits": functools.partial(_in_chunks, full=full_softmax_dense)},
        ((512, 1024, 64), (8192, 131_072, 64)),
        _softmax_arguments,
    ),
)


def largest_difference(case: Case) -> float:
    """Of the kernel in interpret mode from the library's first function, over the greatest magnitude."""
    arguments = case.arguments(np.random.default_rng(0), *case.sizes[0])
    plain = next(iter(case.plain.values()))
    found, expected = case.kernel(*arguments, interpret=True), jax.jit(plain)(*arguments)
    return float(jnp.max(jnp.abs(found - expected)) / jnp.max(jnp.abs(expected)))


def costs(function: Callable[..., Any], arguments: tuple[Any, ...], device: Any) -> dict[str, float]:
    """The compiler's estimates for a chip: bytes to and from memory, temporaries."""
    shapes = [
        jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype), sharding=SingleDeviceSharding(device))
        for x in arguments
    ]
    compiled = jax.jit(function).lower(*shapes).compile()
    memory = compiled.memory_analysis()
    return {
        "megabytes": (compiled.cost_analysis() or {}).get("bytes accessed", math.nan) / 1e6,
        "temporary": (memory.temp_size_in_bytes if memory else math.nan) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--topology", default="v5e:2x2", help="one chip of it is compiled for (default: %(default)s)")
    options = parser.parse_args()
    device = find_topology(options.topology).devices[0]
    columns = ("what", "by", "difference", "MB to and from memory", "temporary MB")
    shown = contest.table(f"kernels for one chip of {options.topology}", columns)
    for case in CASES:
        arguments = case.arguments(np.random.default_rng(0), *case.sizes[1])
        for by, function in {**case.plain, "Pallas": case.kernel}.items():
            found = costs(function, arguments, device)
            difference = f"{largest_difference(case):.1e}" if by == "Pallas" else ""
            shown.add_row(case.name, by, difference, *(f"{value:,.0f}" for value in found.values()))
    contest.print_machine(contest.machine())
    contest.CONSOLE.print(shown)


if __name__ == "__main__":
    main()
