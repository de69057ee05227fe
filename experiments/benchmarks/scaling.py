"""How a sharded step scales, read from compiled programs: bytes held and bytes sent a device, never time.

    python experiments/benchmarks/scaling.py layout sasrec_ml1m        # shares of 1 to 256 TPUs, nothing compiled
    python experiments/benchmarks/scaling.py host                      # 1 to 8 host devices, weak and strong
    python experiments/benchmarks/scaling.py tpu sasrec_ml1m ...       # 1 to 1,024 TPU v5e, needs libtpu but no TPU

The least that a device has to send, for data parallelism with tables cut by rows over the model axis and rings for all
exchanges, with n devices along data and m along model: gradients of tables, 2 (n - 1) / n of a shard; gradients of the
rest, 2 (nm - 1) / nm of it; and for the vectors V of the positions of n-th part of the batch, which every owner of rows
has to see and to send, (m - 1) / m of V for each time they cross: looked up, their gradients, into the softmax, and
its gradients out of it.
"""

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from recjax import recipes
from recjax.config import RunConfig, override_all
from recjax.models.objectives import FullSoftmax
from recjax.parallel.startup import initialize
from recjax.plan.estimate import local_bytes
from recjax.plan.plan import plan
from recjax.plan.program import abstract_inputs
from recjax.plan.topology import find_topology

TABLES = ("items", "output")
TOPOLOGIES = {1: "v5e:1x1", 8: "v5e:2x4", 64: "v5e:8x8", 256: "v5e:16x16", 1024: "v5e:16x16"}
"""A pod of v5e has 256 chips; 1,024 are four of them, joined by the data centre's network."""


@dataclass(frozen=True)
class Point:
    """One mesh.

    Attributes:
        devices: of it.
        mesh: devices along data and model.
        rows: of a batch.
        table: bytes of item tables a device.
        moments: bytes of optimiser state a device.
        logits: bytes of the logits that a device would hold without chunks: what the softmax computes.
        sent: bytes that a device sends in a step.
        least: bytes that it has to send.
        total: bytes in use at once, at most.
        times: seconds, where all overlaps and where no exchange does.
        fits: on the device.
    """

    devices: int
    mesh: tuple[int, int]
    rows: int
    table: int
    moments: int
    logits: int
    sent: int
    least: int
    total: int
    times: tuple[float, float]
    fits: bool


def least(config: RunConfig, table: int, dense: int, mesh: tuple[int, int]) -> int:
    """Bytes that a device has to send in a step: see above.

    Args:
        config: of the run.
        table: bytes of all item tables, whole.
        dense: bytes of the other parameters.
        mesh: devices along data and model.
    """
    data, model = mesh
    length = config.data.row_length or config.data.view.max_length
    vectors = config.data.rows // data * length * config.model.width * 4
    crossings = 2  # looked up, and back
    full = isinstance(config.model.loss, FullSoftmax)
    if not full:
        crossings *= 1 + (1 + config.model.loss.negatives / length)  # targets and a row's negatives are looked up too
    else:
        crossings += 2  # into the softmax, and back
    both = data * model
    return round(
        2 * (data - 1) / data * table / model
        + 2 * (both - 1) / both * dense
        + crossings * (model - 1) / model * vectors
    )


def point(config: RunConfig, topology: str, items: int, slices: int = 1) -> Point:
    """Compiles a configuration's step for a mesh."""
    found = plan(config, topology, slices=slices, items=items, ranking=False, advise=False)
    data, model = found.mesh["data"], found.mesh["model"]
    tables, dense = _sizes(config, items)
    length = config.data.row_length or config.data.view.max_length
    return Point(
        devices=data * model,
        mesh=(data, model),
        rows=config.data.rows,
        table=tables // model,
        moments=found.training.memory["optimiser"],
        logits=config.data.rows // data * length * (tables // config.model.width // model),
        sent=sum(one.count * one.sent for one in found.training.collectives),
        least=least(config, tables, dense, (data, model)),
        total=found.training.total,
        times=(found.training.best, found.training.worst),
        fits=found.training.fits,
    )


def _sizes(config: RunConfig, items: int) -> tuple[int, int]:
    """Bytes of item tables and of the other parameters, whole."""
    alone: Any = override_all(config, ["mesh.data=1", "mesh.model=1"])
    mesh: Mesh = alone.mesh.build(jax.devices()[:1])
    sizes = {
        jax.tree_util.keystr(path, simple=True): 4 * math.prod(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(abstract_inputs(alone, items, mesh).state.params)
    }
    tables = sum(size for name, size in sizes.items() if name in TABLES)
    return tables, sum(sizes.values()) - tables


def table(points: Iterable[Point], timed: bool) -> str:
    """A Markdown table, a line a mesh."""
    names = ["devices", "mesh", "rows", "table", "moments", "logits", "sent", "least", "sent / least"]
    lines = ["| " + " | ".join(names + (["in use", "a step"] if timed else [])) + " |"]
    lines.append("|" + "---:|" * (len(names) + 2 * timed))
    for one in points:
        cells = [f"{one.devices:,}", f"{one.mesh[0]} x {one.mesh[1]}", f"{one.rows:,}"]
        cells += [_size(size) for size in (one.table, one.moments, one.logits, one.sent, one.least)]
        cells.append(f"{one.sent / one.least:.2f}" if one.least else "-")
        if timed:
            first, last = (f"{1e3 * seconds:,.1f}" for seconds in one.times)
            cells += [_size(one.total), f"{first} to {last} ms" if one.fits else "does not fit"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f}" if size < 2**30 else f"{size / 2**20:,.0f}"


def host(recipe: str, items: int, settings: list[str]) -> None:
    """Weak scaling (rows grow with the data axis) and strong scaling (rows stay), along each axis."""
    config = recipes.read(recipe).config
    rows = 64
    for title, weak in (("weak", True), ("strong", False)):
        points = []
        for data, model in ((1, 1), (2, 1), (4, 1), (8, 1), (1, 8), (2, 4), (4, 2)):
            size = rows * data // 8 if weak else rows
            changed = [*settings, f"data.rows={size}", f"mesh.data={data}", f"mesh.model={model}"]
            points.append(point(override_all(config, changed), f"cpu:{data * model}", items))
        print(f"{title}, {recipe}, {items:,} items, MiB a device\n\n{table(points, timed=False)}\n")


def tpu(recipe: str, items: int, settings: list[str], rows: int, model: int) -> None:
    """From one TPU v5e to four pods; the batch grows with the data axis, the table is cut as far as `model` allows."""
    config, points = recipes.read(recipe).config, []
    for devices, topology in TOPOLOGIES.items():
        across = min(model, devices)
        size = rows * devices // across
        changed = [*settings, f"data.rows={size}", f"mesh.data={devices // across}", f"mesh.model={across}"]
        slices = 4 if devices == 1024 else 1
        points.append(point(override_all(config, changed), topology, items, slices))
        print(table(points[-1:], timed=True).splitlines()[-1], flush=True)
    print(f"\n{recipe}, {items:,} items, MiB a device\n\n{table(points, timed=True)}\n")


def layout(recipe: str, items: int, settings: list[str]) -> None:
    """What a device holds where the table is cut over all devices: by the layouts alone, nothing is compiled."""
    print(f"{recipe}, {items:,} items, MiB a device\n\n| devices | table | moments | logits |\n|---:|---:|---:|---:|")
    for devices in (1, 8, 64, 256):
        config: Any = override_all(recipes.read(recipe).config, [*settings, "mesh.data=1", f"mesh.model={devices}"])
        mesh = config.mesh.build(find_topology(TOPOLOGIES[devices]).devices)
        state = abstract_inputs(config, items, mesh).state
        tables = {name: leaf for name, leaf in state.params.items() if name in TABLES}
        length = config.data.row_length or config.data.view.max_length
        scored = next(reversed(tables.values())).sharding.shard_shape(next(reversed(tables.values())).shape)[0]
        sizes = (local_bytes(tables), local_bytes(state.opt_state), config.data.rows * length * scored * 4)
        print(f"| {devices:,} | " + " | ".join(_size(size) for size in sizes) + " |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("where", choices=("layout", "host", "tpu"))
    options.add_argument("recipe", nargs="?", default="sasrec_ml1m")
    options.add_argument("--items", type=int, default=200_000)
    options.add_argument("--rows", type=int, default=64, help="rows a device of the data axis, on TPUs")
    options.add_argument("--model", type=int, default=8, help="most devices along the model axis, on TPUs")
    options.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    chosen = options.parse_args()
    initialize()
    jax.config.update("jax_num_cpu_devices", 8)
    if chosen.where == "layout":
        layout(chosen.recipe, chosen.items, chosen.settings)
    elif chosen.where == "host":
        host(chosen.recipe, chosen.items, chosen.settings)
    else:
        tpu(chosen.recipe, chosen.items, chosen.settings, chosen.rows, chosen.model)


if __name__ == "__main__":
    main()
