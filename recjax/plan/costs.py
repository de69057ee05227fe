"""Cost of one call of a compiled program on a device: products and memory traffic, with loops counted."""

import math
import re

import numpy as np

from recjax.plan.hlo import Computation, Instruction, Program, Shape

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"}
"""Instructions that move nothing themselves."""

_PASSES = {"high": 3, "highest": 6}


def products(program: Program) -> tuple[int, int]:
    """Products and sums of all matrix products and convolutions: as the model has them, and in bfloat16 passes, of
    which a float32 product at a higher precision than the default takes several."""
    total = passes = 0
    for computation, line in program.lines():
        if line.opcode == "dot":
            found = _dot(computation, line)
        elif line.opcode == "convolution":
            found = _convolution(computation, line)
        elif line.opcode == "custom-call" and ("gemm" in line.attributes or "matmul" in line.attributes):
            found = _library_product(computation, line)
        else:
            continue
        precision = re.search(r"operand_precision=\{(\w+)", line.attributes)
        total += computation.times * found
        passes += computation.times * found * (_PASSES.get(precision[1], 1) if precision else 1)
    return total, passes


def _dot(computation: Computation, line: Instruction) -> int:
    left = computation.operands(line)[0].shapes[0]
    return 2 * line.shapes[0].elements * math.prod(left.dims[place] for place in _places(line, "lhs_contracting_dims"))


def _library_product(computation: Computation, line: Instruction) -> int:
    """A product that a library computes: left [b, m, k] and right [b, k, n] to [b, m, n], in some order."""
    left, right = (operand.shapes[0] for operand in computation.operands(line)[:2])
    out = line.shapes[0]
    batch = re.search(r'lhs_batch_dimensions"?:\[([^\]]*)\]', line.attributes)
    places = [int(place) for place in re.findall(r"\d+", batch[1])] if batch else []
    repeated = math.prod(left.dims[place] for place in places)
    return 2 * round(math.sqrt(left.elements * right.elements * out.elements / max(repeated, 1)))


def _places(line: Instruction, name: str) -> list[int]:
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", line.attributes)
    return [int(place) for place in found[1].split(",") if place] if found else []


def _convolution(computation: Computation, line: Instruction) -> int:
    """XLA:TPU writes every product as a convolution; with padding or dilation, fewer pairs meet than it seems.

    Input features of the kernel are those of one feature group already.
    """
    left, right = (operand.shapes[0] for operand in computation.operands(line)[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.attributes)
    assert labels is not None
    lefts, rights = dict(zip(labels[1], left.dims, strict=True)), dict(zip(labels[2], right.dims, strict=True))
    outs = dict(zip(labels[3], line.shapes[0].dims, strict=True))
    pairs = 1
    for axis, place in enumerate(sorted(name for name in outs if name.isdigit())):
        pairs *= _pairs(line.attributes, axis, lefts[place], rights[place], outs[place])
    return 2 * outs["b"] * outs["f"] * rights["i"] * pairs


def _pairs(attributes: str, axis: int, size: int, kernel: int, out: int) -> int:
    """Pairs of an output place and a kernel place, along one axis, that meet an input."""

    def window(name: str, default: str) -> str:
        found = re.search(rf"window=\{{[^}}]*\b{name}=([\dx_\-]+)", attributes)
        return found[1].split("x")[axis] if found else default

    low = int(window("pad", "0_0").split("_")[0])
    stride, spread, step = (int(window(name, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate"))
    if kernel == 1 and spread == 1 and not low:
        return out
    starts = np.arange(out) * stride - low
    if step == 1:  # the inputs from ceil(start / spread) to floor(last tap / spread)
        first, last = np.maximum(-(-starts // spread), 0), np.minimum((starts + kernel - 1) // spread, size - 1)
        return int(np.maximum(last - first + 1, 0).sum())
    places = starts[:, None] + np.arange(kernel) * step
    return int(np.count_nonzero((places % spread == 0) & (places >= 0) & (places <= (size - 1) * spread)))


def traffic(program: Program) -> int:
    """Bytes read from and written to the device's memory, as if each instruction read its operands once.

    Arrays that the compiler keeps on the chip are not counted. Of an array that is only sliced or gathered from, what
    is taken counts; of one that is updated in place, what is put.
    """
    total = 0
    for computation, line in program.lines():
        if computation.fused or line.opcode in _FREE or line.opcode.endswith("-done"):
            continue
        total += computation.times * _moved(program, computation, line)
    return total


def _moved(program: Program, computation: Computation, line: Instruction) -> int:
    operands = computation.operands(line)
    if line.opcode != "fusion":
        return _pieces(line, operands)
    inner = program.computations[line.called[0]]
    total = _written(program, inner, line)
    for place, operand in enumerate(operands):
        total += _read(program, inner, place, operand)
    return total


def _in_memory(shapes: list[Shape]) -> int:
    return sum(shape.bytes for shape in shapes if shape.in_memory)


def _pieces(line: Instruction, operands: list[Instruction]) -> int:
    """An instruction of its own: what it reads and writes."""
    if line.opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * _in_memory(line.shapes)
    if line.opcode in ("dynamic-update-slice", "scatter"):
        return 2 * _in_memory(operands[1 if line.opcode == "dynamic-update-slice" else -1].shapes)
    if line.opcode in ("copy-start", "all-gather-start", "collective-permute-start"):
        return _in_memory(line.shapes)  # both what goes in and what comes out
    return _in_memory(line.shapes) + sum(_in_memory(operand.shapes) for operand in operands)


def _written(program: Program, inner: Computation, line: Instruction) -> int:
    """Bytes that a fused instruction writes: of arrays that it updates in place, the update."""
    root = inner.root
    if root.opcode == "tuple":
        shapes = zip(inner.operands(root), line.shapes, strict=False)
        return sum(_put(program, inner, part, shape) for part, shape in shapes)
    return sum(_put(program, inner, root, shape) for shape in line.shapes)


def _put(program: Program, inner: Computation, part: Instruction, shape: Shape) -> int:
    if not shape.in_memory:
        return 0
    while True:
        if part.opcode in ("bitcast", "copy", "convert") and inner.operands(part):
            part = inner.operands(part)[0]
        elif part.opcode == "fusion":  # fused instructions may be made of such
            inner = program.computations[part.called[0]]
            part = inner.root
        else:
            break
    if part.opcode in ("dynamic-update-slice", "scatter"):
        return inner.operands(part)[1 if part.opcode == "dynamic-update-slice" else -1].bytes
    return shape.bytes


def _read(program: Program, inner: Computation, place: int, operand: Instruction) -> int:
    """Bytes that a fused instruction reads of its operand number `place`."""
    whole = _in_memory(operand.shapes)
    taken = _taken(program, inner, place) if whole else 0
    return whole if taken is None else min(taken, whole)


def _taken(program: Program, inner: Computation, place: int) -> int | None:
    """Bytes that a fused instruction takes of its operand number `place` in slices; None where it takes all of it."""
    parameter = next(
        (line for line in inner.instructions.values() if line.opcode == "parameter" and line.inside == str(place)), None
    )
    if parameter is None:
        return None
    taken = 0
    names = {parameter.name}
    for line in inner.instructions.values():
        if not names & set(line.operands):
            continue
        if line.opcode == "bitcast":
            names.add(line.name)
        elif line.opcode in ("dynamic-slice", "gather", "slice") and line.operands[0] in names:
            taken += line.bytes
        elif line.opcode in ("dynamic-update-slice", "scatter") and line.operands[0] in names:
            taken += inner.operands(line)[1 if line.opcode == "dynamic-update-slice" else -1].bytes
        elif line.opcode == "fusion":
            nested = program.computations[line.called[0]]
            parts = [_taken(program, nested, place) for place, name in enumerate(line.operands) if name in names]
            if None in parts:
                return None
            taken += sum(part for part in parts if part is not None)
        else:
            return None
    return None if inner.root.name in names else taken
