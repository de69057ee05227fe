"""The text of a compiled program, and how often each part of it runs.

XLA's own cost analysis counts the body of a loop once, however long the loop; the losses and rankings of this package
are loops. So the text is read instead: instructions by computation, and how many times the computation runs on a device
in one call of the program. Loops start at 0 and go up by 1, as JAX's do; one whose length depends on data counts as
often as its name scope says (`recjax.ops.mesh_axes.bounded_loop`), else once.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(body|calls|to_apply|true_computation|false_computation|branch_computations)=(\{[^}]*\}|%[\w.\-]+)"
)
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ON_CHIP = re.compile(r"S\(\d+\)")
BOUND = re.compile(r"at_most_(\d+)/while$")


@dataclass(frozen=True)
class Shape:
    """One array: its dimensions, bytes, and whether it lies in the device's main memory rather than on the chip."""

    dims: tuple[int, ...]
    bytes: int
    in_memory: bool

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


@dataclass(frozen=True, eq=False)
class Instruction:
    """A line of a computation.

    Attributes:
        name: of its result.
        type: of its result, as printed.
        opcode: what it does.
        inside: what stands in its parentheses.
        attributes: the rest of the line.
        root: whether its result is the computation's.
    """

    name: str
    type: str
    opcode: str
    inside: str
    attributes: str
    root: bool

    @cached_property
    def operands(self) -> list[str]:
        """Names of what it works on."""
        return _NAME.findall(self.inside)

    @cached_property
    def shapes(self) -> list[Shape]:
        """Of the result: one, or those of a tuple."""
        found = []
        for kind, dims, layout in _SHAPE.findall(self.type):
            sizes = tuple(int(size) for size in dims.split(",") if size)
            bits = _BITS.get(kind, int(next(iter(re.findall(r"\d+", kind)), 0)))
            found.append(Shape(sizes, math.prod(sizes) * bits // 8, not _ON_CHIP.search(layout)))
        return found

    @property
    def bytes(self) -> int:
        return sum(shape.bytes for shape in self.shapes)

    @cached_property
    def called(self) -> list[str]:
        """Computations that run when it does, reducers and comparators left out."""
        if self.opcode not in ("while", "fusion", "call", "conditional", "async-start", "custom-call"):
            return []
        return [name for _, names in _CALLED.findall(self.attributes) for name in _NAME.findall(names)]

    @property
    def scope(self) -> str:
        """The name that JAX gave it."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclass(eq=False)
class Computation:
    """Instructions by name, in order.

    Attributes:
        name: as printed.
        instructions: of it.
        times: runs on a device in one call of the program.
        fused: runs inside one fused instruction, so what is between its instructions stays on the chip.
    """

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    times: int = 0
    fused: bool = False

    @property
    def root(self) -> Instruction:
        return next(line for line in self.instructions.values() if line.root)

    def operands(self, line: Instruction) -> list[Instruction]:
        return [self.instructions[name] for name in line.operands if name in self.instructions]


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled program.

    Attributes:
        computations: by name.
        unknown: name scopes of loops of unknown length, counted once.
    """

    computations: dict[str, Computation]
    unknown: tuple[str, ...]

    def lines(self) -> Iterator[tuple[Computation, Instruction]]:
        """Instructions that run, with where they stand."""
        for computation in self.computations.values():
            if computation.times:
                for line in computation.instructions.values():
                    yield computation, line


def read(text: str) -> Program:
    """Reads the text of a compiled program (`jax.stages.Compiled.as_text`)."""
    computations: dict[str, Computation] = {}
    entry, current = "", Computation("")
    for row in text.splitlines():
        if (header := _HEADER.match(row)) is not None:
            current = computations.setdefault(header[2], Computation(header[2]))
            entry = header[2] if header[1] else entry
        elif (found := _INSTRUCTION.match(row)) is not None:
            operands, attributes = _closed(found[5])
            line = Instruction(found[2], found[3], found[4], operands, attributes, bool(found[1]))
            current.instructions[line.name] = line
    unknown: Counter[str] = Counter()
    _run(computations, entry, 1, False, unknown)
    return Program(computations, tuple(unknown))


def _closed(rest: str) -> tuple[str, str]:
    """The texts before the parenthesis that closes, and after it."""
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[:place], rest[place + 1 :]
    return rest, ""


def _run(computations: dict[str, Computation], name: str, times: int, fused: bool, unknown: Counter[str]) -> None:
    computation = computations[name]
    computation.times += times
    computation.fused |= fused
    for line in computation.instructions.values():
        if not line.called:
            continue
        repeats = 1
        if line.opcode == "while":
            length = _length(line, computations)
            unknown.update([] if length is not None else [line.scope])
            repeats = 1 if length is None else length
        for called in line.called:
            _run(computations, called, times * repeats, fused or line.opcode == "fusion", unknown)


def _length(loop: Instruction, computations: dict[str, Computation]) -> int | None:
    """Iterations of a loop, or None."""
    if (known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)) is not None:
        return int(known[1])
    condition = re.search(r"condition=%([\w.\-]+)", loop.attributes)
    assert condition is not None
    parts = [computations[condition[1]]]
    parts += [computations[name] for line in parts[0].instructions.values() for name in line.called]
    # `index < constant`; a loop whose end depends on data compares with no constant.
    ends = {
        int(line.inside)
        for part in parts
        for line in part.instructions.values()
        if line.opcode == "constant" and line.type.startswith(("s32", "u32", "s64"))
    }
    if len(ends) == 1:
        return ends.pop()
    bound = BOUND.search(loop.scope)
    return int(bound[1]) if bound else None
