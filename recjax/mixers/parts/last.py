"""Attention of a few positions of each row, as ranking needs in a stack's last layer."""

import jax.numpy as jnp

from recjax.mixers.mixer import SeqContext
from recjax.ops.attention.dense import attend_keys
from recjax.ops.attention.pairs import GapBias, Visible
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, Int


def attend_last(
    query: Float[Array, "b h s c"],
    key: Float[Array, "b g l c"],
    value: Float[Array, "b g l e"],
    context: SeqContext,
    last: Int[Array, "b s"],
    visible: Visible,
    *,
    first: int = 0,
    bias: GapBias | None = None,
    share: float | None = None,
    dropout: float = 0.0,
    random: Array | None = None,
) -> Float[Array, "b h s e"]:
    """Attention of the positions `last` to those of their history that they may see.

    Args:
        query: of the positions `last`.
        key: of all positions.
        value: of all positions.
        context: of the batch.
        last: positions, each a query.
        visible: keys that a query sees by their places.
        first: positions at the beginning of a history that a window never hides.
        bias: added to the scores.
        share: factor of pointwise weights, see `recjax.ops.attention.dense.attend_keys`.
        dropout: share of attention weights dropped when `random` is given.
        random: random key, or None for no dropout.
    """
    places = jnp.arange(key.shape[2])[None]
    queries, keys = last // visible.slots, places // visible.slots
    same = take_position(context.segments, last)[:, :, None] == context.segments[:, None]
    allowed = visible.pairs(queries, keys)
    if first:
        begins = jnp.argmax(same, axis=2)[:, :, None]
        allowed |= (places[:, None] < begins + first) & (places[:, None] <= last[:, :, None])
    found = None
    if bias is not None:
        own = None if bias.seconds is None else take_position(bias.seconds, last)
        found = bias.pairs(queries, keys, own, bias.seconds)
    return attend_keys(query, (key,), (value,), allowed & same, found, share, dropout, random)
