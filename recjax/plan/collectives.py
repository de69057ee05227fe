"""Collectives of a compiled program: kind, bytes, axis of the mesh, link."""

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from recjax.plan.hlo import Computation, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")

_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')


@dataclass(frozen=True)
class Collective:
    """Exchanges of one kind and size.

    Attributes:
        kind: one of `KINDS`.
        axes: mesh axes along which devices take part, joined by "+"; "-" where a group is a device.
        link: "ici" inside a slice or host, "dcn" where a group spans several.
        devices: of a group.
        count: how often in one call of the program.
        bytes: of one exchange: what a device holds before (all-reduce, reduce-scatter, all-to-all, permute) or after
            (all-gather) it.
        sent: bytes that a device sends in one exchange, by rings: all-reduce 2 (n - 1) / n of `bytes`, permute all
            of it, the others (n - 1) / n.
        shape: of the largest array of it, as the program has it.
        scope: where in the model it comes from, as JAX names it.
    """

    kind: str
    axes: str
    link: str
    devices: int
    count: int
    bytes: int
    sent: int
    shape: tuple[int, ...]
    scope: str


def collectives(program: Program, mesh: Mesh) -> list[Collective]:
    """The exchanges of a program compiled for a mesh, most bytes first; groups of a single device are left out."""
    totals: Counter[Collective] = Counter()
    for computation, line in program.lines():
        kind = line.opcode.removesuffix("-start")
        found = None
        if kind in KINDS:
            found = _read(kind, computation, line, mesh)
        elif kind == "send" and (between := _BETWEEN_SLICES.search(line.attributes)) is not None:
            found = _sent(between[1].lower().replace("_", "-"), computation, line, mesh)
        if found is not None:
            totals[found] += computation.times
    merged = [Collective(**{**vars(one), "count": count}) for one, count in totals.items()]
    return sorted(merged, key=lambda one: -one.count * one.sent)


def _sent(kind: str, computation: Computation, line: Instruction, mesh: Mesh) -> Collective | None:
    """XLA:TPU's form of an exchange between slices: inside each one a reduce-scatter and an all-gather, read as
    any other, and between them a part that hosts send for their devices."""
    slices = np.vectorize(lambda device: getattr(device, "slice_index", 0))(mesh.devices)
    size = len(np.unique(slices))
    axes = [name for place, name in enumerate(mesh.axis_names) if np.ptp(slices, axis=place).any()]
    array = computation.operands(line)[0].shapes[0]
    held = array.bytes * (size if kind == "all-gather" else 1)
    return Collective(
        kind, "+".join(axes), "dcn", size, 1, held, round(held * _share(kind, size)), array.dims, line.scope
    )


def _share(kind: str, size: int) -> float:
    """Of the bytes of an exchange, those that a device sends."""
    return {"all-reduce": 2 * (size - 1) / size, "collective-permute": 1.0}.get(kind, (size - 1) / size)


def _read(kind: str, computation: Computation, line: Instruction, mesh: Mesh) -> Collective | None:
    group = _group(kind, line.attributes, mesh)
    size = len(group)
    if size < 2:
        return None
    operands = computation.operands(line)
    held = sum(operand.bytes for operand in operands)
    shapes = [shape for operand in operands for shape in operand.shapes]
    dims = max(shapes, key=lambda shape: shape.bytes).dims if shapes else ()
    if kind == "all-reduce" and computation.fused and "all-reduce-scatter" in computation.name:
        kind = "reduce-scatter"  # how XLA:TPU writes one
    if kind == "all-gather":
        held *= size
        dims = line.shapes[-1].dims if len(line.shapes) <= 2 else dims
    places = np.array(np.unravel_index(group, mesh.devices.shape))
    varying = [name for name, place in zip(mesh.axis_names, places, strict=True) if len(set(place.tolist())) > 1]
    devices = mesh.devices.flat
    slices = {getattr(devices[place], "slice_index", 0) for place in group}
    link = "dcn" if len(slices) > 1 else "ici"
    return Collective(kind, "+".join(varying), link, size, 1, held, round(held * _share(kind, size)), dims, line.scope)


def _group(kind: str, attributes: str, mesh: Mesh) -> list[int]:
    """The first group of devices that exchange, as places in the flat mesh; of a permute, one that sends far."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?\})\}", attributes)
        found = [] if pairs is None else [list(map(int, pair)) for pair in re.findall(r"(\d+),(\d+)", pairs[1])]
        return next((pair for pair in found if pair[0] != pair[1]), [0])
    explicit = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if explicit is not None:
        return [int(number) for number in explicit[1].split(",")]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota is not None:
        return _iota(iota[2], iota[3]).reshape(_numbers(iota[1]))[0].tolist()
    named = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?\]\S*)\))? \{([^}]*)\}", attributes)
    if named is not None:
        return _named(named[1], named[2], named[3])
    return list(range(mesh.devices.size))


def _named(axes: str, ids: str | None, over: str) -> list[int]:
    """Groups by axes of a mesh of XLA's own: `mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}`."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    grid = np.arange(math.prod(sizes.values()))
    if ids is not None:
        listed = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", ids)
        grid = grid if listed is None else _iota(listed[1], listed[2])
    grid = grid.reshape(tuple(sizes.values()))
    index: list[int | slice] = [0] * len(sizes)
    for name, part, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", over):
        # `'a':(2)4` is the part of axis a that is left when it is cut into 2: neighbours at a distance.
        place = list(sizes).index(name)
        step = sizes[name] // (int(part) * int(size)) if part else 1
        index[place] = slice(0, int(size) * step if part else None, step)
    return grid[tuple(index)].reshape(-1).tolist()


def _iota(dims: str, order: str | None) -> np.ndarray:
    grid = np.arange(math.prod(_numbers(dims))).reshape(_numbers(dims))
    return (grid if order is None else grid.transpose(_numbers(order))).reshape(-1)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))
