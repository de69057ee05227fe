"""Decoding alone, given logits: exact, beams of several widths, and a Python walker over nested dicts.

    python experiments/benchmarks/decoding.py --items 10000 100000 1000000

Items have 4 codes of one vocabulary of 15,360, drawn in clusters: two items of a cluster often share codes. The logits
of a user are noise plus a bump at the codes of each of a few items of the history, whose ids are masked. "Overlap" is
the share of the exact 10 best items that a method finds, "same first" the share of users whose first item is the same.

The walker is the plain kind: it tries 10 first codes and 5 codes below each of the best 20 prefixes, with a mask of the
whole vocabulary at each step, keeps one item of each tuple and does not mask the history, so it is compared with the
exact list without masks. "Ready" is the time to sort the catalog, or to fill the dicts.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contest
import jax
import jax.numpy as jnp
import numpy as np

from recjax.decode.beam import agreement, beam_topk
from recjax.decode.exact import exact_topk
from recjax.decode.trie import build_trie
from recjax.parallel.startup import disable_faulty_cpu_fusion

SLOTS, K, HISTORY = 4, 10, 20
TEMPERATURE, FIRST, BELOW, KEPT = 0.1, 10, 5, 20
"""Of the walker: temperature, codes tried in the first slot and below each prefix, prefixes kept."""


def catalog(rng: np.random.Generator, items: int, size: int) -> np.ndarray:
    """int32 [items + 1, slots]: clusters have 12 codes for each slot, from which four fifths of codes are drawn."""
    popular = 1 / (np.arange(size) + 50.0) ** 0.7
    popular /= popular.sum()
    clusters = max(1, items // 50)
    member = rng.integers(clusters, size=items + 1)
    codes = np.zeros((items + 1, SLOTS), np.int32)
    for slot in range(SLOTS):
        names = rng.permutation(size)  # a code is popular in one slot only
        palette = rng.choice(size, (clusters, 12), p=popular)
        inside = palette[member, rng.integers(12, size=items + 1)]
        codes[:, slot] = names[np.where(rng.random(items + 1) < 0.8, inside, rng.choice(size, items + 1, p=popular))]
    codes[0] = 0
    return codes


def questions(rng: np.random.Generator, codes: np.ndarray, users: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [users, slots, size] and histories int32 [users, HISTORY]."""
    logits = rng.standard_normal((users, SLOTS, size), np.float32)
    history = rng.integers(1, len(codes), (users, HISTORY)).astype(np.int32)
    for slot in range(SLOTS):
        bumps = rng.exponential(2.0, (users, 5)).astype(np.float32)
        np.add.at(logits[:, slot], (np.arange(users)[:, None], codes[history[:, :5], slot]), bumps)
    return logits, history


def nested(codes: np.ndarray) -> dict[int, Any]:
    """The catalog as dicts in dicts; of items that share a tuple, the last."""
    root: dict[int, Any] = {}
    for item, (*path, last) in enumerate(codes[1:].tolist(), start=1):
        node = root
        for code in path:
            node = node.setdefault(code, {})
        node[last] = item
    return root


def walk(logits: np.ndarray, root: dict[int, Any]) -> list[int]:
    """The items that the walker finds for one user: logits [slots, size]."""
    scaled = logits / TEMPERATURE
    top = scaled.max(axis=1, keepdims=True)
    logs = scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
    beams: list[tuple[float, Any]] = [(0.0, root)]
    for slot in range(SLOTS):
        grown = []
        tried = BELOW if slot else FIRST
        for score, node in beams:
            allowed = list(node)
            masked = np.full(logs.shape[1], -1e7, np.float32)
            masked[allowed] = logs[slot, allowed]
            for code in np.argpartition(-masked, tried)[:tried].tolist():
                if code in node:
                    grown.append((score + float(masked[code]), node[code]))
        beams = sorted(grown, key=lambda beam: -beam[0])[:KEPT]
    return ([item for _, item in beams] + [0] * K)[:K]


def latencies(one: Callable[[int], Any], users: int, seconds: float) -> np.ndarray:
    """Seconds of each call with one user, for `seconds` or 1,000 calls; at least 5."""
    one(0)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 5 or (time.perf_counter() < end and len(taken) < 1_000):
        begun = time.perf_counter()
        one(len(taken) % users)
        taken.append(time.perf_counter() - begun)
    return np.array(taken)


def throughput(batch: Callable[[], Any], users: int, seconds: float) -> dict[str, float]:
    """Users a second, by the clock and by processor time; the fastest of the runs in `seconds`."""
    batch()
    walls, runs, end, processor = [], 0, time.perf_counter() + seconds, time.process_time()
    while not runs or time.perf_counter() < end:
        begun = time.perf_counter()
        batch()
        walls.append(time.perf_counter() - begun)
        runs += 1
    processor = time.process_time() - processor
    return {"users_per_second": users / min(walls), "users_per_processor_second": users * runs / max(processor, 1e-9)}


def measure(items: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All methods on one catalog."""
    rng = np.random.default_rng(options.seed)
    codes = catalog(rng, items, options.size)
    # Fewer users on large catalogs, or exact decoding of a batch takes minutes.
    users = min(options.users, max(8, 64_000_000 // items))
    logits, history = questions(rng, codes, users, options.size)
    begun = time.perf_counter()
    trie = jax.block_until_ready(build_trie(codes, (options.size,) * SLOTS))
    ready = time.perf_counter() - begun
    table, device_logits, seen = jnp.asarray(codes), jnp.asarray(logits), jnp.asarray(history)

    def exact(logits: Any, seen: Any) -> tuple[Any, Any]:
        return exact_topk(logits, table, seen, K)

    def beam(width: int) -> Callable[[Any, Any], tuple[Any, Any]]:
        return lambda logits, seen: beam_topk(logits, trie, K, beam=width, seen=seen)

    truth = np.asarray(exact(device_logits, seen)[0])
    facts = {"items": items, "users": users, "tuples": len(np.unique(codes[1:], axis=0)) if items <= 10**6 else None}
    records = []
    for name, method in (("exact", exact), *((f"beam {width}", beam(width)) for width in options.beams)):
        lists = np.asarray(method(device_logits, seen)[0])
        taken = latencies(
            lambda user, method=method: jax.block_until_ready(
                method(logits[user : user + 1], history[user : user + 1])
            ),
            users,
            options.seconds,
        )
        rates = throughput(
            lambda method=method: jax.block_until_ready(method(device_logits, seen)), users, options.seconds
        )
        built = 0.0 if name == "exact" else ready
        records.append(record(facts, name, taken, rates, built, agreement(lists, truth, K)))
    if items <= options.walker:
        begun = time.perf_counter()
        root = nested(codes)
        built = time.perf_counter() - begun
        lists = np.array([walk(row, root) for row in logits])
        taken = latencies(lambda user: walk(logits[user], root), users, options.seconds)
        rates = throughput(lambda: [walk(row, root) for row in logits], users, options.seconds)
        unmasked = np.asarray(exact(device_logits, jnp.zeros_like(seen))[0])
        records.append(record(facts, "dict walker", taken, rates, built, agreement(lists, unmasked, K)))
    return records


def record(
    facts: dict[str, Any], method: str, taken: np.ndarray, rates: Any, built: float, agreed: Any
) -> dict[str, Any]:
    return {
        **facts,
        "method": method,
        **rates,
        "p50_ms": 1e3 * float(np.percentile(taken, 50)),
        "p99_ms": 1e3 * float(np.percentile(taken, 99)),
        "calls": len(taken),
        "ready_seconds": built,
        "overlap": agreed.overlap,
        "top1": agreed.top1,
        "load": contest.load(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--size", type=int, default=15_360, help="vocabulary (%(default)s)")
    parser.add_argument("--beams", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--users", type=int, default=256, help="in a batch, fewer on large catalogs (%(default)s)")
    parser.add_argument("--walker", type=int, default=1_000_000, help="largest catalog for the dicts (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep the measurements")
    options = parser.parse_args()
    disable_faulty_cpu_fusion()
    machine = contest.machine()
    contest.print_machine(machine)
    columns = ("items", "method", "users/s", "users/CPU-s", "p50 ms", "p99 ms", "ready s", f"overlap@{K}", "same first")
    shown = contest.table(f"{SLOTS} codes of {options.size:,}, top {K}, histories of {HISTORY} masked", columns)
    records = []
    for items in options.items:
        for found in measure(items, options):
            records.append(found)
            rates = (f"{found[name]:,.0f}" for name in ("users_per_second", "users_per_processor_second"))
            times = (f"{found[name]:.2f}" for name in ("p50_ms", "p99_ms", "ready_seconds"))
            agreed = (f"{found[name]:.3f}" for name in ("overlap", "top1"))
            shown.add_row(f"{items:,}", found["method"], *rates, *times, *agreed)
        contest.save(options.out, {"benchmark": "decoding", "machine": machine, "records": records})
    contest.CONSOLE.print(shown)


if __name__ == "__main__":
    main()
