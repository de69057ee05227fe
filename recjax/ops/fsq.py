"""Finite scalar quantisation (Mentzer et al., ICLR 2024): a few numbers, each rounded to one of a few levels.

Numbers are first bounded to *digit coordinates*: dimension j lies in [0, levels[j] - 1], so that rounding alone gives
its digit, a whole number from 0 to levels[j] - 1. The digits of a vector, read as a number of mixed radix with the
first digit the least, are its code: levels (8, 8, 8, 6, 5) have place values (1, 8, 64, 512, 3072) and 15,360 codes.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from recjax.typing import Array, Float, InputError, Int, shorten

Bound = Literal["tanh", "sigmoid"]

MARGIN = 1e-3
"""Distance of the outermost values of the tanh from the outermost rounding borders, as a share of the range."""


def check_levels(levels: tuple[int, ...]) -> None:
    """Raises InputError where levels cannot be."""
    if not levels or min(levels) < 2:
        raise InputError(f"levels are {shorten(str(levels))}, expected one number or more, each at least 2")
    if math.prod(levels) >= 2**31:
        raise InputError(f"levels {shorten(str(levels))} make more codes than an int32 holds")


def place_values(levels: tuple[int, ...]) -> tuple[int, ...]:
    """Place values: a step of each digit adds so much to the code."""
    return tuple(math.prod(levels[:place]) for place in range(len(levels)))


def bound(z: Float[Array, "... k"], levels: tuple[int, ...], kind: Bound = "tanh") -> Float[Array, "... k"]:
    """Digit coordinates of any real numbers.

    "tanh" is RecGPT's code: a tanh of (levels - 1) / 2 times (1 - `MARGIN`) either way, moved by half a level where
    their number is even, for which no level is in the middle, and started at such a place that z = 0 lies on the digit
    levels // 2 (nearly: the place is found by a tan, where atanh would be exact). "sigmoid" is RecGPT's paper:
    (levels - 1) * sigmoid(z).

    Args:
        z: activations.
        levels: of each dimension.
        kind: which of the two.
    """
    top = jnp.asarray(levels, z.dtype) - 1.0
    if kind == "sigmoid":
        return top * jax.nn.sigmoid(z)
    if kind != "tanh":
        raise InputError(f"bound is {kind!r}, expected one of: {', '.join(get_args(Bound))}")
    even = np.asarray(levels) % 2 == 0
    half = (np.asarray(levels) - 1) * (1 - MARGIN) / 2
    offset = np.where(even, 0.5, 0.0)
    start, middle = np.tan(offset / half), np.asarray(levels) // 2 - offset
    return jnp.tanh(z + jnp.asarray(start, z.dtype)) * jnp.asarray(half, z.dtype) + jnp.asarray(middle, z.dtype)


def round_through(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`round(x)`, with the gradient of x: the straight-through estimator."""
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def centred(digits: Float[Array, "... k"], levels: tuple[int, ...]) -> Float[Array, "... k"]:
    """Digits, or digit coordinates, moved and scaled into [-1, 1]: what a decoder reads."""
    half = jnp.asarray([size // 2 for size in levels], jnp.float32)
    return (digits - half) / half


def code_of(digits: Array, levels: tuple[int, ...]) -> Int[Array, "..."]:
    """Codes of whole digits [..., k], int32."""
    return jnp.sum(digits.astype(jnp.int32) * jnp.asarray(place_values(levels), jnp.int32), axis=-1)


def digits_of(codes: Int[Array, "..."], levels: tuple[int, ...]) -> Int[Array, "... k"]:
    """Digits of codes, int32: the inverse of `code_of`."""
    places, sizes = jnp.asarray(place_values(levels), jnp.int32), jnp.asarray(levels, jnp.int32)
    return (codes[..., None] // places) % sizes
