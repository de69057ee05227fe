"""Causal attention to a window, the beginning of a history, and the blocks of the rest that match a query best."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from recjax.ops.attention.pairs import MASKED
from recjax.typing import Array, Bool, Float, Int


class Reach(NamedTuple):
    """The part of the past that a query sees, in events.

    Attributes:
        initial: first of the history.
        window: newest, itself among them.
        block: of a block of the others; at most `window`.
        top: blocks of the others.
    """

    initial: int
    window: int
    block: int
    top: int


def block_memory_attention(
    q: Float[Array, "b h l c"],
    k: Float[Array, "b h m c"],
    v: Float[Array, "b h m c"],
    first: Int[Array, " b"],
    reach: Reach,
    *,
    chunk: int = 64,
) -> Float[Array, "b h l c"]:
    """Softmax attention of each query to its `reach`.

    A block is summarised by the mean of its keys (Lu et al. 2025), and each query takes the `top` blocks whose mean has
    the largest product with it, of those that begin before its window. The choice has no gradient; the attention to
    what was chosen has. A query's work does not grow with the history but for one product a block. No `[l, m]` array is
    made: queries go by `chunk`.

    Args:
        q: queries, of the events first, first + 1, ...
        k: keys of events 0, 1, ... of each row's one history; those after a query are not seen.
        v: their values.
        first: the number of each row's first query.
        reach: what a query sees.
        chunk: queries at a time.
    """
    length = q.shape[2]
    size = min(chunk, length)
    queries = _filled(q, size)
    k, v = _filled(k, reach.block), _filled(v, reach.block)
    means = jnp.mean(k.astype(jnp.float32).reshape(*k.shape[:2], -1, reach.block, k.shape[3]), axis=3)

    @jax.checkpoint
    def part(start: Array) -> Array:
        asking = jax.lax.dynamic_slice_in_dim(queries, start, size, axis=2)
        return jax.vmap(partial(_row, reach))(asking, k, v, means, first + start)

    mixed = jax.lax.map(part, jnp.arange(0, queries.shape[2], size))
    return jnp.moveaxis(mixed, 0, 2).reshape(*queries.shape[:3], -1)[:, :, :length]


def _filled(x: Float[Array, "b h l c"], size: int) -> Float[Array, "b h n c"]:
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % size), (0, 0)))


def _row(reach: Reach, q, k, v, means, first) -> Float[Array, "h l c"]:
    """One row's queries, of the events first, first + 1, ..."""
    events = first + jnp.arange(q.shape[1])
    outside = events - reach.window  # the newest event that the window hides
    scale = q.shape[-1] ** -0.5

    # The window: one slice holds those of all the queries.
    width = min(reach.window - 1 + q.shape[1], k.shape[1])
    begin = jnp.clip(first - reach.window + 1, 0, k.shape[1] - width)
    near_k, near_v = (jax.lax.dynamic_slice_in_dim(x, begin, width, axis=1) for x in (k, v))
    near = begin + jnp.arange(width)
    scores = [_scores(q, near_k, (near <= events[:, None]) & (near > outside[:, None]), scale)]
    values = [near_v]
    if reach.initial:
        initial = jnp.arange(min(reach.initial, k.shape[1]))
        scores.append(_scores(q, k[:, : initial.size], initial <= outside[:, None], scale))
        values.append(v[:, : initial.size])

    # Blocks that hold an event which neither the window nor the beginning does.
    begins = jnp.arange(means.shape[1]) * reach.block
    eligible = (begins <= outside[:, None]) & (begins + reach.block > reach.initial)
    match = jnp.where(eligible, jnp.einsum("hlc,hnc->hln", q.astype(jnp.float32), means), MASKED)
    best, chosen = jax.lax.top_k(jax.lax.stop_gradient(match), min(reach.top, means.shape[1]))
    places = (chosen[..., None] * reach.block + jnp.arange(reach.block)).reshape(*chosen.shape[:2], -1)
    allowed = jnp.repeat(best > MASKED, reach.block, axis=-1)
    allowed &= (places <= outside[:, None]) & (places >= reach.initial)
    far_k, far_v = (jax.vmap(lambda x, at: jnp.take(x, at, axis=0))(x, places) for x in (k, v))
    far = jnp.einsum("hlc,hlnc->hln", q, far_k, preferred_element_type=jnp.float32) * scale
    scores.append(jnp.where(allowed, far, MASKED))

    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(v.dtype)
    mixed, column = jnp.einsum("hln,hlnc->hlc", weights[..., -places.shape[-1] :], far_v), 0
    for part in values:
        mixed += jnp.einsum("hln,hnc->hlc", weights[..., column : column + part.shape[1]], part)
        column += part.shape[1]
    return mixed


def _scores(q: Array, k: Array, allowed: Bool[Array, "l n"], scale: float) -> Float[Array, "h l n"]:
    scores = jnp.einsum("hlc,hnc->hln", q, k, preferred_element_type=jnp.float32) * scale
    return jnp.where(allowed, scores, MASKED)
