"""A set as a vector, whatever the order of its members (Vinyals et al., Order Matters, ICLR 2016, section 4)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.nn.dense import Dense
from recjax.typing import Array, Bool, Float


class ReadProcess(nn.Module):
    """The read and process blocks: members are memories, which a recurrent network reads `steps` times by content.

        q_t = LSTM(q*_{t-1}),    r_t = sum of softmax over i of (m_i . q_t) times m_i,    q*_t = [q_t, r_t]

    Attributes:
        steps: reads; with 0 of them nothing of the set is seen.
    """

    steps: int

    @nn.compact
    def __call__(self, start: Float[Array, "b d"], members: Float[Array, "b l d"], there: Bool[Array, "b l"]) -> Array:
        """The vectors of the sets, [b, d].

        Args:
            start: what is asked of each set, the network's first cell.
            members: of each set.
            there: False where there is none.
        """
        width = start.shape[-1]
        memory = Dense(width, name="read")(members)
        cell, carry = nn.OptimizedLSTMCell(width, name="cell"), (start, jnp.zeros_like(start))
        seen = jnp.concatenate([jnp.zeros_like(start)] * 2, axis=-1)
        for _ in range(self.steps):
            carry, query = cell(carry, seen)
            scores = jnp.where(there, jnp.einsum("bld,bd->bl", memory, query), -1e9)
            shares = jax.nn.softmax(scores) * there.any(axis=1, keepdims=True)
            seen = jnp.concatenate([query, jnp.einsum("bl,bld->bd", shares, memory)], axis=-1)
        return Dense(width, name="write")(seen)
