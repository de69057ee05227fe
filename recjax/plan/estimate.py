"""Needs of a compiled program on a device, and its time at best and at worst."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from recjax.plan import costs, hlo
from recjax.plan.chips import Chip
from recjax.plan.collectives import Collective, collectives


@dataclass(frozen=True)
class Estimate:
    """A program on one device of its mesh.

    Attributes:
        memory: bytes by what they hold, exact but for how temporaries divide.
        total: bytes in use at once, at most.
        capacity: bytes of the device.
        flops: of matrix products; None where the program did not fit, so that nothing more is known of it.
        traffic: bytes read from and written to memory.
        collectives: what is exchanged.
        seconds: by what they are spent on: "compute", "memory", "ici", "dcn".
        unknown: scopes of loops whose length depends on data and is not bounded: counted once.
    """

    memory: dict[str, int]
    total: int
    capacity: int
    flops: int | None = None
    traffic: int = 0
    collectives: tuple[Collective, ...] = ()
    seconds: dict[str, float] | None = None
    unknown: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.flops is not None and self.total <= self.capacity

    @property
    def best(self) -> float:
        """Seconds, where everything overlaps: the longest of the parts."""
        return max(self.seconds.values()) if self.seconds else math.inf

    @property
    def worst(self) -> float:
        """Seconds, where no exchange overlaps with anything else."""
        if not self.seconds:
            return math.inf
        return max(self.seconds["compute"], self.seconds["memory"]) + self.seconds["ici"] + self.seconds["dcn"]


def local_bytes(tree: Any) -> int:
    """Bytes that a device holds of a tree of arrays with layouts."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def estimate(lowered: jax.stages.Lowered, held: dict[str, Any], mesh: Mesh, chip: Chip) -> Estimate:
    """Compiles a program and reads off what it needs.

    Args:
        lowered: the program.
        held: its arguments by what they are; the entry "gradients", if any, names the part of temporaries that has
            the layout of these arrays.
        mesh: it is lowered for.
        chip: of the mesh.
    """
    memory = {name: local_bytes(tree) for name, tree in held.items()}
    arguments = sum(size for name, size in memory.items() if name != "gradients")
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (needed := _exhausted(str(error))) is None:
            raise
        return _divided(memory, max(needed, arguments), arguments, chip)
    text = compiled.as_text()
    stats: Any = compiled.memory_analysis()
    total = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
    program = hlo.read(text or "")
    found = tuple(collectives(program, mesh))
    flops, passes = costs.products(program)
    traffic = costs.traffic(program)
    seconds = {
        "compute": (passes if chip.passes else flops) / chip.flops,
        "memory": traffic / chip.bandwidth,
        "ici": sum(one.count * one.sent for one in found if one.link == "ici") / chip.ici,
        "dcn": sum(one.count * one.sent for one in found if one.link == "dcn") / chip.dcn,
    }
    needs = _divided(memory, total, arguments, chip)
    return Estimate(needs.memory, total, chip.memory, flops, traffic, found, seconds, program.unknown)


def _divided(memory: dict[str, int], total: int, arguments: int, chip: Chip) -> Estimate:
    """Memory besides the arguments, as gradients and the rest."""
    memory = dict(memory)
    rest = max(total - arguments, 0)
    if "gradients" in memory:
        memory["gradients"] = min(memory["gradients"], rest)
        rest -= memory["gradients"]
    return Estimate({**memory, "activations and work space": rest}, total, chip.memory)


def _exhausted(message: str) -> int | None:
    """Bytes that a program would have needed, from XLA's complaint; None for another complaint."""
    found = re.search(r"(?:Used |\()([\d.]+)([KMGT])\)? (?:of|exceeds)", message)
    if "RESOURCE_EXHAUSTED" not in message or found is None:
        return None
    return round(float(found[1]) * 2 ** {"K": 10, "M": 20, "G": 30, "T": 40}[found[2]])
