"""Softmax attention over packed rows: a position sees only its own segment, and with `causal` only its past."""

import math

import jax
import jax.numpy as jnp

from recjax.ops.dropout import keep_mask
from recjax.typing import Array, Bool, Float, Int

MASKED = -1e30
"""Score of a forbidden pair: finite, so that a row that may see nothing stays finite; its weight is exactly 0."""


def attention_reference(
    q: Float[Array, "b l h c"],
    k: Float[Array, "b m h c"],
    v: Float[Array, "b m h c"],
    allowed: Bool[Array, "b l m"],
) -> Float[Array, "b l h c"]:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) with an explicit mask: the slow, plain definition.

    A query that may see nothing returns zeros.
    """
    scores = jnp.einsum("blhc,bmhc->bhlm", q, k) / math.sqrt(q.shape[-1])
    scores = jnp.where(allowed[:, None], scores, -jnp.inf)
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0.0))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1.0)
    return jnp.einsum("bhlm,bmhc->blhc", weights, v)


def attention(
    q: Float[Array, "b h l c"],
    k: Float[Array, "b h l c"],
    v: Float[Array, "b h l c"],
    segments: Int[Array, "b l"],
    *,
    causal: bool = True,
    block: int = 64,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Float[Array, "b h l c"]:
    """Self-attention inside the segments of packed rows; softmax in float32.

    Causal attention runs in blocks of queries, each against the keys up to its own end, so that nearly half of the
    `[l, l]` work and memory is never touched. Heads lead positions so that every product is a plain batched matrix
    product: on XLA:CPU the transposes of a `[b, l, h, c]` layout cost as much as the products.

    Padding (segment 0) attends to padding: finite, and ignored by every loss.

    Args:
        q: queries.
        k: keys.
        v: values.
        segments: segment number of each position.
        causal: forbid the future.
        block: queries per block.
        dropout: share of attention weights dropped when `key` is given.
        key: random key, or None for no dropout.

    Returns:
        Array of the shape of `q` and the dtype of `v`.
    """
    length = q.shape[2]
    size = block if causal else length
    scale = 1.0 / math.sqrt(q.shape[-1])
    outputs = []
    for number, start in enumerate(range(0, length, size)):
        stop = min(start + size, length)
        seen = stop if causal else length
        allowed = segments[:, start:stop, None] == segments[:, None, :seen]
        if causal:
            allowed &= (jnp.arange(start, stop)[:, None] >= jnp.arange(seen)[None, :])[None]
        scores = jnp.einsum("bhlc,bhmc->bhlm", q[:, :, start:stop], k[:, :, :seen], preferred_element_type=jnp.float32)
        scores = jnp.where(allowed[:, None], scores * scale, MASKED)
        top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
        weights = jnp.exp(scores - top)
        # Dividing the output instead of the weights saves one pass over [l, l]; dropout commutes with it.
        total = jnp.sum(weights, axis=-1, keepdims=True)
        if key is not None and dropout > 0.0:
            keep = keep_mask(jax.random.fold_in(key, number), weights.shape, dropout)
            weights = jnp.where(keep, weights, 0.0)
            total = total * (1.0 - dropout)
        mixed = jnp.einsum("bhlm,bhmc->bhlc", weights.astype(v.dtype), v[:, :, :seen])
        outputs.append((mixed / total).astype(v.dtype))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=2)


def attend_last(
    q: Float[Array, "q h c"],
    k: Float[Array, "q h l c"],
    v: Float[Array, "q h l c"],
    allowed: Bool[Array, "q l"],
) -> Float[Array, "q h c"]:
    """Attention of one query per row: all that ranking needs of the last layer. Softmax in float32."""
    scores = jnp.einsum("qhc,qhlc->qhl", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(allowed[:, None], scores, MASKED), axis=-1)
    return jnp.einsum("qhl,qhlc->qhc", weights.astype(v.dtype), v)
