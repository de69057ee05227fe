"""Rotary position embedding."""

import jax.numpy as jnp

from recjax.typing import Array, Float, InputError, Int


def rotary(
    x: Float[Array, "b h l c"],
    positions: Int[Array, "b l"],
    base: float = 10_000.0,
    rates: Float[Array, " c2"] | None = None,
) -> Float[Array, "b h l c"]:
    """Queries or keys turned by their positions, so that their products depend on distances alone (Su et al. 2021).

    Channel i is paired with channel i + c/2, and the pair turned by the angle position * base^(-2i/c), in float32.

    Args:
        x: queries or keys.
        positions: of each token, in whatever unit distances are to be counted.
        base: the slowest pair turns once in about 2 pi * base positions.
        rates: radians a position of each pair, in place of those of `base`.

    Raises:
        InputError: an odd number of channels.
    """
    channels = x.shape[-1]
    if channels % 2:
        raise InputError(f"rotary positions need an even number of channels per head, not {channels}")
    half = channels // 2
    if rates is None:
        rates = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, :, None].astype(jnp.float32) * rates
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1).astype(x.dtype)
