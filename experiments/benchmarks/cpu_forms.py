"""Forms of products and reductions on one core of a CPU, and what the parts of the library that use them take.

    python experiments/benchmarks/cpu_forms.py

Copied into another checkout it times the same parts there.

Processor time, the median of several calls; a form is timed as XLA compiles it by itself.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before XLA counts them
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])

import contest
import jax
import jax.numpy as jnp
import numpy as np

from recjax.ops.attention.dense import attention
from recjax.ops.items.softmax import full_softmax
from recjax.ops.items.topk import masked_topk
from recjax.parallel.startup import initialize

CALLS = 7


def milliseconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Processor time of a call, compiled."""
    compiled, taken = jax.jit(function), []
    jax.block_until_ready(compiled(*arguments))
    for _ in range(CALLS):
        started = time.process_time()
        jax.block_until_ready(compiled(*arguments))
        taken.append(1e3 * (time.process_time() - started))
    return statistics.median(taken)


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def forms(tokens: int = 1213, items: int = 3456, width: int = 64) -> list[tuple[str, float]]:
    """Products of a chunk of a softmax, in each order of memory, and ways to reduce its rows."""
    x, table, scores = normal(tokens, width), normal(items, width, seed=1), normal(tokens, items, seed=2)
    least = np.float32(-np.inf)
    cases: dict[str, tuple[Any, ...]] = {
        "logits, c d by n d": (lambda x, t: jnp.einsum("cd,nd->cn", x, t), x, table),
        "logits, c d by d n": (jnp.matmul, x, jax.device_put(np.asarray(table).T.copy())),
        "gradient of states": (jnp.matmul, scores, table),
        "gradient of the table, n d": (lambda s, x: jnp.einsum("cn,cd->nd", s, x), scores, x),
        "gradient of the table, d n": (lambda s, x: jnp.einsum("cn,cd->dn", s, x), scores, x),
        "maximum of rows": (lambda s: jnp.max(s, axis=-1), scores),
        "maximum of rows, not of NaN": (
            lambda s: jax.lax.reduce(s, least, lambda a, b: jnp.where(a > b, a, b), (1,)),
            scores,
        ),
    }
    return [(name, milliseconds(*case)) for name, case in cases.items()]


def softmax(tokens: int, items: int) -> float:
    """The full softmax with gradients."""
    x, table = normal(tokens, 64), 0.1 * normal(-(-(items + 1) // 128) * 128, 64, seed=1)
    targets: Any = np.random.default_rng(2).integers(1, items + 1, tokens).astype(np.int32)

    def loss(x: Any, table: Any) -> Any:
        return full_softmax(x, table, None, targets, jnp.ones(tokens), items=items)

    return milliseconds(jax.grad(loss, (0, 1)), x, table)


def ranking(users: int, items: int, rank: Callable[..., Any] = lambda *given: masked_topk(*given, 20)) -> float:
    """Lists, or what `rank` makes of users, item vectors and 64 seen items each."""
    seen = np.random.default_rng(3).integers(1, items, (users, 64)).astype(np.int32)
    return milliseconds(lambda *given: rank(*given), normal(users, 64), normal(items + 1, 64, seed=1), seen)


def parts() -> list[tuple[str, float]]:
    """The full softmax with gradients, lists, and attention."""
    found = [
        (f"softmax, {tokens:,} tokens of {items:,} items", softmax(tokens, items))
        for tokens, items in ((13_343, 3_416), (6_000, 12_101), (2_000, 100_000))
    ]
    found += [
        (f"top 20, {users:,} users of {items:,} items", ranking(users, items))
        for users, items in ((2_048, 12_101), (1_024, 100_000), (8, 100_000))
    ]
    for rows, length in ((70, 200), (8, 2_048)):
        given, segments = (
            [normal(rows, 1, length, 64, seed=seed) for seed in range(3)],
            np.ones((rows, length), np.int32),
        )

        def attend(q: Any, k: Any, v: Any, segments: Any = segments) -> Any:
            return jnp.sum(attention(q, k, v, segments))

        found.append((f"attention, {rows} x {length:,} x 64", milliseconds(attend, *given)))
        found.append(
            (f"attention with gradients, {rows} x {length:,} x 64", milliseconds(jax.grad(attend, (0, 1, 2)), *given))
        )
    return found


def main() -> None:
    initialize()
    shown = contest.table(f"one core, load {contest.load():.1f}", ("what", "processor ms"))
    for name, taken in (*forms(), *parts()):
        shown.add_row(name, f"{taken:.1f}")
    contest.CONSOLE.print(shown)


if __name__ == "__main__":
    main()
