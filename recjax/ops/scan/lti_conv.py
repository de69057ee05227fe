"""Convolution along rows with one kernel for each channel: linear and time-invariant (LTI)."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.mesh_axes import dividing_axis
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Float, InputError

Impl = Literal["auto", "fft", "toeplitz"]

SHORT = 64
"""Longest rows whose convolution is a product of matrices. On a CPU that takes 0.8 of the time of the transforms at 50
positions (64 rows of 64 channels, with gradients), and 2.2 times as much at 200."""


def lti_conv(u: Float[Array, "b l d"], kernel: Float[Array, "d k l"], impl: Impl = "auto") -> Float[Array, "b l d"]:
    """Convolution of each channel with its kernel along whole rows, in float32.

    With k = 1, y_t = sum over j of kernel[0, j] u_{t-j}. With k = 2 both sides count: kernel[1, j] belongs to the input
    at t + 1 + j, so that no input counts twice.

    Transforms run where the rows and channels are: XLA would gather the operands of a partitioned FFT on every device.
    They round, so that a later input may change an earlier output in its last digit; products of matrices do not.

    Args:
        u: inputs; rows may be sharded over the mesh's data axis and channels over its model axis.
        kernel: as many taps as a row has positions.
        impl: "fft"; "toeplitz", a product with the [l, l] matrix of each channel; "auto", by the length.

    Raises:
        InputError: an unknown implementation, or a kernel that does not fit the rows.
    """
    if impl not in get_args(Impl):
        raise InputError(f"no convolution is called {impl!r}; there are: {', '.join(get_args(Impl))}")
    if kernel.shape not in [(u.shape[2], sides, u.shape[1]) for sides in (1, 2)]:
        raise InputError(f"a kernel of shape {kernel.shape} fits no inputs of shape {u.shape}")
    short = impl == "toeplitz" or (impl == "auto" and u.shape[1] <= SHORT)
    local = _toeplitz_conv if short else _fft_conv
    rows, channels = dividing_axis(DATA_AXIS, u.shape[0]), dividing_axis(MODEL_AXIS, u.shape[2])
    u, kernel = u.astype(jnp.float32), kernel.astype(jnp.float32)
    if rows is None and channels is None:
        return local(u, kernel)
    along = PartitionSpec(rows, None, channels)
    return jax.shard_map(local, in_specs=(along, PartitionSpec(channels)), out_specs=along)(u, kernel)


def _fft_conv(u: Array, kernel: Array) -> Array:
    length = u.shape[1]
    size = _fast_size(2 * length)
    spectrum = jnp.fft.rfft(u.swapaxes(1, 2), n=size) * jnp.fft.rfft(_around(kernel, size), n=size)
    return jnp.fft.irfft(spectrum, n=size)[..., :length].swapaxes(1, 2)


def _toeplitz_conv(u: Array, kernel: Array) -> Array:
    length = u.shape[1]
    size = 2 * length
    # Row t of the matrix is the circle read backwards from t: rows one shorter than the circle shift by one each.
    circle = _around(kernel, size)
    backwards = jnp.concatenate([circle[:, :1], circle[:, :0:-1]], axis=1)
    rows = jnp.tile(backwards, (1, length))[:, : length * (size - 1)].reshape(-1, length, size - 1)
    return jnp.einsum("dlm,bmd->bld", rows[..., :length], u, precision=jax.lax.Precision.HIGHEST)


def _around(kernel: Array, size: int) -> Float[Array, "d n"]:
    """Taps on a circle of `size`: those of the past from 0 on, those of the future from its end back."""
    past = jnp.pad(kernel[:, 0], ((0, 0), (0, size - kernel.shape[-1])))
    if kernel.shape[1] == 1:
        return past
    return past + jnp.pad(kernel[:, 1, ::-1], ((0, 0), (size - kernel.shape[-1], 0)))


def _fast_size(least: int) -> int:
    """The smallest product of 2, 3 and 5 from `least` on, for which transforms are fast."""
    size = least
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1
