"""The full softmax over a catalog of items, as a sum over weighted positions, in bounded memory.

The full softmax cross-entropy of `t` tokens over `n` items,

    sum_i w_i (log sum_j exp(x_i . e_j + b_j) - x_i . e_{y_i} - b_{y_i}),

needs `[t, n]` logits, which for 25,600 tokens and a million items are 100 GB. `full_softmax` walks over chunks of
tokens and, inside them, over chunks of items, so that no more than `chunk_elements` logits exist at a time. Because
the loss is a scalar whose cotangent only scales the gradients, the forward pass computes them; the backward pass
multiplies. Where the items fit into one chunk, a chunk's logits serve loss and gradients: three products a chunk
instead of the four of recomputation.
Tokens of weight 0 (padding, unmasked cloze positions) are moved to the end and never computed.

With a mesh, tokens are sharded over the data axis (their positions over the sequence axis, where they come as rows of
positions) and rows of the table over the model axis: each device makes the logits of its own rows, and only per-token
maxima, sums and input gradients cross the model axis.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.loops import bounded_loop
from recjax.ops.mesh_axes import axis_size, dividing_axis, platform
from recjax.ops.products import row_max, transposed
from recjax.typing import DATA_AXIS, MODEL_AXIS, SEQ_AXIS, Array, Bool, Float, Int

MOST_AT_ONCE = 2**14
"""Rows that a chunk of tokens meets all at once: three products. More are met chunk by chunk, in two passes: four."""

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
    """Static choices of the chunked loss: last item id, the most logits at a time, and whether the bias is trained."""

    items: int
    chunk_elements: int
    biased: bool


class _Gradients(NamedTuple):
    """Of the sum, by input; or the partition specs of these.

    Those of table and bias have one more axis in front, of the devices that tokens are sharded over: each holds what
    its own tokens give. They are added up in the backward pass, where the compiler joins the exchange with that of the
    other gradients of a table.
    """

    hidden: Any
    table: Any
    bias: Any


def full_softmax(
    hidden: Float[Array, "*t d"],
    table: Float[Array, "n d"],
    bias: Float[Array, " n"] | None,
    targets: Int[Array, "*t"],
    weights: Float[Array, "*t"],
    *,
    items: int,
    chunk_elements: int | None = None,
) -> Float[Array, ""]:
    """Sum of weighted cross-entropies over all items, in bounded memory; logits and sums in float32.

    Args:
        hidden: user states, [t, d] or [b, l, d]; their dtype is the compute type of the products.
        table: item vectors; rows 0 and above `items` are no items and never compete.
        bias: of each row, or None.
        targets: item ids in 1..items wherever the weight is not 0.
        weights: 0 takes a token out of the sum and of the work.
        items: catalog size.
        chunk_elements: most logits at a time on a device; None: a million on a CPU, which stay in its cache, else four.

    Returns:
        float32 scalar; the same value and gradients as `full_softmax_dense` up to rounding.
    """
    biased = bias is not None
    if bias is None:
        bias = jax.lax.stop_gradient(jnp.zeros(table.shape[0], jnp.float32))
    if chunk_elements is None:
        chunk_elements = 2**20 if platform() == "cpu" else 2**22
    return _full_softmax(hidden, table, bias, targets, weights, _Limits(items, chunk_elements, biased))


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
    seq = dividing_axis(SEQ_AXIS, hidden.shape[1]) if hidden.ndim == 3 else None
    over = (DATA_AXIS, seq) if seq else (DATA_AXIS,)

    # As looked-up rows are: each device of the model axis gets the gradients of a part of the tokens.
    parted = hidden.shape[0] % (data * model) == 0

    def whole(hidden, table, bias, targets, weights, shards: int = 1):
        flat = hidden.reshape(-1, hidden.shape[-1]), table, bias, targets.reshape(-1), weights.reshape(-1)
        loss, grads = _local(*flat, limits=limits, gradients=gradients, shards=shards)
        if grads is not None:
            grads = _Gradients(grads.hidden.reshape(hidden.shape), grads.table[None], grads.bias[None])
        return loss, grads

    def island(*inputs):
        loss, grads = whole(*inputs, shards=model)
        if grads is not None:
            grads = grads._replace(hidden=_joined(grads.hidden, parted).astype(hidden.dtype))
        return jax.lax.psum(loss, over), grads

    if data * model == 1 and seq is None:
        loss, grads = whole(hidden, table, bias, targets, weights)
        return loss, None if grads is None else grads._replace(hidden=grads.hidden.astype(hidden.dtype))
    positions = (seq,) if hidden.ndim == 3 else ()
    tokens, rows = PartitionSpec(DATA_AXIS, *positions), PartitionSpec(MODEL_AXIS)
    own = PartitionSpec((DATA_AXIS, MODEL_AXIS) if parted else DATA_AXIS, *positions)
    parts = PartitionSpec(over, MODEL_AXIS)
    return jax.shard_map(
        island,
        in_specs=(tokens, rows, rows, tokens, tokens),
        out_specs=(PartitionSpec(), _Gradients(own, parts, parts) if gradients else None),
        # The collectives are all explicit: nothing is differentiated through the island.
        check_vma=False,
    )(hidden, table, bias, targets, weights)


def _joined(hidden: Array, parted: bool) -> Array:
    """Gradients of tokens, added up over the model axis; each device gets those of a part of the rows if `parted`."""
    if parted:
        return jax.lax.psum_scatter(hidden, MODEL_AXIS, scatter_dimension=0, tiled=True)
    return jax.lax.psum(hidden, MODEL_AXIS)


def _local(hidden, table, bias, targets, weights, *, limits: _Limits, gradients: bool, shards: int):
    """Loss and gradients of this device's tokens against its rows; the loss, joined over the model axis if
    `shards` > 1. Gradients of tokens, float32, are those of its rows alone.
    """
    tokens, rows = hidden.shape[0], table.shape[0]
    few = rows <= min(MOST_AT_ONCE, limits.chunk_elements // 64)
    item_chunk = rows if few else min(rows, max(limits.chunk_elements // 256, 128))
    token_chunk = min(tokens, max(limits.chunk_elements // item_chunk, 1))
    items = _Items(
        table.astype(hidden.dtype),
        bias,
        jax.lax.axis_index(MODEL_AXIS) * rows if shards > 1 else 0,
        limits.items,
        item_chunk,
        limits.biased,
    )

    # Active tokens first; the loops below stop after the last chunk that holds one.
    order, active = _active_first(weights > 0)
    padded = -(-tokens // token_chunk) * token_chunk
    order = jnp.concatenate([order, jnp.full(padded - tokens, tokens, jnp.int32)])
    sorted_ = _Tokens(
        jnp.take(hidden, order, axis=0, mode="fill", fill_value=0),
        jnp.take(targets, order, mode="fill", fill_value=0),
        jnp.take(weights, order, mode="fill", fill_value=0),
    )
    chunks = _Chunks((active + token_chunk - 1) // token_chunk, padded // token_chunk, token_chunk)
    compute = _in_one_pass if items.pieces == 1 else _in_two_passes
    loss, grads = compute(sorted_, items, chunks, gradients, shards)
    if grads is not None:
        unsorted = jnp.zeros(hidden.shape, jnp.float32).at[order].set(grads.hidden, mode="drop")
        grads = grads._replace(hidden=unsorted)
    return loss, grads


def _active_first(active: Bool[Array, " t"]) -> tuple[Int[Array, " t"], Array]:
    """Places of a stable partition, active ones first, and how many are active; sorting would cost more everywhere."""
    before = jnp.cumsum(active, dtype=jnp.int32)
    count = before[-1]
    place = jnp.arange(active.shape[0], dtype=jnp.int32)
    target = jnp.where(active, before - 1, count + place - before)
    return jnp.zeros_like(place).at[target].set(place, unique_indices=True, mode="promise_in_bounds"), count


class _Tokens(NamedTuple):
    """User states [t, d], targets [t] and weights [t]."""

    hidden: Array
    targets: Array
    weights: Array

    def cut(self, start: Array, size: int) -> "_Tokens":
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), self)


class _Chunks(NamedTuple):
    """Chunks of tokens with an active one, all chunks, and tokens of one."""

    active: Array
    most: int
    size: int


class _Piece(NamedTuple):
    """A chunk of rows: its start, item vectors [n, d] and [d, n], bias, ids, and which of them are items."""

    start: Any
    vectors: Array
    across: Array
    bias: Array
    ids: Array
    valid: Array

    def logits(self, x: Array) -> Array:
        scores = jnp.matmul(x, self.across, preferred_element_type=jnp.float32)
        return scores + jnp.where(self.valid, self.bias, EXCLUDED)


class _Items(NamedTuple):
    """This device's rows: item vectors [n, d], bias [n], id of row 0, last id, rows of a chunk, and whether the bias is
    trained."""

    table: Array
    bias: Array
    first: Any
    last: int
    size: int
    biased: bool

    @property
    def pieces(self) -> int:
        return -(-self.table.shape[0] // self.size)

    def cut(self, number: Any) -> _Piece:
        """A chunk; the last one overlaps its neighbour and masks what it repeats."""
        rows = self.table.shape[0]
        start = jnp.minimum(number * self.size, rows - self.size)
        part = jax.lax.dynamic_slice(self.table, (start, 0), (self.size, self.table.shape[1]))
        local = start + jnp.arange(self.size)
        ids = self.first + local
        valid = (local >= number * self.size) & (ids >= 1) & (ids <= self.last)
        bias = jax.lax.dynamic_slice(self.bias, (start,), (self.size,))
        return _Piece(start, part, transposed(part), bias, ids, valid)


class _Statistics(NamedTuple):
    """Of tokens [t]: greatest logit, sum of exp(logit - greatest), logit of the target; -1e30, 0 and 0 of no items."""

    top: Array
    total: Array
    picked: Array

    @classmethod
    def of_target(cls, tokens: _Tokens, items: _Items) -> "_Statistics":
        """Of no items but the target, where its row is here: to find it among the logits, all would be read again."""
        x, targets, _ = tokens
        row = targets - items.first
        mine = (row >= 0) & (row < items.table.shape[0]) & (targets >= 1) & (targets <= items.last)
        vectors, bias = jnp.take(items.table, row, axis=0, mode="clip"), jnp.take(items.bias, row, mode="clip")
        logits = jnp.einsum("cd,cd->c", x, vectors, preferred_element_type=jnp.float32) + bias
        zeros = jnp.zeros(x.shape[0], jnp.float32)
        return cls(zeros + EXCLUDED, zeros, jnp.where(mine, logits, 0.0))

    def joined(self, shards: int) -> "_Statistics":
        """Over all devices of the model axis."""
        if shards == 1:
            return self
        top = jax.lax.pmax(self.top, MODEL_AXIS)
        total, picked = jax.lax.psum((self.total * jnp.exp(self.top - top), self.picked), MODEL_AXIS)
        return _Statistics(top, total, picked)

    def loss(self, weights: Array) -> Array:
        return jnp.sum(jnp.where(weights > 0, weights * (self.top + jnp.log(self.total) - self.picked), 0.0))


def _more(statistics: _Statistics, tokens: _Tokens, piece: _Piece) -> _Statistics:
    """Statistics with one more chunk of items."""
    logits = piece.logits(tokens.hidden)
    top = jnp.maximum(statistics.top, row_max(logits))
    total = statistics.total * jnp.exp(statistics.top - top) + jnp.sum(jnp.exp(logits - top[:, None]), axis=-1)
    return _Statistics(top, total, statistics.picked)


def _gradient(statistics: _Statistics, tokens: _Tokens, piece: _Piece, biased: bool) -> _Gradients:
    """Gradients of a chunk of tokens by a chunk of items, float32; that of the table's rows is [d, n]."""
    x, targets, weights = tokens
    scale = jnp.where(weights > 0, weights / statistics.total, 0.0)
    share = jnp.exp(piece.logits(x) - statistics.top[:, None]) * scale[:, None]
    mine = (piece.ids == targets[:, None]) & piece.valid
    share = jnp.where(mine, share - weights[:, None], share).astype(x.dtype)
    return _Gradients(
        jnp.matmul(share, piece.vectors, preferred_element_type=jnp.float32),
        jnp.matmul(transposed(x), share, preferred_element_type=jnp.float32),
        jnp.sum(share, axis=0, dtype=jnp.float32) if biased else jnp.zeros(piece.bias.shape, jnp.float32),
    )


def _in_one_pass(tokens: _Tokens, items: _Items, chunks: _Chunks, gradients: bool, shards: int) -> tuple[Array, Any]:
    """Few items: a chunk of tokens meets them all at once, and its logits serve both statistics and gradients."""

    whole = items.cut(0)

    def body(number: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
        loss, grads = carry
        start = number * chunks.size
        part = tokens.cut(start, chunks.size)
        found = _more(_Statistics.of_target(part, items), part, whole).joined(shards)
        if grads is not None:
            more = _gradient(found, part, whole, items.biased)
            grads = _Gradients(_put(grads.hidden, more.hidden, start), grads.table + more.table, grads.bias + more.bias)
        return loss + found.loss(part.weights), grads

    start = (jnp.zeros((), jnp.float32), _zeros(tokens, items) if gradients else None)
    loss, grads = bounded_loop(chunks.active, chunks.most, body, start)
    return loss, None if grads is None else grads._replace(table=grads.table.T)


def _in_two_passes(tokens: _Tokens, items: _Items, chunks: _Chunks, gradients: bool, shards: int) -> tuple[Array, Any]:
    """Many items: statistics first; then gradients, chunk after chunk of items, so that the table's gradient, which
    may be gigabytes, is written once and not once for each chunk of tokens."""

    def statistics(number: Array, found: _Statistics) -> _Statistics:
        start = number * chunks.size
        part = tokens.cut(start, chunks.size)
        none = _Statistics.of_target(part, items)
        more = jax.lax.fori_loop(0, items.pieces, lambda number, so_far: _more(so_far, part, items.cut(number)), none)
        return jax.tree.map(lambda x, y: _put(x, y, start), found, more)

    zeros = jnp.zeros(chunks.most * chunks.size, jnp.float32)
    found = _Statistics(zeros + EXCLUDED, zeros, zeros)
    found = bounded_loop(chunks.active, chunks.most, statistics, found).joined(shards)
    loss = found.loss(tokens.weights)
    if not gradients:
        return loss, None

    def piece(number: Array, grads: _Gradients) -> _Gradients:
        cut = items.cut(number)

        def body(place: Array, carry: _Gradients) -> _Gradients:
            start = place * chunks.size
            part = tokens.cut(start, chunks.size)
            mine = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunks.size), found)
            more = _gradient(mine, part, cut, items.biased)
            hidden = jax.lax.dynamic_slice_in_dim(carry.hidden, start, chunks.size) + more.hidden
            return _Gradients(_put(carry.hidden, hidden, start), carry.table + more.table, carry.bias + more.bias)

        width = items.table.shape[1]
        zeros = (jnp.zeros((width, items.size), jnp.float32), jnp.zeros(items.size, jnp.float32))
        more = bounded_loop(chunks.active, chunks.most, body, _Gradients(grads.hidden, *zeros))
        return _Gradients(
            more.hidden, _add_rows(grads.table, more.table.T, cut.start), _add_rows(grads.bias, more.bias, cut.start)
        )

    zeros = _zeros(tokens, items)
    return loss, jax.lax.fori_loop(0, items.pieces, piece, zeros._replace(table=zeros.table.T))


def _zeros(tokens: _Tokens, items: _Items) -> _Gradients:
    """Gradients of the table's rows are [d, n] here."""
    shapes = (tokens.hidden.shape, items.table.shape[::-1], items.bias.shape)
    return _Gradients(*(jnp.zeros(shape, jnp.float32) for shape in shapes))


def _put(array: Array, part: Array, start: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(array, part, start, axis=0)


def _add_rows(total: Array, part: Array, start: Array) -> Array:
    return _put(total, jax.lax.dynamic_slice_in_dim(total, start, part.shape[0]) + part, start)
