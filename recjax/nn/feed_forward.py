"""Position-wise feed-forward networks."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.nn.dense import Dense
from recjax.nn.dropout import Dropout
from recjax.nn.lora import AdaptedDense, LoRA
from recjax.typing import Array

Activation = Literal["relu", "gelu"]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}


class FeedForward(nn.Module):
    """Two dense layers with an activation between them (Vaswani et al. 2017, eq. 2).

    Attributes:
        inner: width between the layers.
        activation: "relu" or "gelu".
        dropout: rate after each layer, as SASRec has it.
        kernel_init: initialiser of the kernels.
        dtype: compute type; parameters are float32.
    """

    inner: int
    activation: Activation = "relu"
    dropout: float = 0.0
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = Dense(self.inner, kernel_init=self.kernel_init, dtype=self.dtype, name="up")(x)
        hidden = Dropout(self.dropout)(ACTIVATIONS[self.activation](hidden))
        output = Dense(x.shape[-1], kernel_init=self.kernel_init, dtype=self.dtype, name="down")(hidden)
        return Dropout(self.dropout)(output)


class SwiGLU(nn.Module):
    """(silu(x W) * x U) V (Shazeer 2020), W being `gate`, U `up` and V `down`.

    Attributes:
        inner: width between the layers.
        use_bias: the layers have biases.
        lora: adapters of the layers, or None.
        dtype: compute type; parameters are float32.
    """

    inner: int
    use_bias: bool = False
    lora: LoRA | None = None
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gate, up = (self._dense(self.inner, name)(x) for name in ("gate", "up"))
        return self._dense(x.shape[-1], "down")(jax.nn.silu(gate) * up)

    def _dense(self, features: int, name: str) -> AdaptedDense:
        return AdaptedDense(features, self.use_bias, self.lora, self.dtype, name=name)
