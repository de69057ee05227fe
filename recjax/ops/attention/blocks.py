"""Attention over blocks: all keys of a block of queries at once (`direct`), or one block of keys at a time (`online`).

The weights of a pair are a softmax's, or pointwise, `silu(score) * share` (Zhai et al. 2024, eq. 2), which need no sum.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from recjax.ops.attention.pairs import MASKED, GapBias, Visible
from recjax.ops.dropout import keep_mask
from recjax.ops.products import row_max
from recjax.typing import Array, Bool, Float, Int


class Plan(NamedTuple):
    """Static choices of an attention.

    Attributes:
        visible: which pairs count.
        block: queries, and in `online` keys, of a block; a multiple of `visible.slots`.
        scale: factor of the product of a query and a key.
        share: factor of pointwise weights; None for a softmax.
        dropout: share of weights dropped where there is a key.
    """

    visible: Visible
    block: int
    scale: float
    share: float | None = None
    dropout: float = 0.0


def direct(
    q: Float[Array, "b h l c"],
    k: Float[Array, "b h l c"],
    v: Float[Array, "b h l e"],
    segments: Int[Array, "b l"],
    always: Bool[Array, "b l"] | None,
    bias: GapBias | None,
    key: Array | None,
    plan: Plan,
) -> Float[Array, "b h l e"]:
    """Blocks of queries, each against the keys from the first to the last that one of them may see.

    `always` marks keys that the window does not hide.
    """
    length, visible = q.shape[2], plan.visible
    whole = not visible.causal and visible.window is None
    size = length if whole else plan.block
    outputs = []
    for number, start in enumerate(range(0, length, size)):
        stop = min(start + size, length)
        low, high = visible.span(start, stop, length)
        low = 0 if always is not None else low // visible.slots * visible.slots
        queries_at, keys_at = visible.events(start, stop - start), visible.events(low, high - low)
        allowed = visible.pairs(queries_at, keys_at)[None]
        if always is not None:
            allowed |= always[:, None, low:high] & visible._replace(window=None).pairs(queries_at, keys_at)[None]
        allowed &= segments[:, start:stop, None] == segments[:, None, low:high]
        keys = k[:, :, low:high]
        scores = jnp.einsum("bhlc,bhmc->bhlm", q[:, :, start:stop], keys, preferred_element_type=jnp.float32)
        scores = scores * plan.scale
        if bias is not None:
            seconds = bias.seconds
            times = () if seconds is None else (seconds[:, start:stop], seconds[:, low:high])
            scores = scores + bias.pairs(queries_at, keys_at, *times)
        fold = None if key is None else jax.random.fold_in(key, number)
        outputs.append(_mixed(scores, allowed[:, None], v[:, :, low:high], fold, plan))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=2)


def _mixed(scores: Array, allowed: Array, v: Array, key: Array | None, plan: Plan) -> Array:
    """Values mixed by the weights of all the keys that there are."""
    if plan.share is not None:
        weights = jnp.where(allowed, jax.nn.silu(scores) * plan.share, 0.0)
        return jnp.einsum("bhlm,bhme->bhle", weights.astype(v.dtype), v)
    scores = jnp.where(allowed, scores, MASKED)
    weights = jnp.exp(scores - row_max(jax.lax.stop_gradient(scores))[..., None])
    # Dividing the output instead of the weights saves one pass over [l, l]; dropout commutes with it.
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if key is not None and plan.dropout:
        weights = jnp.where(keep_mask(key, weights.shape, plan.dropout), weights, 0.0)
        total = total * (1.0 - plan.dropout)
    mixed = jnp.einsum("bhlm,bhme->bhle", weights.astype(v.dtype), v)
    return (mixed / total).astype(v.dtype)


class Keys(NamedTuple):
    """Keys and values of a row, with what masks and biases need of them."""

    k: Float[Array, "b h m c"]
    v: Float[Array, "b h m e"]
    segments: Int[Array, "b m"]
    seconds: Int[Array, "b m"] | None = None


class Asking(NamedTuple):
    """The queries of a part of a row, which begins at its place `first`."""

    q: Float[Array, "b h l c"]
    segments: Int[Array, "b l"]
    seconds: Int[Array, "b l"] | None
    first: Int[Array, ""]


def online(
    asking: Asking, keys: Keys, bias: GapBias | None, key: Array | None, plan: Plan
) -> tuple[Float[Array, "b h l e"], Float[Array, "b h l 1"]]:
    """One block of keys at a time, with a running maximum (Milakov & Gimelshein 2018; Dao et al. 2022).

    The backward pass makes the weights of a block again instead of keeping them: memory for weights is one
    `[b, h, block, block]` array. Blocks of which nothing is visible are passed over, and the program is the same size
    for every length. The times that `bias` looks at are those of `asking` and `keys`.

    Returns:
        The output, and the logarithm of the sum of each query's exponentials (0 for pointwise weights): what `merge`
        needs.
    """
    length = asking.q.shape[2]
    seed = None if key is None or not plan.dropout else jax.random.key_data(key)
    found: Any = _online(_padded(asking, plan.block), _padded(keys, plan.block), bias, seed, plan)
    output, logsum = found
    return output[:, :, :length], logsum[:, :, :length]


def merge(parts: list[tuple[Float[Array, "b h l e"], Float[Array, "b h l 1"]]]) -> Float[Array, "b h l e"]:
    """Softmax attention to the keys of all parts, from the outputs and `logsum`s of attention to each."""
    logsums = jnp.concatenate([logsum for _, logsum in parts], axis=-1)
    weights = jax.nn.softmax(logsums, axis=-1)
    mixed = sum(output * weights[..., n : n + 1] for n, (output, _) in enumerate(parts))
    return jnp.asarray(mixed).astype(parts[0][0].dtype)


def _padded(arrays, block: int):
    """Rows filled up with padding to whole blocks."""

    def pad(x):
        axis = {4: 2, 2: 1}.get(getattr(x, "ndim", 0))
        if axis is None or x.shape[axis] % block == 0:
            return x
        return jnp.pad(x, [(0, -x.shape[axis] % block if n == axis else 0) for n in range(x.ndim)])

    return jax.tree.map(pad, arrays)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _online(asking: Asking, keys: Keys, bias: GapBias | None, seed: Array | None, plan: Plan) -> tuple[Array, Array]:
    return _forward(asking, keys, bias, seed, plan)[0]


def _forward(
    asking: Asking, keys: Keys, bias: GapBias | None, seed: Array | None, plan: Plan
) -> tuple[tuple[Array, Array], Any]:
    pair = _Pair(asking, keys, seed, plan)
    width = keys.v.shape[-1]

    def queries(number: Array) -> tuple[Array, Array]:
        def fold(index: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top, total, mixed = carry
            scores = pair.scores(number, index, bias)
            if plan.share is not None:
                return top, total, mixed + pair.mix(jax.nn.silu(scores) * plan.share, index)
            # Where nothing is visible yet the maximum is `MASKED` and the sums are of no meaning; the first real score
            # shrinks them to exactly 0. Every query sees itself.
            new_top = jnp.maximum(top, row_max(scores)[..., None])
            weights, shrink = jnp.exp(scores - new_top), jnp.exp(top - new_top)
            total = total * shrink + jnp.sum(weights, axis=-1, keepdims=True)
            return new_top, total, mixed * shrink + pair.mix(pair.kept(weights, number, index), index)

        shape = (*asking.q.shape[:2], plan.block)
        top = jnp.full((*shape, 1), 0.0 if plan.share is not None else MASKED)
        total = jnp.full((*shape, 1), 1.0 if plan.share is not None else 0.0)
        top, total, mixed = jax.lax.fori_loop(*pair.span(number), fold, (top, total, jnp.zeros((*shape, width))))
        return (mixed / total).astype(keys.v.dtype), top + jnp.log(total)

    output, logsum = (_joined(x) for x in jax.lax.map(queries, jnp.arange(pair.blocks)))
    return (output, logsum), (asking, keys, bias, seed, output, logsum)


def _backward(plan: Plan, kept, cotangents):
    asking, keys, bias, seed, output, logsum = kept
    pair = _Pair(asking, keys, seed, plan)
    dout, dlogsum = (x.astype(jnp.float32) for x in cotangents)
    # sum_j P_ij dP_ij of the softmax's derivative, with or without dropout, less what comes through the logarithm.
    shared = jnp.sum(dout * output.astype(jnp.float32), axis=-1, keepdims=True) - dlogsum

    def queries(carry, number: Array):
        out, logs, delta = (pair.cut(x, number, 2) for x in (dout, logsum, shared))

        def fold(index: Array, carry):
            dq, dk, dv, dbias = carry
            scores = pair.scores(number, index, bias)
            dweights = jnp.einsum("bhle,bhme->bhlm", out, pair.cut(keys.v, index, 2))
            if plan.share is not None:
                sigmoid = jax.nn.sigmoid(scores)
                weights = scores * sigmoid * plan.share
                dscores = dweights * sigmoid * (1.0 + scores * (1.0 - sigmoid)) * plan.share
            else:
                weights = jnp.exp(scores - logs)
                dscores = weights * (pair.kept(dweights, number, index) - delta)
                weights = pair.kept(weights, number, index)
            dq += jnp.einsum("bhlm,bhmc->bhlc", dscores, pair.cut(keys.k, index, 2)) * plan.scale
            dk = pair.add(dk, jnp.einsum("bhlm,bhlc->bhmc", dscores, pair.cut(asking.q, number, 2)) * plan.scale, index)
            dv = pair.add(dv, jnp.einsum("bhlm,bhle->bhme", weights, out), index)
            if bias is not None:
                _, pull = jax.vjp(partial(pair.bias, number, index), bias)
                dbias = jax.tree.map(jnp.add, dbias, pull(dscores)[0])
            return dq, dk, dv, dbias

        start = jnp.zeros((*asking.q.shape[:2], plan.block, asking.q.shape[3]))
        dq, *carry = jax.lax.fori_loop(*pair.span(number), fold, (start, *carry))
        return tuple(carry), dq

    zeros = (jnp.zeros(keys.k.shape), jnp.zeros(keys.v.shape), jax.tree.map(jnp.zeros_like, bias))
    (dk, dv, dbias), dq = jax.lax.scan(queries, zeros, jnp.arange(pair.blocks))
    dasking = Asking(_joined(dq).astype(asking.q.dtype), None, None, None)  # pyright: ignore[reportArgumentType]
    dkeys = Keys(dk.astype(keys.k.dtype), dv.astype(keys.v.dtype), None, None)  # pyright: ignore[reportArgumentType]
    return dasking, dkeys, dbias, None


_online.defvjp(_forward, _backward)


def _joined(blocks: Array) -> Array:
    """[n, b, h, block, c] -> [b, h, n * block, c]."""
    return jnp.moveaxis(blocks, 0, 2).reshape(*blocks.shape[1:3], -1, blocks.shape[-1])


class _Pair(NamedTuple):
    """A block of queries (its number) and a block of keys (its index) at a time."""

    asking: Asking
    keys: Keys
    seed: Array | None
    plan: Plan

    @property
    def blocks(self) -> int:
        """Blocks of queries."""
        return self.asking.q.shape[2] // self.plan.block

    def start(self, number: Array) -> Array:
        """The row's place of a block's first query."""
        return self.asking.first + number * self.plan.block

    def span(self, number: Array) -> tuple[Array | int, Array | int]:
        """The blocks of keys of which a block of queries may see something: from, and up to but without."""
        visible, block = self.plan.visible, self.plan.block
        every = self.keys.k.shape[2] // block
        start, low, high = self.start(number), 0, every
        reach = None if visible.window is None else visible.window * visible.slots - 1
        if reach is not None:
            low = jnp.maximum(start - reach, 0) // block
        if visible.causal or reach is not None:
            last = start + block - 1 + (0 if visible.causal else reach or 0)
            high = jnp.minimum(last // block + 1, every)
        return low, high

    def cut(self, x: Array, index: Array, axis: int) -> Array:
        """The part of `x` of a block."""
        return jax.lax.dynamic_slice_in_dim(x, index * self.plan.block, self.plan.block, axis=axis)

    def add(self, total: Array, part: Array, index: Array) -> Array:
        """`total` with `part` added to a block of keys."""
        start = index * self.plan.block
        return jax.lax.dynamic_update_slice_in_dim(total, self.cut(total, index, 2) + part, start, axis=2)

    def events(self, number: Array, index: Array) -> tuple[Array, Array]:
        visible, block = self.plan.visible, self.plan.block
        return visible.events(self.start(number), block), visible.events(index * block, block)

    def scores(self, number: Array, index: Array, bias: GapBias | None) -> Float[Array, "b h l m"]:
        """Scores in float32, `MASKED` where forbidden."""
        queries, keys = self.cut(self.asking.q, number, 2), self.cut(self.keys.k, index, 2)
        scores = jnp.einsum("bhlc,bhmc->bhlm", queries, keys, preferred_element_type=jnp.float32) * self.plan.scale
        if bias is not None:
            scores = scores + self.bias(number, index, bias)
        segments, others = self.cut(self.asking.segments, number, 1), self.cut(self.keys.segments, index, 1)
        allowed = segments[:, :, None] == others[:, None, :]
        allowed &= self.plan.visible.pairs(*self.events(number, index))[None]
        return jnp.where(allowed[:, None], scores, MASKED)

    def bias(self, number: Array, index: Array, bias: GapBias) -> Float[Array, "b h l m"]:
        times = ()
        if self.asking.seconds is not None and self.keys.seconds is not None:
            times = self.cut(self.asking.seconds, number, 1), self.cut(self.keys.seconds, index, 1)
        found = bias.pairs(*self.events(number, index), *times)
        return jnp.broadcast_to(found, (*self.asking.q.shape[:2], self.plan.block, self.plan.block))

    def kept(self, weights: Array, number: Array, index: Array) -> Array:
        """Weights (or their derivatives) after dropout."""
        if self.seed is None:
            return weights
        key = jax.random.fold_in(jax.random.wrap_key_data(self.seed), number)
        mask = keep_mask(jax.random.fold_in(key, index), weights.shape, self.plan.dropout)
        return jnp.where(mask, weights / (1.0 - self.plan.dropout), 0.0)

    def mix(self, weights: Array, index: Array) -> Float[Array, "b h l e"]:
        """Weighted sum of a block's values, in float32."""
        values = self.cut(self.keys.v, index, 2)
        return jnp.einsum("bhlm,bhme->bhle", weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
