"""Attention to the neighbours in a locality sensitive hash (Reformer, Kitaev et al. 2020)."""

from functools import partial

import jax
import jax.numpy as jnp

from recjax.ops.attention.blocks import merge
from recjax.ops.attention.pairs import MASKED
from recjax.typing import Array, Float, Int

ITSELF = -1e5
"""Score of an event with itself: with shared queries and keys it would always win; it counts where it is alone."""


def hashes(q: Float[Array, "b h l c"], rotations: Float[Array, "r c n"]) -> Int[Array, "r b h l"]:
    """The bucket of each query in each round, 0 .. 2n - 1: the nearest of n random directions and their opposites
    (Andoni et al. 2015).
    """
    projected = jnp.einsum("bhlc,rcn->rbhln", q.astype(jnp.float32), rotations)
    return jnp.argmax(jnp.concatenate([projected, -projected], axis=-1), axis=-1).astype(jnp.int32)


def lsh_attention(
    q: Float[Array, "b h l c"],
    v: Float[Array, "b h l e"],
    segments: Int[Array, "b l"],
    rotations: Float[Array, "r c n"],
    *,
    window: int,
    causal: bool = True,
) -> Float[Array, "b h l e"]:
    """Attention of each event to itself and the nearest of its bucket, in its own history; keys are the queries, of
    length 1.

    Events are sorted by history, bucket and place, and each sees the `window - 1` before it in that order (and after it
    where not causal), as far as they share its history and bucket: the latest events that hash as it does. What an
    event sees does not depend on later events; in the published form it does, through where the chunks of the sorted
    order end.

    Rounds are joined by the sums of their exponentials, so a pair that meets in several rounds counts as often.

    Args:
        q: queries.
        v: values.
        segments: segment number of each position.
        rotations: random directions of each round.
        window: events of a bucket that an event sees to a side, itself among them.
        causal: forbid the future.
    """
    buckets = 2 * rotations.shape[-1]
    places = segments[None, :, None] * buckets + hashes(jax.lax.stop_gradient(q), rotations)
    attend = partial(_round, q, v, window=min(window, q.shape[2]), causal=causal)
    return merge([attend(places[number]) for number in range(rotations.shape[0])])


def _round(q: Array, v: Array, places: Int[Array, "b h l"], *, window: int, causal: bool) -> tuple[Array, Array]:
    """Output and log of the sum of exponentials of one round."""
    order = jnp.argsort(places, axis=-1, stable=True)
    back = jnp.argsort(order, axis=-1)

    def sort(x: Array, order: Array) -> Array:
        return jnp.take_along_axis(x, order[..., None], axis=2)

    bucket = jnp.take_along_axis(places, order, axis=2)
    query, value = sort(q, order), sort(v, order)
    norm = jnp.sqrt(jnp.sum(jnp.square(query.astype(jnp.float32)), axis=-1, keepdims=True) + 1e-12)
    key = (query / norm).astype(q.dtype)
    index = jnp.arange(q.shape[2])
    shifts = jnp.arange(window) if causal else jnp.arange(1 - window, window)

    @jax.checkpoint
    def score(shift: Array) -> Float[Array, "b h l"]:
        """With the event `shift` places before."""
        product = jnp.sum(query * jnp.roll(key, shift, axis=2), axis=-1, dtype=jnp.float32) * q.shape[-1] ** -0.5
        there = (index - shift >= 0) & (index - shift < q.shape[2]) & (bucket == jnp.roll(bucket, shift, axis=2))
        return jnp.where(there, jnp.where(shift == 0, ITSELF, product), MASKED)

    scores = jax.lax.map(score, shifts)
    logsum = jax.nn.logsumexp(scores, axis=0)

    @jax.checkpoint
    def mix(weights: Array, shift: Array) -> Array:
        return weights[..., None] * jnp.roll(value, shift, axis=2).astype(jnp.float32)

    weights = jnp.exp(scores - logsum)
    mixed, _ = jax.lax.scan(lambda sum_, at: (sum_ + mix(*at), None), jnp.zeros(v.shape), (weights, shifts))
    return sort(mixed.astype(v.dtype), back), sort(logsum[..., None], back)
