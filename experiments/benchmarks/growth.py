"""Cost as the work grows, one table: rows of a batch, length, items, events counted, devices.

    python experiments/benchmarks/growth.py

Processor time on one core, the median of several calls, at sizes that grow by the same factor each; the exponent is the
slope of the logarithms, over all sizes and over the last two. By devices it is what one of them sends in a step, from
the compiled program, and held, at as many rows a device.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import contest
import cpu_forms  # leaves one core to XLA: to be imported first
import evidence_counts
import jax
import numpy as np
import scaling

from recjax import recipes
from recjax.config import override_all
from recjax.data.batches.views import Batch
from recjax.data.event_counts import EventCounts
from recjax.data.items import bare_items
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BCE
from recjax.models.sasrec import SASRec
from recjax.ops.items.topk import masked_rank
from recjax.parallel.mesh import MeshShape
from recjax.parallel.startup import initialize
from recjax.train.optimiser import Adam
from recjax.train.state import initial_state
from recjax.train.step import make_train_step

WIDTH, ITEMS, CALLS = 64, 12_101, 5
CATALOGS = (12_500, 50_000, 200_000)
Work = Callable[[int], float]
"""Milliseconds at a size."""


def step(rows: int, length: int) -> float:
    """A training step of SASRec with one binary negative, every row full."""
    random = np.random.default_rng(0)
    ids = random.integers(1, ITEMS + 1, (rows, length), dtype=np.int32)
    places = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape).copy()
    ones = np.ones(ids.shape, np.int32)
    batch = Batch(*jax.device_put((ids, ones, places, np.roll(ids, -1, 1), ones.astype(np.float32))))
    stats = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64))
    model = SASRec(width=WIDTH, layers=2, heads=1, dropout=0.1, max_length=length, loss=BCE()).build(stats)
    optimiser, items = Adam(learning_rate=1e-3).build(1), bare_items(ITEMS)
    with jax.set_mesh(MeshShape().build(jax.devices()[:1])):
        state: Any = initial_state(model, optimiser, batch, items, jax.random.key(0), False)
        compiled: Any = make_train_step(model, optimiser)
        taken = []
        for _ in range(CALLS + 1):
            started = time.process_time()
            state, _ = jax.block_until_ready(compiled(state, batch, items))
            taken.append(1e3 * (time.process_time() - started))
    return float(np.median(taken[1:]))


def rank(users: Any, table: Any, seen: Any) -> Any:
    return masked_rank(users, table, seen[:, 0], seen)


def counted(events: int, items: int = 100_000) -> float:
    histories = evidence_counts.log(events, items)
    started = time.process_time()
    EventCounts(histories, items)
    return 1e3 * (time.process_time() - started)


def sent(devices: int, axes: tuple[str, ...]) -> float:
    """MiB that a device sends in a step of SASRec with 100,000 items, eight rows a device of the data axis."""
    mesh = {"data": 1, "model": 1} | {axis: devices for axis in axes}
    settings = [f"data.rows={8 * mesh['data']}", f"mesh.data={mesh['data']}", f"mesh.model={mesh['model']}"]
    config = override_all(recipes.read("sasrec_ml1m").config, settings)
    return scaling.point(config, f"cpu:{devices}", 100_000).sent / 2**20


CASES: list[tuple[str, str, Sequence[int], Work]] = [
    ("training step, length 200", "rows", (16, 32, 64, 128), lambda rows: step(rows, 200)),
    ("training step, 4 rows", "length", (256, 512, 1_024, 2_048), lambda length: step(4, length)),
    ("training step, 8,192 positions", "length", (64, 256, 1_024, 4_096), lambda length: step(8_192 // length, length)),
    (
        "full softmax with gradients, 1,000 tokens",
        "items",
        (12_500, 50_000, 200_000),
        lambda n: cpu_forms.softmax(1_000, n),
    ),
    ("top 20, 1,024 users", "items", CATALOGS, lambda n: cpu_forms.ranking(1_024, n)),
    ("rank, 1,024 users", "items", CATALOGS, lambda n: cpu_forms.ranking(1_024, n, rank)),
    ("evidence counted, 100,000 items", "events", (125_000, 500_000, 2_000_000), counted),
    ("MiB sent by a device, data axis", "devices", (2, 4, 8), lambda n: sent(n, ("data",))),
    ("MiB sent by a device, model axis", "devices", (2, 4, 8), lambda n: sent(n, ("model",))),
]


def slope(sizes: Sequence[int], costs: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)  # what is timed takes one of them
    initialize()
    shown = contest.table(f"one core, load {contest.load():.1f}", ("work", "by", "sizes", "ms", "exponent", "last two"))
    for work, by, sizes, cost in CASES:
        costs = [cost(size) for size in sizes]
        print(f"{work}: {', '.join(f'{one:,.1f}' for one in costs)}", flush=True)
        found = (f"{slope(sizes, costs):.2f}", f"{slope(sizes[-2:], costs[-2:]):.2f}")
        shown.add_row(work, by, ", ".join(f"{n:,}" for n in sizes), ", ".join(f"{c:,.1f}" for c in costs), *found)
    contest.CONSOLE.print(shown)


if __name__ == "__main__":
    main()
