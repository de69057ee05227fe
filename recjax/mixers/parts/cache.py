"""KV cache of attention mixers, and the attention of new tokens to it."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from recjax.mixers.mixer import SeqContext
from recjax.ops.attention.dense import attend_keys
from recjax.ops.attention.pairs import GapBias, Visible
from recjax.typing import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the newest tokens or, where the cache does not wrap, of the first ones.

    Attributes:
        key: keys; token n has the place n modulo the room.
        value: values, in the same places.
        length: tokens seen so far.
        seconds: unix seconds of each token, or None.
        wraps: a token beyond the room replaces the oldest; otherwise it is dropped.
    """

    key: Float[Array, "b h m c"]
    value: Float[Array, "b h m e"]
    length: Int[Array, " b"]
    seconds: Int[Array, "b m"] | None = None
    wraps: bool = field(default=True, metadata={"static": True})

    @property
    def room(self) -> int:
        """Tokens that the cache can hold."""
        return self.key.shape[2]

    @property
    def tokens(self) -> Int[Array, "b m"]:
        """Number of the token at each place; negative at an empty one."""
        places, length = jnp.arange(self.room), self.length[:, None]
        if not self.wraps:
            return jnp.where(places < length, places, -1)
        return length - 1 - (length - 1 - places) % self.room

    def extended(self, key: Array, value: Array, context: SeqContext) -> "Cache":
        """The cache after new tokens with these keys and values, [b, h, l, c]; padding is dropped."""
        offsets = jnp.arange(key.shape[2])[None]
        added = context.events
        tokens = self.length[:, None] + offsets
        # Of a chunk longer than the room only the end is stored, so that no place is written twice.
        stored = context.valid & ((offsets >= added[:, None] - self.room) if self.wraps else (tokens < self.room))
        places = jnp.where(stored, tokens % self.room, self.room)

        @jax.vmap
        def write(held: Array, new: Array, places: Array) -> Array:
            return held.at[..., places, :].set(new.astype(held.dtype), mode="drop")

        seconds = self.seconds
        if seconds is not None and context.timestamps is not None:
            seconds = write(seconds[..., None], context.timestamps[..., None], places)[..., 0]
        return Cache(
            write(self.key, key, places), write(self.value, value, places), self.length + added, seconds, self.wraps
        )


def empty(
    *, rows: int, heads: int, room: int, channels: tuple[int, int], dtype, times: bool = False, wraps: bool = True
) -> Cache:
    """An empty cache for keys and values of `channels` channels."""
    key, value = (jnp.zeros((rows, heads, room, width), dtype) for width in channels)
    seconds = jnp.zeros((rows, room), jnp.int32) if times else None
    return Cache(key, value, jnp.zeros(rows, jnp.int32), seconds, wraps)


def attend(
    query: Float[Array, "b h l c"],
    key: Float[Array, "b g l c"],
    value: Float[Array, "b g l e"],
    context: SeqContext,
    caches: tuple[Cache, ...],
    visible: Visible,
    *,
    bias: GapBias | None = None,
    share: float | None = None,
) -> tuple[Float[Array, "b h l e"], tuple[Cache, ...]]:
    """Attention of new tokens to cached ones and to each other: equal to attention over the whole history.

    Args:
        query: queries of the new tokens.
        key: keys of the new tokens.
        value: values of the new tokens.
        context: segments, positions and times of the new tokens.
        caches: the cache of the newest tokens and, if a window never hides those, of the first (which does not wrap).
        visible: keys that a query sees by their places.
        bias: added to the scores.
        share: of pointwise weights, see `recjax.ops.attention.dense.attend_keys`.

    Returns:
        The output, and the caches with the new tokens in them.
    """
    recent, first = caches[0], sum(cache.room for cache in caches[1:])
    if visible.window is None:
        # The room acts as a window, so that the result does not depend on the cut into calls.
        visible = visible._replace(window=recent.room // visible.slots)
    new = recent.length[:, None] + jnp.arange(query.shape[2])
    held = [jnp.where(recent.tokens < first, -1, recent.tokens), *(cache.tokens for cache in caches[1:])]
    tokens = jnp.concatenate([*held, jnp.where(context.valid, new, -1)], axis=1)
    queries, keys = new // visible.slots, tokens // visible.slots
    allowed = visible.pairs(queries, keys)
    if first:
        allowed |= visible._replace(window=None).pairs(queries, keys) & (tokens < first)[:, None]
    allowed &= (tokens >= 0)[:, None]
    found = None
    if bias is not None:
        seconds = None
        if context.timestamps is not None and recent.seconds is not None:
            seconds = jnp.concatenate([*(cache.seconds for cache in caches), context.timestamps], axis=1)  # pyright: ignore
        found = bias.pairs(queries, keys, context.timestamps, seconds)
    mixed = attend_keys(
        query,
        (*(cache.key for cache in caches), key),
        (*(cache.value for cache in caches), value),
        allowed,
        found,
        share,
    )
    return mixed, tuple(cache.extended(key, value, context) for cache in caches)
