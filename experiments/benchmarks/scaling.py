"""Scaling of a sharded step, read from compiled programs: bytes held and bytes sent a device, never time.

    python experiments/benchmarks/scaling.py layout sasrec_ml1m        # shares of 1 to 256 TPUs, nothing compiled
    python experiments/benchmarks/scaling.py host                      # 1 to 8 host devices, weak and strong
    python experiments/benchmarks/scaling.py tpu sasrec_ml1m ...       # 1 to 1,024 TPU v5e, needs libtpu but no TPU

The least that a device has to send, for data parallelism with tables cut by rows over the model axis and rings for all
exchanges, with n devices along data and m along model: gradients of tables, 2 (n - 1) / n of a shard; gradients of the
rest, 2 (nm - 1) / nm of it; and for the vectors V of the positions of n-th part of the batch, which every owner of rows
has to see and to send, (m - 1) / m of V for each time they cross: looked up, their gradients, into the softmax, and
its gradients out of it; twice of what is looked up for all devices. SCALING.md derives it.
"""

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax

from recjax import recipes
from recjax.config import RunConfig, override_all
from recjax.data.items import CODES, VECTORS
from recjax.models.parts.objectives import FullSoftmax
from recjax.models.recgpt import RecGPT
from recjax.parallel.startup import initialize
from recjax.plan.estimate import local_bytes
from recjax.plan.plan import plan
from recjax.plan.program import abstract_inputs
from recjax.plan.topology import find_topology

TABLES = ("items", "output", "bias")
TOPOLOGIES = {1: "v5e:1x1", 8: "v5e:2x4", 64: "v5e:8x8", 256: "v5e:16x16", 1024: "v5e:16x16"}
"""A pod of v5e has 256 chips; 1,024 are four of them, joined by the data centre's network."""


@dataclass(frozen=True)
class Point:
    """One mesh.

    Attributes:
        devices: of it.
        mesh: devices along data and model.
        rows: of a batch.
        table: bytes a device of what is cut by rows: item tables, or the catalog of a model of texts.
        moments: bytes of optimiser state a device.
        logits: bytes of the logits that a device would hold without chunks: what the softmax computes.
        sent: bytes that a device sends in a step.
        least: bytes that it has to send.
        total: bytes in use at once, at most.
        times: seconds, where all overlaps and where no exchange does.
        busy: share of those that the products take, likewise.
        bound: what takes the longest.
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
    busy: tuple[float, float]
    bound: str
    fits: bool


@dataclass(frozen=True)
class Sizes:
    """Of a model, whole, in bytes.

    Attributes:
        tables: trained parameters that are cut by rows.
        dense: other parameters.
        catalog: what is cut by rows and not trained.
        items: rows of tables or catalog.
        vector: a text vector; 0 where there is none.
        state: what a user state is compared with items by; 0 for a model without texts.
    """

    tables: int
    dense: int
    catalog: int
    items: int
    vector: int = 0
    state: int = 0


def sizes_of(config: RunConfig, items: int, text_width: int | None) -> Sizes:
    """The sizes of a configuration's model, by its shapes."""
    alone: Any = override_all(config, ["mesh.data=1", "mesh.model=1"])
    inputs = abstract_inputs(alone, items, alone.mesh.build(jax.devices()[:1]), text_width)
    found = {
        jax.tree_util.keystr(path, simple=True): (4 * math.prod(leaf.shape), leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(inputs.state.params)
    }
    tables = sum(size for name, (size, _) in found.items() if name in TABLES)
    dense = sum(size for size, _ in found.values()) - tables
    columns = inputs.items.columns
    if not columns:
        return Sizes(tables, dense, 0, found[TABLES[0]][1][0])
    vector, slots = 4 * columns[VECTORS].shape[1], columns[CODES].shape[1]
    state = vector + 4 * slots * config.model.width
    return Sizes(tables, dense, local_bytes(inputs.items), columns[VECTORS].shape[0], vector, state)


def scored(config: RunConfig) -> int:
    """Positions of a row that are compared with items."""
    length = config.data.row_length or config.data.view.max_length
    return min(config.model.positions, length) if isinstance(config.model, RecGPT) else length


def crossing(config: RunConfig, sizes: Sizes) -> float:
    """Bytes of a row of the batch that cross the model axis, each counted as often as it crosses."""
    length = config.data.row_length or config.data.view.max_length
    if isinstance(config.model, RecGPT):
        # Texts of what was read and of what comes next are looked up. Of the whole catalog states go to the owners of
        # rows and gradients back; drawn negatives come to the states, see `shared`.
        looked_up = (length + scored(config)) * sizes.vector
        return looked_up if config.model.negatives else looked_up + 2 * scored(config) * sizes.state
    vectors = length * config.model.width * 4
    if isinstance(config.model.loss, FullSoftmax):
        return 4 * vectors  # looked up, and back; into the softmax, and back
    # Targets and a row's negatives are looked up too.
    return 2 * vectors * (1 + (1 + config.model.loss.negatives / length))


def shared(config: RunConfig, sizes: Sizes) -> int:
    """Bytes of what is looked up for all devices of the model axis."""
    return config.model.negatives * sizes.vector if isinstance(config.model, RecGPT) else 0


def least(config: RunConfig, sizes: Sizes, mesh: tuple[int, int]) -> int:
    """Bytes that a device has to send in a step, by the devices along data and model: see above."""
    data, model = mesh
    both = data * model
    return round(
        2 * (data - 1) / data * sizes.tables / model
        + 2 * (both - 1) / both * sizes.dense
        + (model - 1) / model * (config.data.rows / data * crossing(config, sizes) + 2 * shared(config, sizes))
    )


def point(config: RunConfig, topology: str, items: int, slices: int = 1, text_width: int | None = None) -> Point:
    """Compiles a configuration's step for a mesh."""
    found = plan(config, topology, slices=slices, items=items, text_width=text_width, ranking=False, advise=False)
    data, model = found.mesh["data"], found.mesh["model"]
    sizes, step = sizes_of(config, items, text_width), found.training
    seconds = step.seconds or {}
    times, compute = (step.best, step.worst), seconds.get("compute", 0.0)
    return Point(
        devices=data * model,
        mesh=(data, model),
        rows=config.data.rows,
        table=(sizes.tables + sizes.catalog) // model,
        moments=step.memory["optimiser"],
        logits=config.data.rows // data * scored(config) * sizes.items // model * 4,
        sent=sum(one.count * one.sent for one in step.collectives),
        least=least(config, sizes, (data, model)),
        total=step.total,
        times=times,
        busy=(compute / times[0], compute / times[1]),
        bound=max(seconds, key=lambda name: seconds[name], default=""),
        fits=step.fits,
    )


def table(points: Iterable[Point], timed: bool) -> str:
    """A Markdown table, a line a mesh."""
    names = ["devices", "mesh", "rows", "table", "moments", "logits", "sent", "least", "sent / least"]
    more = ["in use", "a step, ms", "products at work", "bound by"]
    lines = ["| " + " | ".join(names + (more if timed else [])) + " |"]
    lines.append("|" + "---:|" * (len(names) + len(more) * timed))
    for one in points:
        cells = [f"{one.devices:,}", f"{one.mesh[0]} x {one.mesh[1]}", f"{one.rows:,}"]
        cells += [_size(size) for size in (one.table, one.moments, one.logits, one.sent, one.least)]
        cells.append(f"{one.sent / one.least:.2f}" if one.least else "-")
        if timed:
            first, last = (f"{1e3 * seconds:,.1f}" for seconds in one.times)
            cells += [_size(one.total), f"{first} to {last}" if one.fits else "does not fit"]
            cells += [f"{one.busy[1]:.0%} to {one.busy[0]:.0%}", one.bound]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f}" if size < 2**30 else f"{size / 2**20:,.0f}"


def host(recipe: str, items: int, settings: list[str], text_width: int | None) -> None:
    """Weak scaling (rows grow with the data axis) and strong scaling (rows stay), along each axis."""
    config = recipes.read(recipe).config
    rows = 64
    for title, weak in (("weak", True), ("strong", False)):
        points = []
        for data, model in ((1, 1), (2, 1), (4, 1), (8, 1), (1, 8), (2, 4), (4, 2)):
            size = rows * data // 8 if weak else rows
            changed = [*settings, f"data.rows={size}", f"mesh.data={data}", f"mesh.model={model}"]
            points.append(point(override_all(config, changed), f"cpu:{data * model}", items, text_width=text_width))
        print(f"{title}, {recipe}, {items:,} items, MiB a device\n\n{table(points, timed=False)}\n", flush=True)


def tpu(recipe: str, items: int, settings: list[str], rows: int, devices: list[int], text_width: int | None) -> None:
    """Strong scaling from one TPU v5e to four pods: tables are cut over all devices of a pod, batches over pods."""
    print(f"{recipe}, {items:,} items, {rows:,} rows, MiB a device\n", flush=True)
    for number, count in enumerate(devices):
        slices = max(count // 256, 1)
        changed = [*settings, f"data.rows={rows}", f"mesh.data={slices}", f"mesh.model={count // slices}"]
        config = override_all(recipes.read(recipe).config, changed)
        lines = table([point(config, TOPOLOGIES[count], items, slices, text_width)], timed=True).splitlines()
        print("\n".join(lines[2:] if number else lines), flush=True)


def layout(recipe: str, items: int, settings: list[str]) -> None:
    """Memory of a device where the table is cut over all devices: by the layouts alone, nothing is compiled."""
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
    options.add_argument("--rows", type=int, default=1024, help="rows of a batch, on TPUs")
    options.add_argument("--devices", type=int, nargs="+", default=list(TOPOLOGIES), choices=TOPOLOGIES, help="TPUs")
    options.add_argument("--text-width", type=int, help="coordinates of a sentence encoder's vectors")
    options.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    chosen = options.parse_args()
    initialize()
    jax.config.update("jax_num_cpu_devices", 8)
    if chosen.where == "layout":
        layout(chosen.recipe, chosen.items, chosen.settings)
    elif chosen.where == "host":
        host(chosen.recipe, chosen.items, chosen.settings, chosen.text_width)
    else:
        tpu(chosen.recipe, chosen.items, chosen.settings, chosen.rows, chosen.devices, chosen.text_width)


if __name__ == "__main__":
    main()
