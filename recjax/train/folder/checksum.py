"""Checksums of arrays that do not depend on how they are laid out.

Orbax keeps checksums of its index, but not of the values of larger arrays: a bit that flips on a disk comes back as
another number. So a checkpoint's record holds a checksum of every array, computed where the array is, before it is
saved, and computed again after it is restored, on whatever mesh that is.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.nn.groups import path_name
from recjax.typing import Array

_WORDS = {1: np.uint8, 2: np.uint16}
"""Bytes of an element -> the unsigned integers that have its bits; of others, as many of 32 bits as they fill."""

_BLOCK = 1 << 15
"""Elements hashed at once on the host: what is made of them stays in the processor's cache."""


def checksums(tree: Any) -> dict[str, int]:
    """Path -> checksum of each array of a tree; every process calls this and gets the same."""
    leaves = jax.tree.leaves_with_path(tree)
    values = jax.device_get([host_checksum(leaf) if _on_host(leaf) else _compiled(leaf) for _, leaf in leaves])
    return {path_name(path): int(value) for (path, _), value in zip(leaves, values, strict=True)}


def checksum(x: Array) -> Array:
    """uint32 [], the sum over elements of a hash of their bits and place, modulo 2^32.

    Addition modulo 2^32 is exact in any order, so shards may be summed apart. The hash is one-to-one in the bits for
    each place, so a change of one element always shows, and other changes are missed once in 2^32 times.
    """
    words = _bits(x)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        stride = np.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        if size > 1:
            place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    return jnp.sum(_mix(words + _mix(place)), dtype=jnp.uint32)


def host_checksum(x: Array) -> int:
    """`checksum` of an array in the memory of this process, which need not be compiled for each shape."""
    flat = np.ascontiguousarray(x).reshape(-1)
    flat = flat.astype(np.uint32) if flat.dtype == bool else flat.view(_WORDS.get(flat.dtype.itemsize, np.uint32))
    total = 0
    for start in range(0, flat.size, _BLOCK):
        words = flat[start : start + _BLOCK].astype(np.uint32)
        place = np.arange(start, start + words.size).astype(np.uint32)
        total += int(_mix(words + _mix(place)).sum(dtype=np.uint64))
    return total % 2**32


def _on_host(x: Array) -> bool:
    return x.is_fully_addressable and all(device.platform == "cpu" for device in x.devices())


def _bits(x: Array) -> Array:
    """The bits of each element as uint32; elements of 8 bytes become two along a last axis."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(x, _WORDS.get(x.dtype.itemsize, jnp.uint32)).astype(jnp.uint32)


def _mix(x: Any) -> Any:
    """A one-to-one scrambling of 32 bits: the finaliser of MurmurHash3 (Appleby, 2011)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


# One program for all arrays of a shape and layout: the layers share them, and so do parameters and optimiser.
_compiled = jax.jit(checksum)
