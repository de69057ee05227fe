"""Layer normalisation and its root-mean-square form, in float32 whatever the compute type."""

import flax.linen as nn
import jax.numpy as jnp

from recjax.typing import Array


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) over the last axis; statistics and affine map in float32.

    Attributes:
        epsilon: added to the variance.
        dtype: type of the result.
    """

    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return (centred / jnp.sqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang & Sennrich 2019) over the last axis; float32 as `LayerNorm`.

    Attributes:
        epsilon: added to the mean square.
        dtype: type of the result.
    """

    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return (x / jnp.sqrt(mean_square + self.epsilon) * scale).astype(self.dtype)
