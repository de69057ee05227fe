"""Losses over a catalog of items, as sums over weighted positions.

The full softmax cross-entropy of `t` tokens over `n` items,

    sum_i w_i (log sum_j exp(x_i . e_j + b_j) - x_i . e_{y_i} - b_{y_i}),

needs `[t, n]` logits, which for 25,600 tokens and a million items are 100 GB. `full_softmax` walks over chunks of
tokens and, inside them, over chunks of items, so that no more than `chunk_elements` logits exist at a time. Because
the loss is a scalar whose cotangent only scales the gradients, the forward pass computes them while a chunk's
logits are at hand (three products a chunk instead of the four of recomputation); the backward pass multiplies.
Tokens of weight 0 (padding, unmasked cloze positions) are moved to the end and never computed.

With a mesh, tokens are sharded over the data axis and rows of the table over the model axis: each device makes the
logits of its own rows, and only per-token maxima, sums and input gradients cross the model axis.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.ambient import axis_size
from recjax.ops.loops import bounded_loop
from recjax.typing import DATA_AXIS, MODEL_AXIS, Array, Bool, Float, Int

EXCLUDED = -1e30
"""Logit of rows that are no items: exp of it is exactly 0, and no infinity meets another."""


def full_softmax_dense(
    hidden: Float[Array, "t d"],
    table: Float[Array, "n d"],
    bias: Float[Array, " n"] | None,
    targets: Int[Array, " t"],
    weights: Float[Array, " t"],
    *,
    items: int,
) -> Float[Array, ""]:
    """The definition: `[t, n]` logits at once. The reference for `full_softmax`, and its peer in benchmarks."""
    logits = (hidden @ table.T).astype(jnp.float32)
    logits = logits if bias is None else logits + bias
    rows = jnp.arange(table.shape[0])
    logits = jnp.where((rows >= 1) & (rows <= items), logits, EXCLUDED)
    picked = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return jnp.sum(jnp.where(weights > 0, weights * (jax.nn.logsumexp(logits, axis=-1) - picked), 0.0))


class _Limits(NamedTuple):
    """Static sizes of the chunked loss: last item id and the most logits at a time."""

    items: int
    chunk_elements: int


class _Gradients(NamedTuple):
    """Of the sum, by input; or the partition specs of these.

    Those of table and bias have one more axis in front, of the devices along the data axis: each holds what its own
    tokens give. They are added up in the backward pass, where the compiler joins the exchange with that of the other
    gradients of a table.
    """

    hidden: Any
    table: Any
    bias: Any


def full_softmax(
    hidden: Float[Array, "t d"],
    table: Float[Array, "n d"],
    bias: Float[Array, " n"] | None,
    targets: Int[Array, " t"],
    weights: Float[Array, " t"],
    *,
    items: int,
    chunk_elements: int = 2**22,
) -> Float[Array, ""]:
    """Sum of weighted cross-entropies over all items, in bounded memory; logits and sums in float32.

    Args:
        hidden: user states; their dtype is the compute type of the products.
        table: item vectors; rows 0 and above `items` are no items and never compete.
        bias: of each row, or None.
        targets: item ids in 1..items wherever the weight is not 0.
        weights: 0 takes a token out of the sum and of the work.
        items: catalog size.
        chunk_elements: most logits at a time on a device.

    Returns:
        float32 scalar; the same value and gradients as `full_softmax_dense` up to rounding.
    """
    if bias is None:
        bias = jax.lax.stop_gradient(jnp.zeros(table.shape[0], jnp.float32))
    return _full_softmax(hidden, table, bias, targets, weights, _Limits(items, chunk_elements))


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _full_softmax(hidden, table, bias, targets, weights, limits: _Limits) -> Array:
    return _sharded(hidden, table, bias, targets, weights, limits, gradients=False)[0]


def _full_softmax_forward(hidden, table, bias, targets, weights, limits):
    return _sharded(hidden, table, bias, targets, weights, limits, gradients=True)


def _full_softmax_backward(limits, gradients: _Gradients, cotangent):
    scaled = jax.tree.map(lambda g: (g * cotangent).astype(g.dtype), gradients)
    return scaled.hidden, jnp.sum(scaled.table, axis=0), jnp.sum(scaled.bias, axis=0), None, None


_full_softmax.defvjp(_full_softmax_forward, _full_softmax_backward)


def _sharded(hidden, table, bias, targets, weights, limits: _Limits, gradients: bool):
    """Loss and gradients on the ambient mesh; on one device, plainly."""
    data, model = axis_size(DATA_AXIS), axis_size(MODEL_AXIS)

    def whole(hidden, table, bias, targets, weights, shards: int = 1):
        loss, grads = _local(hidden, table, bias, targets, weights, limits=limits, gradients=gradients, shards=shards)
        return loss, None if grads is None else grads._replace(table=grads.table[None], bias=grads.bias[None])

    def island(*inputs):
        loss, grads = whole(*inputs, shards=model)
        return jax.lax.psum(loss, DATA_AXIS), grads

    if data * model == 1:
        return whole(hidden, table, bias, targets, weights)
    tokens, rows, parts = PartitionSpec(DATA_AXIS), PartitionSpec(MODEL_AXIS), PartitionSpec(DATA_AXIS, MODEL_AXIS)
    return jax.shard_map(
        island,
        in_specs=(tokens, rows, rows, tokens, tokens),
        out_specs=(PartitionSpec(), _Gradients(tokens, parts, parts) if gradients else None),
        # The collectives are all explicit: nothing is differentiated through the island.
        check_vma=False,
    )(hidden, table, bias, targets, weights)


def _local(hidden, table, bias, targets, weights, *, limits: _Limits, gradients: bool, shards: int):
    """Loss and gradients of this device's tokens against its rows, joined over the model axis if `shards` > 1."""
    tokens, rows = hidden.shape[0], table.shape[0]
    first = jax.lax.axis_index(MODEL_AXIS) * rows if shards > 1 else 0
    item_chunk = min(rows, max(limits.chunk_elements // 256, 128))
    token_chunk = min(tokens, max(limits.chunk_elements // item_chunk, 1))

    # Active tokens first; the loop below stops after the last chunk that holds one.
    order, active = _active_first(weights > 0)
    padded = -(-tokens // token_chunk) * token_chunk
    order = jnp.concatenate([order, jnp.full(padded - tokens, tokens, jnp.int32)])
    rule = partial(_chunk, table.astype(hidden.dtype), bias, first, item_chunk, limits.items, gradients, shards)

    def body(number, carry):
        loss, grads = carry
        index = jax.lax.dynamic_slice(order, (number * token_chunk,), (token_chunk,))
        x = jnp.take(hidden, index, axis=0, mode="fill", fill_value=0)
        y = jnp.take(targets, index, mode="fill", fill_value=0)
        w = jnp.take(weights, index, mode="fill", fill_value=0)
        chunk_loss, chunk_grads = rule(x, y, w)
        if grads is not None:
            grads = _Gradients(
                grads.hidden.at[index].set(chunk_grads.hidden.astype(hidden.dtype), mode="drop"),
                grads.table + chunk_grads.table,
                grads.bias + chunk_grads.bias,
            )
        return loss + chunk_loss, grads

    start = None
    if gradients:
        start = _Gradients(
            jnp.zeros_like(hidden), jnp.zeros(table.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32)
        )
    chunks = (active + token_chunk - 1) // token_chunk
    return bounded_loop(chunks, padded // token_chunk, body, (jnp.zeros((), jnp.float32), start))


def _active_first(active: Bool[Array, " t"]) -> tuple[Int[Array, " t"], Array]:
    """Places of a stable partition, active ones first, and how many are active; sorting would cost more everywhere."""
    before = jnp.cumsum(active, dtype=jnp.int32)
    count = before[-1]
    place = jnp.arange(active.shape[0], dtype=jnp.int32)
    target = jnp.where(active, before - 1, count + place - before)
    return jnp.zeros_like(place).at[target].set(place, unique_indices=True, mode="promise_in_bounds"), count


def _chunk(table, bias, first, item_chunk, items, gradients, shards, x, y, w) -> tuple[Array, Any]:
    """Loss and gradients of one chunk of tokens: `x` [c, d], targets `y` [c], weights `w` [c]."""
    rows = table.shape[0]
    pieces = -(-rows // item_chunk)

    def piece(number):
        """Rows, bias and ids of a chunk of items; the last one overlaps its neighbour and masks what it repeats."""
        start = jnp.minimum(number * item_chunk, rows - item_chunk)
        part = jax.lax.dynamic_slice(table, (start, 0), (item_chunk, table.shape[1]))
        local = start + jnp.arange(item_chunk)
        ids = first + local
        valid = (local >= number * item_chunk) & (ids >= 1) & (ids <= items)
        return start, part, jax.lax.dynamic_slice(bias, (start,), (item_chunk,)), ids, valid

    def logits_of(part, part_bias, valid):
        scores = jnp.einsum("cd,nd->cn", x, part, preferred_element_type=jnp.float32) + part_bias
        return jnp.where(valid, scores, EXCLUDED)

    def statistics(number, carry):
        top, total, picked = carry
        _, part, part_bias, ids, valid = piece(number)
        logits = logits_of(part, part_bias, valid)
        new_top = jnp.maximum(top, jnp.max(logits, axis=-1))
        total = total * jnp.exp(top - new_top) + jnp.sum(jnp.exp(logits - new_top[:, None]), axis=-1)
        picked += jnp.sum(jnp.where((ids == y[:, None]) & valid, logits, 0.0), axis=-1)
        return new_top, total, picked

    count = x.shape[0]
    start = (jnp.full(count, EXCLUDED, jnp.float32), jnp.zeros(count, jnp.float32), jnp.zeros(count, jnp.float32))
    top, total, picked = _over(pieces, statistics, start)
    if shards > 1:
        best = jax.lax.pmax(top, MODEL_AXIS)
        total, picked = jax.lax.psum((total * jnp.exp(top - best), picked), MODEL_AXIS)
        top = best
    loss = jnp.sum(jnp.where(w > 0, w * (top + jnp.log(total) - picked), 0.0))
    if not gradients:
        return loss, None
    scale = w / total

    def gradient(number, carry):
        dx, dtable, dbias = carry
        start, part, part_bias, ids, valid = piece(number)
        share = jnp.exp(logits_of(part, part_bias, valid) - top[:, None]) * scale[:, None]
        share = jnp.where((ids == y[:, None]) & valid, share - w[:, None], share).astype(x.dtype)
        dx += jnp.einsum("cn,nd->cd", share, part, preferred_element_type=jnp.float32)
        rows_grad = jnp.einsum("cn,cd->nd", share, x, preferred_element_type=jnp.float32)
        bias_grad = jnp.sum(share, axis=0, dtype=jnp.float32)
        return dx, _add_rows(dtable, rows_grad, start), _add_rows(dbias, bias_grad, start)

    zeros = (jnp.zeros(x.shape, jnp.float32), jnp.zeros(table.shape, jnp.float32), jnp.zeros(rows, jnp.float32))
    dx, dtable, dbias = _over(pieces, gradient, zeros)
    if shards > 1:
        dx = jax.lax.psum(dx, MODEL_AXIS)
    return loss, _Gradients(dx, dtable, dbias)


def _over(pieces: int, body, start):
    """A loop over item chunks; a single chunk is inlined, so that XLA sees one product shared by both passes."""
    return body(0, start) if pieces == 1 else jax.lax.fori_loop(0, pieces, body, start)


def _add_rows(total: Array, part: Array, start) -> Array:
    if part.shape == total.shape:
        return total + part
    index = (start,) + (0,) * (total.ndim - 1)
    return jax.lax.dynamic_update_slice(total, jax.lax.dynamic_slice(total, index, part.shape) + part, index)


def sampled_softmax(
    positive: Float[Array, "b l"], negative: Float[Array, "b l n"], allowed: Bool[Array, "b l n"]
) -> Float[Array, "b l"]:
    """-log of the positive's share among itself and its allowed negatives (Jean et al. 2015), per position."""
    negative = jnp.where(allowed, negative, EXCLUDED).astype(jnp.float32)
    positive = positive.astype(jnp.float32)
    top = jax.lax.stop_gradient(jnp.maximum(positive, jnp.max(negative, axis=-1)))
    total = jnp.exp(positive - top) + jnp.sum(jnp.exp(negative - top[..., None]), axis=-1)
    return top + jnp.log(total) - positive


def gbce(
    positive: Float[Array, "b l"], negative: Float[Array, "b l n"], allowed: Bool[Array, "b l n"], beta: float = 1.0
) -> Float[Array, "b l"]:
    """Generalised binary cross-entropy (Petrov & Macdonald 2023, eq. 11), per position, divided by 1 + negatives.

    -log sigma(s)^beta is beta * softplus(-s): the same as the paper's transform of the logit, without its float64.
    `beta = 1` is the binary cross-entropy.
    """
    negative = jnp.where(allowed, negative, EXCLUDED).astype(jnp.float32)
    terms = beta * jax.nn.softplus(-positive.astype(jnp.float32)) + jnp.sum(jax.nn.softplus(negative), axis=-1)
    return terms / (1 + negative.shape[-1])


def gbce_beta(items: int, negatives: int, t: float) -> float:
    """The power of gBCE for a sampling rate alpha = negatives / (items - 1) and calibration `t` in [0, 1]."""
    alpha = negatives / (items - 1)
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)


def bpr(
    positive: Float[Array, "b l"], negative: Float[Array, "b l n"], allowed: Bool[Array, "b l n"]
) -> Float[Array, "b l"]:
    """Bayesian personalised ranking (Rendle et al. 2009): mean of -log sigma(positive - negative), per position."""
    terms = jax.nn.softplus((negative - positive[..., None]).astype(jnp.float32))
    count = jnp.maximum(jnp.sum(allowed, axis=-1), 1)
    return jnp.sum(jnp.where(allowed, terms, 0.0), axis=-1) / count
