"""Adam on a large item table: dense, and on the rows of the batch alone (`optim.sparse`), under a sampled softmax.

    python experiments/benchmarks/sparse_updates.py --items 1000000,10000000

For each catalog: bytes through memory in a step, as the compiled program says; temporary memory; and seconds of a step,
the median over rounds in which dense and sparse take turns on the same batches.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import numpy as np

from recjax.data.batches.views import Batch
from recjax.data.items import bare_items, on_devices
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import SampledSoftmax
from recjax.models.sasrec import SASRec
from recjax.parallel.startup import initialize
from recjax.plan import costs, hlo
from recjax.train.optimiser import Adam
from recjax.train.state import initial_state
from recjax.train.step import make_train_step


def batch(rows: int, length: int, items: int, seed: int) -> Batch:
    """Random histories of full length."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, items + 1, (rows, length + 1)).astype(np.int32)
    ones, places = np.ones((rows, length), np.int32), np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    arrays: Any = (ids[:, :-1], ones, places, ids[:, 1:], ones.astype(np.float32))
    return jax.device_put(Batch(*arrays))


class Side:
    """One optimiser: its compiled step, and a state that goes on from turn to turn."""

    def __init__(self, items: int, options: Any, sparse: bool):
        config = SASRec(
            width=options.width,
            layers=1,
            max_length=options.length,
            loss=SampledSoftmax(options.negatives, share="row"),
        )
        counts = np.broadcast_to(np.int64(1), (items + 1,))
        model = config.build(ItemStats(items, counts))
        optimiser = Adam(sparse=sparse).build(1_000, model.row_tables)
        first = batch(options.rows, options.length, items, 0)
        bare = on_devices(bare_items(items))
        start = jax.jit(lambda key, batch: initial_state(model, optimiser, batch, bare, key, False))
        self.state = start(jax.random.key(0), first)
        step: Any = make_train_step(model, optimiser)
        self.items, self.step = bare, step.lower(self.state, first, bare).compile()
        self.traffic = costs.traffic(hlo.read(self.step.as_text() or ""))
        self.temporary = self.step.memory_analysis().temp_size_in_bytes

    def seconds(self, batches: list[Batch]) -> float:
        """Of a step, over these batches."""
        began = time.perf_counter()
        for one in batches:
            self.state, _ = self.step(self.state, one, self.items)
        jax.block_until_ready(self.state.step)
        return (time.perf_counter() - began) / len(batches)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--items", default="1000000,10000000", help="catalogs, separated by commas")
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--rows", type=int, default=32)
    options.add_argument("--length", type=int, default=32)
    options.add_argument("--negatives", type=int, default=64)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=3, help="steps of a turn")
    chosen = options.parse_args()
    initialize()
    print("| items | Adam | MiB through memory | MiB temporary | ms a step | dense / sparse |")
    print("|---:|---|---:|---:|---:|---:|")
    for items in map(int, chosen.items.split(",")):
        sides = {name: Side(items, chosen, name == "sparse") for name in ("dense", "sparse")}
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(chosen.rounds + 1):
            batches = [batch(chosen.rows, chosen.length, items, number * 100 + seed) for seed in range(chosen.steps)]
            for name in sides if number % 2 else reversed(sides):
                seconds = sides[name].seconds(batches)
                if number:  # the first round warms up
                    taken[name].append(seconds)
        ratio = statistics.median(a / b for a, b in zip(taken["dense"], taken["sparse"], strict=True))
        for name, side in sides.items():
            cells = [f"{size / 2**20:,.1f}" for size in (side.traffic, side.temporary)]
            cells += [f"{1e3 * statistics.median(taken[name]):,.1f}", f"{ratio:.1f}" if name == "sparse" else ""]
            print(f"| {items:,} | {name} | " + " | ".join(cells) + " |", flush=True)
        del sides


if __name__ == "__main__":
    main()
