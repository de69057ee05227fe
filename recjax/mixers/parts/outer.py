"""Shared part of mixers whose state is a sum of outer products of keys and values."""

import jax
import jax.numpy as jnp

from recjax.mixers.mixer import Mixer, SeqContext, at_last
from recjax.nn.norm import RMSNorm
from recjax.ops.scan.outer import outer_scan
from recjax.typing import Array, Float


class OuterMixer(Mixer):
    """Base of these mixers: zeros at padding, projections without a bias."""

    zero_padding = True
    use_bias = False

    def gated(self, mixed: Float[Array, "b h l c"], x: Float[Array, "b l d"], last: Array | None) -> Array:
        """Output projection of readings that are normalised head by head and gated by SiLU: [b, l or s, d]."""
        mixed = self.normed(mixed, last)
        gate = jax.nn.silu(self.dense("gate", mixed.shape[-1])(at_last(x, last)))
        return self.dense("output")(mixed * gate)

    def normed(self, mixed: Float[Array, "b h l c"], last: Array | None) -> Array:
        """Readings normalised head by head, heads joined."""
        mixed = RMSNorm(dtype=self.dtype, name="norm")(at_last(mixed.swapaxes(1, 2), last))
        return mixed.reshape(*mixed.shape[:2], -1)


def empty(rows: int, heads: int, keys: int, values: int) -> Float[Array, "b h k v"]:
    """The state of empty histories; float32 whatever the compute type."""
    return jnp.zeros((rows, heads, keys, values), jnp.float32)


def read(
    query: Float[Array, "b h l k"],
    key: Float[Array, "b h l k"],
    value: Float[Array, "b h l v"],
    log_decay: Array | None,
    context: SeqContext,
    state: Array | None,
) -> tuple[Float[Array, "b h l v"], Float[Array, "b h k v"]]:
    """Readings o_t = q_t S_t of S_t = a_t S_{t-1} + k_t v_t^T within each history, and the last state of each row.

    The logarithm of a_t is [b, h, l] or [b, h, l, k]; None = no decay.
    """
    return outer_scan(query, key, value, log_decay, s0=state, starts=context.starts, valid=context.valid)
