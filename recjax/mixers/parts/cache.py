"""Keys and values of the past: what mixers that compare events with each other go on from."""

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
    """Keys and values of the newest tokens that there is room for or, where it does not wrap, of the first.

    Attributes:
        key: of each token; token n has the place n modulo the room.
        value: of each token.
        length: tokens that there have been.
        seconds: unix seconds of each token, or None.
        wraps: a token beyond the room takes the place of the oldest; otherwise it is not kept.
    """

    key: Float[Array, "b h m c"]
    value: Float[Array, "b h m e"]
    length: Int[Array, " b"]
    seconds: Int[Array, "b m"] | None = None
    wraps: bool = field(default=True, metadata={"static": True})

    @property
    def room(self) -> int:
        return self.key.shape[2]

    @property
    def tokens(self) -> Int[Array, "b m"]:
        """The number of the token at each place; negative where there is none."""
        places, length = jnp.arange(self.room), self.length[:, None]
        if not self.wraps:
            return jnp.where(places < length, places, -1)
        return length - 1 - (length - 1 - places) % self.room

    def extended(self, key: Array, value: Array, context: SeqContext) -> "Cache":
        """With the keys and values [b, h, l, c] of the tokens that follow; those of padding are not kept."""
        offsets = jnp.arange(key.shape[2])[None]
        added = jnp.sum(context.valid, axis=1, dtype=jnp.int32)
        tokens = self.length[:, None] + offsets
        # Of a chunk longer than the room only the end is kept, so that no place is written twice.
        kept = context.valid & ((offsets >= added[:, None] - self.room) if self.wraps else (tokens < self.room))
        places = jnp.where(kept, tokens % self.room, self.room)

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
    """A cache without tokens; `channels` of a key and of a value."""
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
    """Attention of new tokens to those of the past and to each other: what attention to the whole history gives them.

    Args:
        query: of the new tokens.
        key: of the new tokens.
        value: of the new tokens.
        context: of the new tokens.
        caches: of the newest tokens and, if a window does not hide them, of the first (a cache that does not wrap).
        visible: what a token sees by place.
        bias: added to the scores.
        share: of pointwise weights, see `recjax.ops.attention.dense.attend_keys`.

    Returns:
        The output, and the caches with the new tokens in them.
    """
    recent, first = caches[0], sum(cache.room for cache in caches[1:])
    if visible.window is None:
        # What no longer has room is not seen, however the history is cut into calls.
        visible = visible._replace(window=recent.room // visible.slots)
    asking = recent.length[:, None] + jnp.arange(query.shape[2])
    held = [jnp.where(recent.tokens < first, -1, recent.tokens), *(cache.tokens for cache in caches[1:])]
    tokens = jnp.concatenate([*held, jnp.where(context.valid, asking, -1)], axis=1)
    queries, keys = asking // visible.slots, tokens // visible.slots
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
