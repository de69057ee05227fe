"""Linearised relative position encoding, over one axis or several."""

import jax.numpy as jnp
import numpy as np

from recjax.typing import Array, Float, Int

_BLOCK = 1024


def lrpe(
    x: Float[Array, "b h l c"], coordinates: Int[Array, "b l m"], base: float = 10_000.0
) -> Float[Array, "b h l c2"]:
    """Queries or keys, each channel times the cosine and the sine of an angle (LRPE, Qin et al. 2023).

    Channel c of a query at s and of a key at t then have the product q_c k_c cos(theta_c (s - t)): unlike a rotation of
    pairs of channels it holds for channels that decay at different rates, and it takes twice the channels. With several
    axes the channels are split among them, each counting distances along its own (MD-LRPE, Qin et al. 2024).

    Args:
        x: queries or keys.
        coordinates: integers, of each token on each axis; only differences count.
        base: along an axis with n channels, theta_i = base^(-i/n).

    Returns:
        Twice the channels: all cosines, then all sines.
    """
    axis, rate = _plan(x.shape[-1], coordinates.shape[-1], base)
    along = jnp.take(coordinates, axis, axis=-1)
    # Coordinates such as hours since 1970 are too long for float32: whole turns of a block are taken off beforehand.
    turns = np.mod(rate * _BLOCK, 2 * np.pi).astype(np.float32)
    blocks, rest = along // _BLOCK, along % _BLOCK
    angle = (blocks.astype(jnp.float32) * turns + rest.astype(jnp.float32) * rate.astype(np.float32))[:, None]
    wide = x.astype(jnp.float32)
    return jnp.concatenate([wide * jnp.cos(angle), wide * jnp.sin(angle)], axis=-1).astype(x.dtype)


def _plan(channels: int, axes: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """The axis of each channel, and its angle per unit of it."""
    parts = np.array_split(np.arange(channels), axes)
    axis = np.concatenate([np.full(len(part), j) for j, part in enumerate(parts)])
    rate = np.concatenate([base ** (-np.arange(len(part)) / max(len(part), 1)) for part in parts])
    return axis, rate
