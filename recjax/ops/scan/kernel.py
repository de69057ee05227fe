"""The elementwise recurrence as a kernel for TPUs: each number is read and written once.

A scan of logarithmic depth writes every level to memory. Here a block of positions by 128 channels is scanned on the
chip by doubling (Hillis & Steele 1986), and the state is carried from block to block. Complex numbers, which kernels
lack, go as their two parts.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from recjax.ops.scan.time_axis import AffineMaps
from recjax.typing import Array

LANES = 128
BLOCK = 256
"""Most positions of a block: eight doublings, half a megabyte of the chip's memory for each array."""

Parts = tuple[Any, ...]
"""A number's real part, or its real and imaginary parts."""


def states_by_kernel(maps: AffineMaps, h: Array, reverse: bool, *, interpret: bool) -> Array:
    """States [b, l, ...] of maps [b or 1, l, ...] applied one after the other to `h` [b, ...].

    Args:
        maps: of each position; those of the first axis may be of all rows.
        h: the state before the first position in the direction of the run.
        reverse: run from the last position to the first.
        interpret: run the kernel's definition as an ordinary program, on any platform.
    """
    shape = maps.offset.shape
    width = math.prod(shape[2:])
    block = min(BLOCK, 8 * -(-shape[1] // 8))
    room = [(0, 0), (0, -shape[1] % block), (0, -width % LANES)]

    def flat(x: Array, fill: float) -> list[Array]:
        parts = _parts(jnp.broadcast_to(x, shape).reshape(*shape[:2], width))
        return [jnp.pad(part, room, constant_values=fill * (not at)) for at, part in enumerate(parts)]

    # A position of the padding, which may come first, changes no state: its map is that of one.
    scale, offset = flat(maps.scale, 1.0), flat(maps.offset, 0.0)
    cut = jnp.zeros(shape[:2], bool) if maps.cut is None else jnp.broadcast_to(maps.cut, shape[:2])
    cut = jnp.pad(cut.astype(jnp.float32), room[:2])[:, :, None]
    first = [jnp.pad(part, [(0, 0), (0, 0), room[2]]) for part in _parts(h.reshape(h.shape[0], 1, width))]
    rows, length, channels = offset[0].shape
    blocks = length // block
    at = (lambda time: blocks - 1 - time) if reverse else (lambda time: time)
    wide = pl.BlockSpec((1, block, LANES), lambda row, channel, time: (row, at(time), channel))
    flag = pl.BlockSpec((1, block, 1), lambda row, channel, time: (row, at(time), 0))
    state = pl.BlockSpec((1, 1, LANES), lambda row, channel, time: (row, 0, channel))
    count = len(offset)
    found = pl.pallas_call(
        partial(_kernel, count, reverse),
        out_shape=[jax.ShapeDtypeStruct(part.shape, jnp.float32) for part in offset],
        grid=(rows, channels // LANES, blocks),
        in_specs=[*[wide] * (2 * count), flag, *[state] * count],
        out_specs=[wide] * count,
        scratch_shapes=[pltpu.VMEM((1, LANES), jnp.float32)] * count,
        cost_estimate=pl.CostEstimate(
            flops=3 * count**2 * offset[0].size * max(block.bit_length() - 1, 1),
            transcendentals=0,
            bytes_accessed=4 * (3 * count * offset[0].size + cut.size),
        ),
        interpret=interpret,
    )(*scale, *offset, cut, *first)
    states = found[0] if count == 1 else jax.lax.complex(*found)
    return states[:, : shape[1], :width].reshape(shape)


def _parts(x: Array) -> Parts:
    return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def _times(x: Parts, y: Parts) -> Parts:
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _before(x: Array, by: int, fill: float, reverse: bool) -> Array:
    """The entries some positions before each of `x` [t, c] in the direction of the run."""
    outside = jnp.full((by, x.shape[1]), fill, x.dtype)
    return jnp.concatenate([x[by:], outside] if reverse else [outside, x[:-by]], axis=0)


def _kernel(count: int, reverse: bool, *refs: Any) -> None:
    scales, offsets, (cut_ref,), firsts, outs, carried = _split(refs, count, count, 1, count, count, count)

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        for kept, first in zip(carried, firsts, strict=True):
            kept[...] = first[0]

    scale, offset = tuple(ref[0] for ref in scales), tuple(ref[0] for ref in offsets)
    cut = jnp.broadcast_to(cut_ref[0], offset[0].shape) > 0
    by, one = 1, (1.0, 0.0)
    while by < cut.shape[0]:
        moved = _times(scale, tuple(_before(x, by, 0.0, reverse) for x in offset))
        offset = tuple(jnp.where(cut, x, x + y) for x, y in zip(offset, moved, strict=True))
        factors = tuple(_before(x, by, fill, reverse) for x, fill in zip(scale, one, strict=False))
        scale = _times(scale, factors)
        cut = cut | (_before(cut.astype(jnp.float32), by, 0.0, reverse) > 0)
        by *= 2
    moved = _times(scale, tuple(kept[...] for kept in carried))
    for out, kept, x, y in zip(outs, carried, offset, moved, strict=True):
        states = jnp.where(cut, x, x + y)
        out[0] = states
        kept[...] = states[:1] if reverse else states[-1:]


def _split(values: tuple[Any, ...], *sizes: int) -> list[tuple[Any, ...]]:
    ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]
    return [values[end - size : end] for size, end in zip(sizes, ends, strict=True)]
