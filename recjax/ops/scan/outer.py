"""Recurrences of matrices, S_t = a_t S_{t-1} + k_t v_t^T, read as o_t = q_t S_t: the kernel of Mamba-2, RetNet, GLA,
LightNet and linear attention.

A step is too little work for a device, so rows are cut into chunks (Hua et al. 2022; Dao & Gu 2024, section 6). Inside
a chunk, outputs are a masked product of queries and keys, weighted by the decays between them; between chunks the state
is carried.

Decays of one number a head weigh the products of a chunk. Decays of one number a key channel must weigh queries and
keys before they are multiplied, relative to a position between the two: a chunk is halved, the queries of its second
half read the keys of the first through the middle, and both halves are halved again. Every weight is then exp of a sum
of log decays, at most 1, where a quotient of cumulative products would overflow.

A start flag cuts the recurrence by selection, also inside sums of decays, so that a finite number that stands before it
changes no bit of what follows. An infinity may spoil its neighbours in the same chunk.
"""

import math
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from recjax.ops.scan.time_axis import AffineMaps, carry_over, time_layout, wide
from recjax.typing import Array, Bool, Float, InputError

Impl = Literal["auto", "reference", "chunked"]

LEAST = -100.0
"""Log decays are raised to this in chunks: its exp is 0 in float32, and sums keep their digits."""

CHANNEL_CHUNK = 32
"""Most positions of a chunk with decays per channel, whose work grows with the number of halvings."""

SMALL = 4
"""Halves up to this long are multiplied elementwise: batched matrix products of such a size are slower."""


def outer_scan(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l c"],
    log_a: Array | None = None,
    *,
    s0: Float[Array, "b h k c"] | None = None,
    starts: Bool[Array, "b l"] | None = None,
    valid: Bool[Array, "b l"] | None = None,
    chunk: int = 64,
    impl: Impl = "auto",
) -> tuple[Float[Array, "b h l c"], Float[Array, "b h k c"]]:
    """Readings o_t = q_t S_t of the states S_t = exp(log_a_t) S_{t-1} + k_t v_t^T, and the last state.

    The state, the decays and all sums are float32; the products of a chunk are taken in the type of `q`, `k` and `v`.
    Memory for the gradient is a state a chunk, [k, c] a head, beside the gradients themselves.

    Where the mesh has a `seq` axis that divides the positions, they are taken to be sharded over it: each device then
    runs its own, and only states cross. Rows and heads may be sharded in any way.

    Args:
        q: queries.
        k: keys.
        v: values.
        log_a: logarithms of the decays, at most 0: [b, h, l] for one a head, [b, h, l, k] for one a key channel, None
            for no decay. Minus infinity is a decay of 0.
        s0: state before the first position; None = zeros.
        starts: first positions of histories, where the state begins afresh. Counts only where valid.
        valid: False where the state passes unchanged (padding), and 0 is read.
        chunk: most positions of a chunk; `CHANNEL_CHUNK` bounds it too where decays are per channel.
        impl: "reference" runs position by position and is differentiated by JAX; "chunked" is as above; "auto" is
            "chunked".

    Returns:
        Readings in the type of `v`, and the last state in float32.

    Raises:
        InputError: shapes that do not fit each other; an unknown implementation.
    """
    if impl not in get_args(Impl):
        raise InputError(f"no scan is called {impl!r}; there are: {', '.join(get_args(Impl))}")
    log_a = jnp.zeros(q.shape[:3]) if log_a is None else log_a
    if k.shape != q.shape or v.shape[:3] != q.shape[:3] or log_a.shape not in (q.shape[:3], q.shape):
        raise InputError(
            f"queries {q.shape}, keys {k.shape}, values {v.shape} and decays {log_a.shape} do not fit each other"
        )
    s0 = jnp.zeros((*q.shape[:2], q.shape[3], v.shape[3])) if s0 is None else s0.astype(jnp.float32)
    if starts is not None and valid is not None:
        starts = starts & valid
    if impl == "reference":
        return _reference(q, k, v, log_a, s0, starts, valid)
    size = _size(q.shape[2], chunk) if log_a.ndim == 3 else _power(q.shape[2], min(chunk, CHANNEL_CHUNK))
    return _chunked(q, k, v, log_a, s0, starts, valid, size)


def _reference(q, k, v, log_a, s0, starts, valid) -> tuple[Array, Array]:
    """The definition."""
    q, k, v, log_a = (_select(valid, x) for x in (q, k, v, log_a))
    starts = jnp.zeros(q.shape[:1] + q.shape[2:3], bool) if starts is None else starts
    decay = jnp.exp(log_a if log_a.ndim == 4 else log_a[..., None])
    inputs = [jnp.moveaxis(x, 2, 0).astype(jnp.float32) for x in (q, k, v, decay)]

    def step(state, xs):
        q, k, v, decay, start = xs
        state = jnp.where(wide(start, 4), 0, decay[..., None] * state) + k[..., None] * v[..., None, :]
        return state, jnp.einsum("bhk,bhkc->bhc", q, state)

    last, readings = jax.lax.scan(step, s0, (*inputs, starts.T))
    return jnp.moveaxis(readings, 0, 2).astype(v.dtype), last


class _Inputs(NamedTuple):
    """Of rows, or of a chunk of them."""

    q: Any
    k: Any
    v: Any
    log_a: Any
    starts: Any
    valid: Any

    def padded(self, size: int) -> "_Inputs":
        """With positions that change nothing, up to a multiple of `size`."""
        missing = -self.q.shape[2] % size
        if not missing:
            return self
        valid = jnp.ones(self.q.shape[:1] + self.q.shape[2:3], bool) if self.valid is None else self.valid
        arrays = (jnp.pad(x, [(0, missing if axis == 2 else 0) for axis in range(x.ndim)]) for x in self[:4])
        flags = (None if x is None else jnp.pad(x, [(0, 0), (0, missing)]) for x in (self.starts, valid))
        return _Inputs(*arrays, *flags)

    def part(self, number: Array, size: int) -> "_Inputs":
        """One chunk."""
        flags = (None if x is None else _cut(x, number, size, 1) for x in (self.starts, self.valid))
        return _Inputs(*(_cut(x, number, size, 2) for x in self[:4]), *flags)


def _cut(x: Array, number: Array, size: int, axis: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, number * size, size, axis)


def _put(x: Array, part: Array, number: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, part.astype(x.dtype), number * part.shape[2], 2)


def _size(length: int, most: int) -> int:
    """Positions of a chunk: as few chunks as there must be, evenly filled."""
    most = max(min(most, length), 1)
    return -(-length // -(-length // most))


def _power(length: int, most: int) -> int:
    """The largest power of two up to `most`, or the smallest that covers the length."""
    size = 1
    while size < length and 2 * size <= most:
        size *= 2
    return size


@partial(jax.custom_vjp, nondiff_argnums=(7,))
def _chunked(q, k, v, log_a, s0, starts, valid, size: int) -> tuple[Array, Array]:
    return _chunked_forward(q, k, v, log_a, s0, starts, valid, size)[0]


def _chunked_forward(q, k, v, log_a, s0, starts, valid, size: int):
    layout = time_layout(q, 2)

    def local(inputs, s0):
        state, last = s0, None
        if layout.sharded:
            state, last = carry_over(_passage(inputs), s0, reverse=False)
        readings, left, befores = _forward_loop(inputs, state, size)
        return readings, left if last is None else last, befores

    inputs = _Inputs(q, k, v, log_a, starts, valid)
    specs = _Inputs(*(layout.along(2),) * 4, *(layout.along(1),) * 2)
    island = layout.island(local, (specs, layout.row), (layout.along(2), layout.row, layout.along(1)))
    readings, last, befores = island(inputs, s0)
    return (readings, last), (inputs, befores)


def _chunked_backward(size: int, kept, cotangents):
    inputs, befores = kept
    layout = time_layout(inputs.q, 2)

    def local(inputs, befores, d, d_last):
        d_state, d_s0 = d_last, None
        if layout.sharded:
            d_state, d_s0 = carry_over(_adjoint_passage(inputs, d), d_last, reverse=True)
        gradients, d_state = _backward_loop(inputs, befores, d, d_state, size)
        return gradients, d_state if d_s0 is None else d_s0

    specs = _Inputs(*(layout.along(2),) * 4, *(layout.along(1),) * 2)
    in_specs = (specs, layout.along(1), layout.along(2), layout.row)
    island = layout.island(local, in_specs, ((layout.along(2),) * 4, layout.row))
    gradients, d_s0 = island(inputs, befores, *cotangents)
    return *gradients, d_s0, None, None


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _forward_loop(inputs: _Inputs, state: Array, size: int) -> tuple[Array, Array, Array]:
    """Readings, the last state, and the state before each chunk, [b, chunks, h, k, c]."""
    length, padded = inputs.q.shape[2], inputs.padded(size)
    count = padded.q.shape[2] // size

    def body(number, carry):
        state, readings, befores = carry
        befores = jax.lax.dynamic_update_index_in_dim(befores, state, number, 1)
        part, state = _chunk(state, padded.part(number, size))
        return state, _put(readings, part, number), befores

    befores = jnp.zeros((state.shape[0], count, *state.shape[1:]), state.dtype)
    state, readings, befores = jax.lax.fori_loop(0, count, body, (state, jnp.zeros_like(padded.v), befores))
    return readings[:, :, :length], state, befores


def _backward_loop(inputs: _Inputs, befores: Array, d: Array, d_state: Array, size: int) -> tuple[tuple, Array]:
    """Gradients of queries, keys, values and log decays, and of the state before the first chunk. A chunk is computed
    again from the state before it.
    """
    length, padded = inputs.q.shape[2], inputs.padded(size)
    count = padded.q.shape[2] // size
    d = jnp.pad(d, [(0, 0), (0, 0), (0, padded.q.shape[2] - length), (0, 0)])

    def body(i, carry):
        d_state, gradients = carry
        number = count - 1 - i
        part = padded.part(number, size)
        before = jax.lax.dynamic_index_in_dim(befores, number, 1, keepdims=False)

        def run(state, q, k, v, log_a, part=part):
            return _chunk(state, part._replace(q=q, k=k, v=v, log_a=log_a))

        _, pull = jax.vjp(run, before, *part[:4])
        d_state, *parts = pull((_cut(d, number, size, 2), d_state))
        return d_state, tuple(_put(x, part, number) for x, part in zip(gradients, parts, strict=True))

    zeros = tuple(jnp.zeros_like(x) for x in padded[:4])
    d_state, gradients = jax.lax.fori_loop(0, count, body, (d_state, zeros))
    return tuple(x[:, :, :length] for x in gradients), d_state


def _chunk(state: Array, x: _Inputs) -> tuple[Array, Array]:
    """Readings of a chunk and the state after it."""
    q, k, v, log_a, run = _prepared(x)
    first = None if run is None else run == 0
    old = _product("bhtk,bhkc->bhtc", _entering(q, log_a, first), state.astype(q.dtype))
    within = _within_by_halves if x.log_a.ndim == 4 else _within_by_pairs
    readings = _select(first, old) + within(q, k, v, log_a, run)
    return readings.astype(v.dtype), _through(k, v, log_a, run)(state)


def _passage(x: _Inputs) -> AffineMaps:
    """Factor of all positions together on the state before them."""
    return _through(*_prepared(x)[1:])


def _adjoint_passage(x: _Inputs, d: Array) -> AffineMaps:
    """Factor of all positions together on the gradient of the state after them."""
    q, k, v, log_a, run = _prepared(x)
    first = None if run is None else run == 0
    offset = _product("bhtk,bhtc->bhkc", _entering(q, log_a, first), _select(first, d))
    return _through(k, v, log_a, run)._replace(offset=offset)


def _prepared(x: _Inputs) -> tuple[Array, Array, Array, Array, Array | None]:
    """Queries, keys, values and float32 log decays [b, h, t, 1 or k], those of padding 0; and the number of starts up
    to each position, None where nothing starts.
    """
    log_a = jnp.maximum(x.log_a.astype(jnp.float32), LEAST)
    log_a = log_a if log_a.ndim == 4 else log_a[..., None]
    run = None
    if x.starts is not None:
        run = jnp.cumsum(x.starts, axis=1, dtype=jnp.int32)
        log_a = _select(~x.starts, log_a)  # nothing decays into the first position of a history
    q, k, v, log_a = (_select(x.valid, array) for array in (x.q, x.k, x.v, log_a))
    return q, k, v, log_a, run


def _through(k: Array, v: Array, log_a: Array, run: Array | None) -> AffineMaps:
    """Factors of positions [b, h, t, ...] on the state before them."""
    final = None if run is None else run == run[:, -1:]
    offset = _product("bhtk,bhtc->bhkc", *_leaving(k, v, log_a, final))
    cut = None if run is None else run[:, -1] > 0
    total = jnp.sum(log_a, axis=2)
    total = total if cut is None else jnp.where(wide(cut, total.ndim), 0, total)
    return AffineMaps(jnp.exp(total)[..., None], offset, cut)


def _entering(q: Array, log_a: Array, first: Array | None) -> Array:
    """Queries [..., t, k] as they read a state from before their first position; only those flagged read it."""
    decay = jnp.exp(jnp.cumsum(_select(first, log_a), axis=-2))
    return _select(first, q * decay).astype(q.dtype)


def _leaving(k: Array, v: Array, log_a: Array, final: Array | None) -> tuple[Array, Array]:
    """Keys and values [..., t, k or c] as they stand in the state after their last position; only those flagged do."""
    log_a = _select(final, log_a)
    later = jnp.concatenate([log_a[..., 1:, :], jnp.zeros_like(log_a[..., :1, :])], axis=-2)
    decay = jnp.exp(jax.lax.cumsum(later, axis=later.ndim - 2, reverse=True))
    return _select(final, k * decay).astype(k.dtype), _select(final, v)


def _within_by_pairs(q: Array, k: Array, v: Array, log_a: Array, run: Array | None) -> Array:
    """Readings of a chunk's own positions, decays one a head."""
    log_a = log_a[..., 0]
    seen = jnp.tril(jnp.ones((q.shape[2],) * 2, bool))[None]
    if run is None:
        total = jnp.cumsum(log_a, axis=2)
    else:
        seen = seen & (run[:, :, None] == run[:, None])
        # Sums that begin with the history, so that those of others do not touch them even by rounding.
        total = jnp.sum(jnp.where(seen[:, None], log_a[:, :, None], 0), axis=-1)
    weights = jnp.exp(jnp.where(seen[:, None], total[..., None] - total[..., None, :], -math.inf))
    scores = _product("bhtk,bhsk->bhts", q, k) * weights
    return _product("bhts,bhsc->bhtc", scores.astype(v.dtype), v)


def _within_by_halves(q: Array, k: Array, v: Array, log_a: Array, run: Array | None) -> Array:
    """Readings of a chunk's own positions, decays one a key channel; the length is a power of two."""
    readings = jnp.sum((q * k).astype(jnp.float32), axis=-1, keepdims=True) * v
    half = 1
    while half < q.shape[2]:
        (_, q2), (k1, _), (v1, _), (g1, g2), (_, old) = (_halves(x, half, 2) for x in (q, k, v, log_a, readings))
        first = final = None
        if run is not None:
            run1, run2 = _halves(run, half, 1)
            first, final = run2 == run1[..., -1:], run1 == run1[..., -1:]
        queries, (keys, values) = _entering(q2, g2, first), _leaving(k1, v1, g1, final)
        if half <= SMALL:
            scores = jnp.sum((queries[..., :, None, :] * keys[..., None, :, :]).astype(jnp.float32), axis=-1)
            new = jnp.sum(scores[..., None] * values[..., None, :, :], axis=-2)
        else:
            scores = _product("bhntk,bhnsk->bhnts", queries, keys)
            new = _product("bhnts,bhnsc->bhntc", scores.astype(v.dtype), values)
        both = jnp.stack([_halves(readings, half, 2)[0], old + _select(first, new)], axis=3)
        readings = both.reshape(readings.shape)
        half *= 2
    return readings


def _halves(x: Array, half: int, axis: int) -> tuple[Array, Array]:
    """The first and second halves of all blocks of 2 * half positions, each [..., n, half, ...]."""
    blocks = x.reshape(*x.shape[:axis], -1, 2, half, *x.shape[axis + 1 :])
    first, second = jnp.split(blocks, 2, axis=axis + 1)
    return jnp.squeeze(first, axis + 1), jnp.squeeze(second, axis + 1)


def _select(flags: Array | None, x: Array) -> Array:
    """`x` [b, h, ..., t] or [b, h, ..., t, c] where flagged, [b, ..., t], and 0 elsewhere; None flags everything."""
    return x if flags is None else jnp.where(wide(flags[:, None], x.ndim), x, 0)


def _product(form: str, x: Array, y: Array) -> Array:
    """A batched matrix product with sums in float32."""
    return jnp.einsum(form, x, y, preferred_element_type=jnp.float32)
