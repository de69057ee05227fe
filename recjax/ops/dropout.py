"""Dropout masks from a counter-based hash: a few integer operations an element, the same on every mesh.

Threefry costs about twenty rounds an element, which on a CPU is a tenth of a training step. A mask needs no such
quality: here element i of the mask is kept when a 32-bit mix of (i, key) is below the keep rate. The mix is
`lowbias32` (C. Wellons, "Prospecting for hash functions", 2018: bias 0.17), applied twice with independent halves of
a seed drawn from the key by Threefry, so masks of different keys are unrelated.
"""

import math

import jax
import jax.numpy as jnp

from recjax.typing import Array


def _lowbias32(x: Array) -> Array:
    x ^= x >> 16
    x *= jnp.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def keep_mask(key: Array, shape: tuple[int, ...], rate: float) -> Array:
    """Boolean mask of `shape`, each element True with probability `1 - rate`, from a JAX random key."""
    if math.prod(shape) > 2**32:
        raise ValueError(f"a dropout mask of shape {shape} has more than 2**32 elements")
    seed = jax.random.bits(key, (2,), jnp.uint32)
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride = (stride * shape[axis]) % 2**32
    bits = _lowbias32(_lowbias32(index + seed[0]) ^ seed[1])
    return bits >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zero a share `rate` of `x` and divide the rest by `1 - rate`; `key=None` or rate 0 returns `x`."""
    if key is None or rate == 0.0:
        return x
    return jnp.where(keep_mask(key, x.shape, rate), x / (1.0 - rate), jnp.zeros((), x.dtype))
