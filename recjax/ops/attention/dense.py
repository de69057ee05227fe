"""Attention over packed rows: a position sees only its own segment, and with `causal` only its past.

An event may be one position or several tokens (`slots`: bidirectional inside an event, causal between events). Masks
and relative biases are made block by block (`recjax.ops.attention.blocks`), rows of `LONG` positions and more by
blocks of keys, too, so that no `[l, l]` array is made of them. On a mesh whose `seq` axis is longer than 1 each device
keeps its queries and gathers the keys and values of the whole row.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from recjax.ops.attention.blocks import Asking, Keys, Plan, direct, merge, online
from recjax.ops.attention.pairs import MASKED, GapBias, Visible
from recjax.ops.dropout import dropout as drop
from recjax.ops.mesh_axes import axis_size
from recjax.typing import DATA_AXIS, SEQ_AXIS, Array, Bool, Float, InputError, Int

LONG = 1024
"""Positions of a row from which attention accumulates over blocks of keys."""


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
    k: Float[Array, "b g l c"],
    v: Float[Array, "b g l e"],
    segments: Int[Array, "b l"],
    *,
    causal: bool = True,
    slots: int = 1,
    window: int | None = None,
    first: int = 0,
    bias: GapBias | None = None,
    block: int | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
    long: int = LONG,
) -> Float[Array, "b h l e"]:
    """Self-attention inside the segments of packed rows; softmax in float32.

    Causal attention runs in blocks of queries, each against the keys up to its own end, so that nearly half of the
    `[l, l]` work and memory is never touched. Heads lead positions so that every product is a plain batched matrix
    product: on XLA:CPU the transposes of a `[b, l, h, c]` layout cost as much as the products.

    Padding (segment 0) attends to padding: finite, and ignored by every loss.

    Args:
        q: queries.
        k: keys, of as many heads as the queries or of a divisor: groups of query heads that follow each other share a
            head of keys and values (Ainslie et al. 2023).
        v: values.
        segments: segment number of each position; positions of a segment stand together.
        causal: forbid the future.
        slots: tokens of an event; with more than one, event n of a row has its positions n * slots ..
            n * slots + slots - 1, which see each other, and `window` and `bias` count events.
        window: events that a query sees, its own among them, to each side it may see; None for all.
        first: events at the beginning of a history that a window never hides (Beltagy et al. 2020's global tokens).
        bias: added to the scores.
        block: queries (and, in long rows, keys) per block, rounded down to whole events; by default 64, and 128 in long
            rows.
        dropout: share of attention weights dropped when `key` is given.
        key: random key, or None for no dropout.
        long: positions from which blocks of keys are accumulated.

    Returns:
        Array of the heads and length of `q` and the dtype of `v`.

    Raises:
        InputError: rows that end in the middle of an event.
    """
    length = q.shape[2]
    if slots < 1 or length % slots:
        raise InputError(f"rows of {length} tokens do not hold whole items of {slots} tokens")
    block = (64 if length < long else 128) if block is None else block
    visible = Visible(causal, slots, window)
    rate = dropout if key is not None else 0.0
    plan = Plan(visible, max(block // slots, 1) * slots, 1.0 / math.sqrt(q.shape[-1]), dropout=rate)
    first = 0 if window is None else first
    if _shards(length, slots) > 1 or length >= long:
        return _by_blocks(q, k, v, segments, bias, key, first, plan)
    always = _order(segments) < first * slots if first else None
    return direct(q, _per_head(k, q.shape[1]), _per_head(v, q.shape[1]), segments, always, bias, key, plan)


def pointwise_attention(
    q: Float[Array, "b h l c"],
    k: Float[Array, "b h l c"],
    v: Float[Array, "b h l e"],
    segments: Int[Array, "b l"],
    *,
    share: float,
    causal: bool = True,
    window: int | None = None,
    bias: GapBias | None = None,
    block: int | None = None,
    long: int = LONG,
) -> Float[Array, "b h l e"]:
    """HSTU's attention (Zhai et al. 2024, eq. 2): weights silu(q k + bias) * share, which no softmax normalises.

    Args:
        q: queries.
        k: keys.
        v: values.
        segments: segment number of each position; positions of a segment stand together.
        share: one over the length that the model was made for: a constant, whatever the length of the row.
        causal: forbid the future.
        window: events that a query sees, as in `attention`.
        bias: added to the products.
        block: as in `attention`.
        long: positions from which blocks of keys are accumulated.
    """
    length = q.shape[2]
    block = (64 if length < long else 128) if block is None else block
    plan = Plan(Visible(causal, 1, window), block, 1.0, share)
    if _shards(length, 1) > 1 or length >= long:
        return _by_blocks(q, k, v, segments, bias, None, 0, plan)
    return direct(q, k, v, segments, None, bias, None, plan)


def attend_keys(
    q: Float[Array, "b h l c"],
    keys: tuple[Float[Array, "b g m c"], ...],
    values: tuple[Float[Array, "b g m e"], ...],
    allowed: Bool[Array, "b l n"],
    bias: Float[Array, "b h l n"] | None = None,
    share: float | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
) -> Float[Array, "b h l e"]:
    """Attention of a few queries to keys that stand in several places: the last of a row to it, new events to a cache
    and to each other. Softmax in float32.

    Args:
        q: queries.
        keys: keys, in parts that are never joined; their heads may be a divisor of the queries' (see `attention`).
        values: their values.
        allowed: which of all the keys, in order, each query sees; at least one.
        bias: added to the scores.
        share: factor of pointwise weights, silu(q k + bias) * share; None for a softmax of scaled products.
        dropout: share of attention weights dropped when `key` is given.
        key: random key, or None for no dropout.
    """
    rows, heads, length, channels = q.shape
    groups = keys[0].shape[1]
    grouped = q.reshape(rows, groups, heads // groups, length, channels)
    scores = jnp.concatenate(
        [jnp.einsum("bgrlc,bgmc->bgrlm", grouped, k, preferred_element_type=jnp.float32) for k in keys], axis=-1
    ).reshape(rows, heads, length, -1)
    scores = scores if share is not None else scores / math.sqrt(channels)
    scores = scores if bias is None else scores + bias
    if share is None:
        weights = jax.nn.softmax(jnp.where(allowed[:, None], scores, MASKED), axis=-1)
    else:
        weights = jnp.where(allowed[:, None], jax.nn.silu(scores) * share, 0.0)
    weights = drop(weights, dropout, key).astype(values[0].dtype)
    weights = weights.reshape(rows, groups, heads // groups, length, -1)
    mixed, begin = 0.0, 0
    for v in values:
        mixed += jnp.einsum("bgrlm,bgme->bgrle", weights[..., begin : begin + v.shape[2]], v)
        begin += v.shape[2]
    return jnp.asarray(mixed).reshape(rows, heads, length, -1)


def _shards(length: int, slots: int) -> int:
    """Devices that share a row: those of the mesh's `seq` axis, if whole events divide over them; otherwise 1."""
    shards = axis_size(SEQ_AXIS)
    return shards if length % (shards * slots) == 0 else 1


def _by_blocks(q, k, v, segments, bias: GapBias | None, key: Array | None, first: int, plan: Plan) -> Array:
    """Attention over blocks of keys; on a mesh with a `seq` axis, of each device's queries to the gathered keys."""
    keys = Keys(k, v, segments, None if bias is None else bias.seconds)
    tables = None if bias is None else replace(bias, seconds=None)
    if _shards(q.shape[2], plan.visible.slots) == 1:
        asking = Asking(q, segments, keys.seconds, jnp.zeros((), jnp.int32))
        return _to_keys(asking, keys, tables, key, first, plan)
    axes = (SEQ_AXIS,) if q.shape[0] % axis_size(DATA_AXIS) else (DATA_AXIS, SEQ_AXIS)
    rows = DATA_AXIS if DATA_AXIS in axes else None
    heads, flat = PartitionSpec(rows, None, SEQ_AXIS), PartitionSpec(rows, SEQ_AXIS)

    def local(q: Array, keys: Keys, tables: GapBias | None, key: Array | None) -> Array:
        def whole(x: Array) -> Array:
            return jax.lax.all_gather(x, SEQ_AXIS, axis=2 if x.ndim == 4 else 1, tiled=True)

        asking = Asking(q, keys.segments, keys.seconds, jax.lax.axis_index(SEQ_AXIS) * q.shape[2])
        if key is not None:
            for axis in axes:
                key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        return _to_keys(asking, jax.tree.map(whole, keys), tables, key, first, plan)

    of_keys = jax.tree.map(lambda x: heads if x.ndim == 4 else flat, keys)
    specs = (heads, of_keys, PartitionSpec(), PartitionSpec())
    return jax.shard_map(local, in_specs=specs, out_specs=heads, axis_names=set(axes), check_vma=False)(
        q, keys, tables, key
    )


def _to_keys(asking: Asking, keys: Keys, bias: GapBias | None, key: Array | None, first: int, plan: Plan) -> Array:
    heads = asking.q.shape[1]
    keys = keys._replace(k=_per_head(keys.k, heads), v=_per_head(keys.v, heads))
    part = online(asking, keys, bias, key, plan)
    return merge([part, _first_events(asking, keys, bias, first, plan)]) if first else part[0]


def _per_head(x: Array, heads: int) -> Array:
    """A head of keys or values for each head of queries."""
    return x if x.shape[1] == heads else jnp.repeat(x, heads // x.shape[1], axis=1)


def _beginnings(segments: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """The place where each position's segment begins."""
    places = jnp.arange(segments.shape[1])
    changes = segments[:, 1:] != segments[:, :-1]
    changes = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), changes], axis=1)
    return jax.lax.cummax(jnp.where(changes, places, 0), axis=1)


def _order(segments: Int[Array, "b l"]) -> Int[Array, "b l"]:
    """The number of each position in its segment."""
    return jnp.arange(segments.shape[1]) - _beginnings(segments)


def _first_events(
    asking: Asking, keys: Keys, bias: GapBias | None, first: int, plan: Plan
) -> tuple[Float[Array, "b h l e"], Float[Array, "b h l 1"]]:
    """Attention of each position to those of the first events of its history that its window hides, for `merge`."""
    visible, length = plan.visible, asking.q.shape[2]
    own = asking.first + jnp.arange(length)
    begins = jax.lax.dynamic_slice_in_dim(_beginnings(keys.segments), asking.first, length, axis=1)
    places = begins[:, :, None] + jnp.arange(first * visible.slots)
    gap = own[None, :, None] // visible.slots - places // visible.slots
    allowed = (gap >= (visible.window or 0)) & (places < keys.k.shape[2])
    take = jax.vmap(lambda x, places: jnp.take(x, places, axis=1, mode="clip"))
    chosen, values = take(keys.k, places), take(keys.v, places)
    scores = jnp.einsum("bhlc,bhlfc->bhlf", asking.q, chosen, preferred_element_type=jnp.float32) * plan.scale
    if bias is not None:
        of_key = (own[:, None] // visible.slots - gap).reshape(-1, places.shape[-1])
        queries = jnp.broadcast_to(own // visible.slots, gap.shape[:2]).reshape(-1, 1)
        times = ()
        if asking.seconds is not None and keys.seconds is not None:
            theirs = jax.vmap(lambda x, places: jnp.take(x, places, mode="clip"))(keys.seconds, places)
            times = asking.seconds.reshape(-1, 1), theirs.reshape(-1, places.shape[-1])
        found = bias.pairs(queries, of_key, *times)
        scores = scores + jnp.moveaxis(found[:, :, 0].reshape(*gap.shape[:2], -1, places.shape[-1]), 2, 1)
    scores = jnp.where(allowed[:, None], scores, MASKED)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    mixed = jnp.einsum("bhlf,bhlfe->bhle", weights.astype(values.dtype), values) / total
    return mixed, top + jnp.log(total)
