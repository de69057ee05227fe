"""Seconds and memory of counting evidence, and of one more event.

    python experiments/benchmarks/evidence_counts.py
    python experiments/benchmarks/evidence_counts.py --events 1000000

Synthetic logs: users of ten events each, items drawn by a power law. Measured are the features of the evidence
model that count events, and events added one by one to what has been counted.
"""

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
import polars as pl

from recjax.data.batches.histories import Histories
from recjax.data.dataset import Dataset
from recjax.data.event_counts import EventCounts
from recjax.data.features.feature import Source
from recjax.data.items import Relation, bare_items
from recjax.train.pretrained import evidence_config

LENGTH = 10


def log(events: int, items: int, seed: int = 0) -> Histories:
    """Histories of ten events."""
    random = np.random.default_rng(seed)
    users = events // LENGTH
    drawn = np.minimum(items * random.random(users * LENGTH) ** 2, items - 1).astype(np.int32) + 1
    return Histories.concatenated(np.full(users, LENGTH), drawn, np.zeros(len(drawn), np.int64), np.arange(users))


def catalog(items: int) -> Dataset:
    """A catalog without texts."""
    names = [f"i{item}" for item in range(1, items + 1)]
    none = np.zeros(0, np.int64)
    texts = pl.DataFrame({"item_id": names})
    return Dataset("log", [], ["", *names], np.zeros(1, np.int64), none.astype(np.int32), none, None, texts, {}, "log")


def peak() -> float:
    """GB that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    histories = log(options.events, options.items)
    source = Source(catalog(options.items), histories, bare_items(options.items))
    users = len(histories)
    print(f"{options.events:,} events of {users:,} users, {options.items:,} items; {peak():.2f} GB so far")
    none = np.zeros((options.items + 1, 1), np.int32)
    text = Relation(none, none.astype(np.float32))  # pyright: ignore[reportArgumentType]
    source = replace(source, items=source.items.adding({"text": text}))
    whole = 0.0
    for name, feature in evidence_config("log").items.items():
        if name == "text":
            continue
        begun, cpu = time.perf_counter(), time.process_time()
        feature.make(source, {})
        seconds, busy = time.perf_counter() - begun, time.process_time() - cpu
        whole += busy
        print(f"{name}: {seconds:.1f} s ({busy:.1f} s of processors), at most {peak():.2f} GB", flush=True)
    print(f"all: {whole:.1f} s of processors")
    few = histories.take(np.arange(min(len(histories), 10_000)))
    counts = EventCounts(few, options.items)
    random = np.random.default_rng(1)
    users, items = random.integers(0, len(few), 5_000).tolist(), random.integers(1, options.items, 5_000).tolist()
    begun = time.perf_counter()
    for user, item in zip(users, items, strict=True):
        counts.add(user, item)
    print(f"one more event: {(time.perf_counter() - begun) / len(users) * 1e6:.0f} microseconds")


if __name__ == "__main__":
    main()
