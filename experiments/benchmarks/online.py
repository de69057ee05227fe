"""Cost of an event and bytes of a user against the length of the history: states, caches, and histories read again.

    python experiments/benchmarks/online.py --out results/online.json

One encoder of two blocks a mixer, width 64, float32. "state" advances what the mixers keep of each user by one event
(`DotProductModel.advance`), in place; where the mixers keep the history, that is a cache with room for as many events.
"again" reads the whole history for the new event, computing only its last position in the last block. Times are of a
batch of users by turns in one run, divided by the users: the smallest of several. FLOPs are those of the compiled
program.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # also where recjax is not installed

from recjax.data.batches.views import Queries
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.parallel.startup import disable_faulty_cpu_fusion

ITEMS, WIDTH, LAYERS = 3_416, 64, 2
LENGTHS = (50, 200, 1_000, 5_000, 10_000)
STATES = ("attention", "lru", "s5", "rg_lru", "s4d", "retention", "gla", "mamba2", "lightnet", "hstu(times=false)")
AGAIN = ("attention",)


def _model(mixer: str, length: int) -> Any:
    config = NextItem(mixer=mixer, width=WIDTH, layers=LAYERS, heads=2, dropout=0.0, max_length=length)
    return config.build(ItemStats(ITEMS, np.zeros(ITEMS + 1, np.int64)))


def _params(model: Any, length: int) -> Any:
    tokens = jnp.ones((1, min(length, 64)), jnp.int32)
    return jax.jit(lambda key: model.module.init(key, tokens, tokens, tokens)["params"])(jax.random.key(0))


def advance(mixer: str, length: int, users: int, rounds: int) -> dict[str, Any]:
    """A compiled step of one event a user, after `length - 1` events and up to `rounds` more, and what it is measured
    by."""
    room = length + rounds
    model = _model(mixer, room)
    params = _params(model, room)
    state = model.init_state(users, room)
    state = replace(state, length=jnp.full(users, length - 1, jnp.int32), layers=_aged(state.layers, length - 1))
    items = jnp.ones((users, 1), jnp.int32)
    compiled = jax.jit(model.advance, donate_argnums=1).lower(params, state, items).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.init_state(1, length)))
    kept = [state]

    def run() -> Any:
        scores, state = compiled(params, kept.pop(), items)
        kept.append(state)
        return scores, state

    return {"how": "state", "bytes": size, "run": run, "compiled": compiled}


def _aged(layers: Any, events: int) -> Any:
    """States that know of so many events: caches count them; the numbers kept of them do not change the cost."""

    def age(layer: Any) -> Any:
        return replace(layer, length=jnp.full_like(layer.length, events)) if hasattr(layer, "length") else layer

    return tuple(age(layer) for layer in layers)


def again(mixer: str, length: int, users: int) -> dict[str, Any]:
    """A compiled pass over whole histories of `length` events, for the user states alone."""
    model = _model(mixer, length)
    params = _params(model, length)
    items = jnp.asarray(np.random.default_rng(0).integers(1, ITEMS + 1, (users, length), np.int32))
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), items.shape)
    queries = Queries(items, positions, jnp.full(users, length, jnp.int32), jnp.zeros((users, 1), jnp.int32))
    compiled = jax.jit(model.users).lower(params, queries).compile()
    return {"how": "again", "bytes": 4 * length, "run": lambda: compiled(params, queries), "compiled": compiled}


def measure(length: int, names: list[tuple[str, str]], users: int, rounds: int) -> list[dict[str, Any]]:
    """All sides at one length, by turns; says on standard error which one is being compiled."""
    sides = []
    for how, mixer in names:
        few = users if how == "state" else max(1, min(users, 20_000 // length))
        print(f"{length:,} events: {mixer}, {how}", file=sys.stderr)
        side = advance(mixer, length, few, rounds) if how == "state" else again(mixer, length, few)
        jax.block_until_ready(side["run"]())
        sides.append(side | {"mixer": mixer, "length": length, "users": few, "walls": []})
    for turn in range(rounds):
        for side in sides[turn % len(sides) :] + sides[: turn % len(sides)]:
            begun = time.perf_counter()
            jax.block_until_ready(side["run"]())
            side["walls"].append(time.perf_counter() - begun)
    return [
        {
            "mixer": side["mixer"],
            "how": side["how"],
            "length": length,
            "microseconds": 1e6 * min(side["walls"]) / side["users"],
            "bytes": side["bytes"],
            "flops": float((side["compiled"].cost_analysis() or {}).get("flops", 0.0)) / side["users"],
        }
        for side in sides
    ]


def table_of(found: list[dict[str, Any]], lengths: list[int]) -> Table:
    """A row a side: microseconds an event at each length, then bytes of a user."""
    table = Table(box=None, title=f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores")
    for name in ("mixer", "how", *(f"{length:,}" for length in lengths), "bytes/user", "at most", "FLOPs grow"):
        table.add_column(name, justify="left" if name in ("mixer", "how") else "right")
    for side in dict.fromkeys((row["mixer"], row["how"]) for row in found):
        rows = {row["length"]: row for row in found if (row["mixer"], row["how"]) == side}
        first, last = rows[lengths[0]], rows[lengths[-1]]
        grow = last["flops"] / max(first["flops"], 1.0)
        times = (f"{rows[length]['microseconds']:,.1f}" for length in lengths)
        table.add_row(*side, *times, f"{first['bytes']:,}", f"{last['bytes']:,}", f"{grow:,.1f}x")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="of histories (default %(default)s)")
    parser.add_argument("--mixers", default=",".join(STATES), help="whose state advances (default %(default)s)")
    parser.add_argument("--again", default=",".join(AGAIN), help="that read histories again (default %(default)s)")
    parser.add_argument("--users", type=int, default=32, help="of a batch (default 32)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (default 7)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="keep the measurements")
    options = parser.parse_args()
    disable_faulty_cpu_fusion()
    lengths = [int(part) for part in options.lengths.split(",")]
    names = [("state", name) for name in options.mixers.split(",") if name]
    names += [("again", name) for name in options.again.split(",") if name]
    found, done = [], []
    for length in lengths:
        found += measure(length, names, options.users, options.rounds)
        done.append(length)
        Console(width=None if sys.stdout.isatty() else 150).print(table_of(found, done))
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            load = os.getloadavg()[0]
            options.out.write_text(json.dumps([row | {"load": load} for row in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
