"""Shared part of mixers whose state is a sum of outer products of keys and values."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from recjax.mixers.mixer import SeqContext
from recjax.ops.items.embedding import take_position
from recjax.ops.scan.outer import outer_scan
from recjax.typing import Array, Float, InputError


def events_only(x: Float[Array, "b l d"], context: SeqContext, source: Array | None, who: str) -> Float[Array, "b l d"]:
    """The stream with zeros at padding, so that nothing that stands there reaches a value or a gradient.

    Raises:
        InputError: a second stream for keys and values, which `who` does not take.
    """
    if source is not None:
        raise InputError(f"{who} takes queries, keys and values from one stream")
    return jnp.where(context.valid[..., None], x, 0)


def dense(features: int, dtype: Any, name: str, *, bias: bool = False) -> nn.Dense:
    """A projection, Xavier uniform as in `Attention`."""
    return nn.Dense(features, use_bias=bias, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)


def to_heads(x: Float[Array, "b l d"], heads: int) -> Float[Array, "b h l c"]:
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def from_heads(x: Float[Array, "b h l c"], last: Array | None) -> Float[Array, "b *l h c"]:
    """Heads behind positions again, and of the positions only `last` where it is given."""
    return at_last(x.swapaxes(1, 2), last)


def at_last(x: Array, last: Array | None) -> Array:
    return x if last is None else take_position(x, last)


def per_head(width: int, heads: int, what: str) -> int:
    """Channels of a head.

    Raises:
        InputError: heads that do not divide `width`, which is `what`.
    """
    if heads < 1 or width % heads:
        raise InputError(f"{heads} heads do not divide {what} of {width}")
    return width // heads


def empty(rows: int, heads: int, keys: int, values: int) -> Float[Array, "b h k v"]:
    """The state of rows without a past; float32 whatever the compute type."""
    return jnp.zeros((rows, heads, keys, values), jnp.float32)


def read(
    query: Float[Array, "b h l k"],
    key: Float[Array, "b h l k"],
    value: Float[Array, "b h l v"],
    log_decay: Array | None,
    context: SeqContext,
    state: Array | None,
) -> tuple[Float[Array, "b h l v"], Float[Array, "b h k v"]]:
    """Values that queries read from S_t = a_t S_{t-1} + k_t v_t^T within their history, and the last state of each row.

    The logarithm of a_t is [b, h, l] or [b, h, l, k]; None = nothing is forgotten.
    """
    return outer_scan(query, key, value, log_decay, s0=state, starts=context.starts, valid=context.valid)
