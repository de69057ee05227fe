"""Users ranked a second by the evidence model, and memory of an item, against the size of the catalog.

    python experiments/benchmarks/evidence_ranking.py
    python experiments/benchmarks/evidence_ranking.py --items 12000 --users 2000

The published weights on links at random, as many as the model reads of a real catalog; histories of sixteen events, the
whole catalog ranked for the rank of one target. Compilation is left out: a batch goes before.
"""

import argparse
import time

import jax
import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.items import Relation, bare_items, on_devices
from recjax.data.splits import Examples
from recjax.evaluate.ranking import rank_users
from recjax.models.model import ItemStats
from recjax.parallel.mesh import MeshShape
from recjax.train.pretrained import evidence_config, weights

LENGTH = 16


def examples(users: int, items: int) -> Examples:
    """Random histories with a target each."""
    random = np.random.default_rng(1)
    events = random.integers(1, items + 1, users * LENGTH).astype(np.int32)
    times = np.tile(np.arange(LENGTH) * 86_400, users)
    histories = Histories.concatenated(np.full(users, LENGTH), events, times, np.arange(users))
    targets = random.integers(1, items + 1, users).astype(np.int32)
    return Examples(histories, targets, np.full(users, LENGTH * 86_400))


def measured(n_items: int, users: int) -> tuple[float, float]:
    """Users a second, and bytes of an item."""
    config, random = evidence_config("none"), np.random.default_rng(0)
    features = {}
    for name, feature in config.items.items():
        shape = feature.shape()
        if isinstance(shape, int):
            ids = random.integers(1, n_items + 1, (n_items + 1, shape), np.int32)
            values = random.random(ids.shape, np.float32)
            if name == "text":
                values /= values.sum(axis=1, keepdims=True)
            features[name] = Relation(ids, values)  # pyright: ignore[reportArgumentType]
        else:
            features[name] = 1.0 + random.random((n_items + 1, *shape), np.float32)
    with jax.set_mesh(MeshShape().build()):
        items = on_devices(bare_items(n_items).adding(features))
        model = config.model.build(ItemStats(n_items, np.ones(n_items + 1, np.int64)))
        asked = examples(users, n_items)
        rank_users(model, weights(), asked.take(np.arange(min(users, 256))), config.data.view, str, items)
        begun = time.perf_counter()
        rank_users(model, weights(), asked, config.data.view, str, items)
        speed = users / (time.perf_counter() - begun)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((items.columns, items.relations)))
    return speed, size / n_items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", nargs="+", type=int, default=(12_000, 100_000, 1_000_000))
    parser.add_argument("--users", type=int, default=1_000)
    options = parser.parse_args()
    print("| items | users/s | bytes an item |\n|---|---|---|")
    for n_items in options.items:
        speed, size = measured(n_items, options.users)
        print(f"| {n_items:,} | {speed:,.0f} | {size:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
