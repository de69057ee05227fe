"""Softmax attention over packed rows: a position sees only its own segment, and with `causal` only its past.

An item may be one position (`attention`) or several tokens (`hybrid_attention`: bidirectional inside an item, causal
between items). Masks are computed from positions, block by block; no `[l, l]` array is made of them.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.ops.dropout import keep_mask
from recjax.typing import Array, Bool, Float, InputError, Int

MASKED = -1e30
"""Score of a forbidden pair: finite, so that a row that may see nothing stays finite; its weight is exactly 0."""

LONG = 1024
"""Tokens of a row from which `hybrid_attention` accumulates over blocks of keys, too."""


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


def attend_cache(
    q: Float[Array, "b h l c"],
    k: Float[Array, "b h m c"],
    v: Float[Array, "b h m c"],
    visible: Int[Array, "b l"],
) -> Float[Array, "b h l c"]:
    """Attention of new events to a cache of keys and values, of which query i of row b sees the first `visible[b, i]`.

    Softmax in float32.
    """
    scores = jnp.einsum("bhlc,bhmc->bhlm", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    allowed = jnp.arange(k.shape[2])[None, None] < visible[..., None]
    weights = jax.nn.softmax(jnp.where(allowed[:, None], scores, MASKED), axis=-1)
    return jnp.einsum("bhlm,bhmc->bhlc", weights.astype(v.dtype), v)


def hybrid_attention(
    q: Float[Array, "b h l c"],
    k: Float[Array, "b h l c"],
    v: Float[Array, "b h l c"],
    segments: Int[Array, "b l"],
    slots: int,
    *,
    block: int | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Float[Array, "b h l c"]:
    """Self-attention over items of `slots` tokens each: both directions inside an item, causal between items.

    The tokens of a row's item n are its positions n * slots .. n * slots + slots - 1, so an item never straddles two
    blocks and a block of queries needs no key after its own end. Rows below `LONG` tokens run as `attention` does, a
    block of queries against all keys up to its end. Longer rows accumulate over blocks of keys with a running maximum
    (Milakov & Gimelshein 2018; Dao et al. 2022), and their backward pass makes the weights of a block again instead of
    keeping them: memory for weights is one `[b, h, block, block]` array.

    Padding (segment 0) attends to padding: finite, and ignored by every loss.

    Args:
        q: queries.
        k: keys.
        v: values.
        segments: segment number of each token; all tokens of an item have the same.
        slots: tokens of an item; divides `l`.
        block: queries (and, in long rows, keys) per block, rounded down to whole items; by default 64, and 128 in
            long rows.
        dropout: share of attention weights dropped when `key` is given.
        key: random key, or None for no dropout.

    Returns:
        Array of the shape of `q` and the dtype of `v`; softmax and sums in float32.

    Raises:
        InputError: rows that end in the middle of an item.
    """
    length = q.shape[2]
    if slots < 1 or length % slots:
        raise InputError(f"rows of {length} tokens do not hold whole items of {slots} tokens")
    block = (64 if length < LONG else 128) if block is None else block
    block = max(block // slots, 1) * slots
    rate = dropout if key is not None else 0.0
    if length >= LONG:
        return online_hybrid_attention(q, k, v, segments, slots, block=block, dropout=rate, key=key)
    scale = 1.0 / math.sqrt(q.shape[-1])
    outputs = []
    for number, start in enumerate(range(0, length, block)):
        stop = min(start + block, length)
        allowed = segments[:, start:stop, None] == segments[:, None, :stop]
        allowed &= _item_order(start, stop, 0, stop, slots)[None]
        scores = jnp.einsum("bhlc,bhmc->bhlm", q[:, :, start:stop], k[:, :, :stop], preferred_element_type=jnp.float32)
        scores = jnp.where(allowed[:, None], scores * scale, MASKED)
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        if key is not None and rate:
            weights = jnp.where(keep_mask(jax.random.fold_in(key, number), weights.shape, rate), weights, 0.0)
            total = total * (1.0 - rate)
        mixed = jnp.einsum("bhlm,bhmc->bhlc", weights.astype(v.dtype), v[:, :, :stop])
        outputs.append((mixed / total).astype(v.dtype))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=2)


def attend_last_item(
    q: Float[Array, "q h s c"],
    k: Float[Array, "q h l c"],
    v: Float[Array, "q h l c"],
    allowed: Bool[Array, "q l"],
) -> Float[Array, "q h s c"]:
    """Attention of the tokens of one item a row, which all see the same keys: all that ranking needs of the last layer
    of a hybrid stack. Softmax in float32.
    """
    scores = jnp.einsum("qhsc,qhlc->qhsl", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(allowed[:, None, None], scores, MASKED), axis=-1)
    return jnp.einsum("qhsl,qhlc->qhsc", weights.astype(v.dtype), v)


def _item_order(start: int, stop: int, first: int, last: int, slots: int) -> Bool[Array, "l m"]:
    """Whether the item of each query in start..stop-1 is that of a key in first..last-1 or a later one."""
    # Divided here, not on the device: fused into the comparison, the division would be done for every pair.
    queries, keys = (jnp.asarray(np.arange(*bounds) // slots) for bounds in ((start, stop), (first, last)))
    return queries[:, None] >= keys[None, :]


class _Blocking(NamedTuple):
    """Static sizes of the attention over blocks: tokens of an item, tokens of a block, share of weights dropped."""

    slots: int
    block: int
    dropout: float


def online_hybrid_attention(
    q: Float[Array, "b h l c"],
    k: Float[Array, "b h l c"],
    v: Float[Array, "b h l c"],
    segments: Int[Array, "b l"],
    slots: int,
    *,
    block: int,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Float[Array, "b h l c"]:
    """`hybrid_attention` of long rows; `block` is a multiple of `slots`, which divides the length of a row."""
    rate = dropout if key is not None else 0.0
    seed = jax.random.key_data(key) if key is not None and rate else None
    return _online(q, k, v, segments, seed, _Blocking(slots, block, rate))


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _online(q, k, v, segments, seed, blocking: _Blocking) -> Array:
    return _online_forward(q, k, v, segments, seed, blocking)[0]


def _online_forward(q, k, v, segments, seed, blocking: _Blocking):
    """The output, and what the backward pass needs: the inputs, the output and each query's log of its weights' sum."""
    length, width = q.shape[2], blocking.block
    outputs, logsums = [], []
    for number, start in enumerate(range(0, length, width)):
        stop = min(start + width, length)
        pair = _Pair(q, k, v, segments, seed, blocking, number, start, stop)

        def fold(carry, index, pair=pair):
            top, total, mixed = carry
            scores = pair.scores(index)
            new_top = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
            weights, shrink = jnp.exp(scores - new_top), jnp.exp(top - new_top)
            total = total * shrink + jnp.sum(weights, axis=-1, keepdims=True)
            return (new_top, total, mixed * shrink + pair.mix(pair.kept(weights, index), index)), None

        # The queries' own block comes first: it has at least the query's own item, so that the running maximum is a
        # real score and masked pairs of the other blocks weigh exactly 0.
        scores = pair.scores(None)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        carry = (top, jnp.sum(weights, axis=-1, keepdims=True), pair.mix(pair.kept(weights, None), None))
        if number:
            carry, _ = jax.lax.scan(fold, carry, jnp.arange(number))
        top, total, mixed = carry
        outputs.append((mixed / total).astype(v.dtype))
        logsums.append(top + jnp.log(total))
    output, logsum = jnp.concatenate(outputs, axis=2), jnp.concatenate(logsums, axis=2)
    return output, (q, k, v, segments, seed, output, logsum)


def _online_backward(blocking: _Blocking, kept, cotangent):
    q, k, v, segments, seed, output, logsum = kept
    length, width = q.shape[2], blocking.block
    scale = 1.0 / math.sqrt(q.shape[-1])
    cotangent = cotangent.astype(jnp.float32)
    # sum_j P_ij dP_ij of the softmax's derivative, with or without dropout.
    shared = jnp.sum(cotangent * output.astype(jnp.float32), axis=-1, keepdims=True)
    dq, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for number, start in enumerate(range(0, length, width)):
        stop = min(start + width, length)
        pair = _Pair(q, k, v, segments, seed, blocking, number, start, stop)
        dout, logs, delta = (x[:, :, start:stop] for x in (cotangent, logsum, shared))

        def fold(carry, index, pair=pair, dout=dout, logs=logs, delta=delta):
            dq, dk, dv = carry
            weights = jnp.exp(pair.scores(index) - logs)
            dweights = pair.kept(jnp.einsum("bhlc,bhmc->bhlm", dout, pair.cut(pair.v, index, 2)), index)
            dscores = weights * (dweights - delta) * scale
            dq += jnp.einsum("bhlm,bhmc->bhlc", dscores, pair.cut(pair.k, index, 2))
            dk = pair.add(dk, jnp.einsum("bhlm,bhlc->bhmc", dscores, pair.queries), index)
            dv = pair.add(dv, jnp.einsum("bhlm,bhlc->bhmc", pair.kept(weights, index), dout), index)
            return (dq, dk, dv), None

        carry, _ = fold((jnp.zeros(dout.shape[:3] + q.shape[3:], jnp.float32), dk, dv), None)
        if number:
            carry, _ = jax.lax.scan(fold, carry, jnp.arange(number))
        block_dq, dk, dv = carry
        dq.append(block_dq)
    return jnp.concatenate(dq, axis=2).astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_online.defvjp(_online_forward, _online_backward)


class _Pair(NamedTuple):
    """A block of queries (number `number`, tokens start..stop-1) and one block of keys at a time: an index of an
    earlier block, or None for the queries' own.
    """

    q: Array
    k: Array
    v: Array
    segments: Array
    seed: Array | None
    blocking: _Blocking
    number: int
    start: int
    stop: int

    @property
    def queries(self) -> Float[Array, "b h l c"]:
        return self.q[:, :, self.start : self.stop]

    def cut(self, x: Array, index: Array | None, axis: int) -> Array:
        """The key block's part of `x`; earlier blocks are never ragged."""
        if index is None:
            return jax.lax.slice_in_dim(x, self.start, self.stop, axis=axis)
        width = self.blocking.block
        return jax.lax.dynamic_slice_in_dim(x, index * width, width, axis=axis)

    def add(self, total: Array, part: Array, index: Array | None) -> Array:
        """`total` with `part` added to the key block."""
        start = self.start if index is None else index * self.blocking.block
        return jax.lax.dynamic_update_slice_in_dim(total, self.cut(total, index, 2) + part, start, axis=2)

    def scores(self, index: Array | None) -> Float[Array, "b h l m"]:
        """Scaled scores, `MASKED` where forbidden. Earlier blocks hold earlier items only."""
        keys = self.cut(self.k, index, 2)
        scores = jnp.einsum("bhlc,bhmc->bhlm", self.queries, keys, preferred_element_type=jnp.float32)
        allowed = self.segments[:, self.start : self.stop, None] == self.cut(self.segments, index, 1)[:, None, :]
        if index is None:
            allowed &= _item_order(self.start, self.stop, self.start, self.stop, self.blocking.slots)[None]
        return jnp.where(allowed[:, None], scores / math.sqrt(self.q.shape[-1]), MASKED)

    def kept(self, weights: Array, index: Array | None) -> Array:
        """Weights (or their derivatives) after dropout."""
        if self.seed is None:
            return weights
        key = jax.random.fold_in(jax.random.wrap_key_data(self.seed), self.number)
        mask = keep_mask(
            jax.random.fold_in(key, self.number if index is None else index), weights.shape, self.blocking.dropout
        )
        return jnp.where(mask, weights / (1.0 - self.blocking.dropout), 0.0)

    def mix(self, weights: Array, index: Array | None) -> Float[Array, "b h l c"]:
        """Weighted sum of the key block's values, in float32."""
        values = self.cut(self.v, index, 2)
        return jnp.einsum("bhlm,bhmc->bhlc", weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
