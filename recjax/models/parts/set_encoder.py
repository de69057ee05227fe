"""Encoders of sets, whose members have no order."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from recjax.mixers.mixer import SeqContext
from recjax.mixers.stack import Encoder, Stack
from recjax.nn.dropout import Dropout
from recjax.nn.read_process import ReadProcess
from recjax.typing import Array, Float

Pool = Literal["attention", "process", "mean"]


class SetEncoder(nn.Module):
    """Vectors of what is asked, [n, d], and of the set's members, [n, l, d], to states [n, d]."""

    stack: Stack
    pool: Pool
    steps: int

    @nn.compact
    def __call__(self, asked: Float[Array, "n d"], members: Float[Array, "n l d"], there: Array) -> Array:
        members = Dropout(self.stack.dropout)(members)
        if self.pool == "process":
            return ReadProcess(self.steps, name="process")(asked, members, there)
        if self.pool == "mean":
            return asked + jnp.sum(members * there[..., None], 1) / jnp.maximum(there.sum(1), 1)[:, None]
        x = jnp.concatenate([asked[:, None], members], axis=1)
        segments = jnp.pad(there.astype(jnp.int32), [(0, 0), (1, 0)], constant_values=1)
        first = jnp.zeros(len(x), jnp.int32)
        return Encoder(self.stack, name="encoder")(x, SeqContext(segments, jnp.zeros_like(segments)), first)
