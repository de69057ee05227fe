"""First-order linear recurrences, h_t = a_t h_{t-1} + b_t, elementwise: the kernel of S4D, S5, LRU, RG-LRU.

A start flag makes the recurrence forget what stands before it in the row. It selects, rather than multiplies with 0,
so that even an infinity of one history cannot reach the next. A position that is not valid hands on the state before
it. So with A_t the map from h_{t-1} to h_t,

    A_t h = 0 where a history starts, h where t is not valid, a_t h elsewhere.

The adjoint is the same recurrence run the other way (Martin & Cundy 2018): with d_t the cotangent of h_t,

    g_t = d_t + A_{t+1} g_{t+1},    db_t = g_t,    da_t = g_t h_{t-1},

for which nothing but h is kept. Over a mesh whose `seq` axis is longer than 1, each device runs the positions it
holds: an affine map says what they do to a state that reaches them, only these maps (of one step's size) are
gathered, and each device starts from the state that the maps before it yield.
"""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from recjax.ops.scan.kernel import states_by_kernel
from recjax.ops.scan.time_axis import AffineMaps, carry_over, time_layout, wide
from recjax.typing import Array, Bool, InputError

Impl = Literal["auto", "reference", "sequential", "associative", "kernel"]


class _How(NamedTuple):
    """Static choices: run from the last position to the first; how."""

    reverse: bool
    impl: str


def linear_scan(
    a: Array,
    b: Array,
    *,
    h0: Array | None = None,
    starts: Bool[Array, "b l"] | None = None,
    valid: Bool[Array, "b l"] | None = None,
    reverse: bool = False,
    impl: Impl = "auto",
) -> tuple[Array, Array]:
    """All states of h_t = a_t * h_{t-1} + b_t, elementwise, along axis 1 of `b`.

    States, sums and products are float32 or complex64 whatever the type of `b`. Give `a` in float32 or complex64:
    bfloat16 rounds a decay of 0.999 to 1.

    Implementations: "reference" is `lax.scan`, differentiated by JAX; "sequential" a loop over positions that reads and
    writes in place; "associative" `lax.associative_scan`, of logarithmic depth at twice the arithmetic and memory;
    "kernel" a kernel for TPUs that reads and writes each number once, interpreted elsewhere (slow, for tests). Of a
    v5e's memory traffic the kernel needs a seventeenth (`experiments/benchmarks/kernels.py`), by the compiler's count:
    "auto" does not take it before a chip has timed it.
    "auto" is "sequential" on CPUs, where it is the fastest at every length (`experiments/benchmarks/scan.py`), and
    "associative" on accelerators, where a position is too little work to launch.

    Where the mesh has a `seq` axis that divides the positions, they are taken to be sharded over it. Rows and channels
    may be sharded in any way: nothing crosses them.

    Args:
        a: decays, of the shape of `b`, or [...] without the axes of rows and positions where they never change.
        b: inputs, [b, l, ...]; real or complex.
        h0: states before the first position, [b, ...]; None = zeros.
        starts: where the recurrence begins afresh, in the direction it runs: first positions of histories, last ones if
            `reverse`. Counts only where valid.
        valid: False where the state passes unchanged (padding). None = everywhere valid.
        reverse: run from the last position to the first.
        impl: implementation.

    Returns:
        States [b, l, ...], and the last one in the direction of the run, [b, ...].

    Raises:
        InputError: shapes that do not fit each other; an unknown implementation.
    """
    if impl not in get_args(Impl):
        raise InputError(f"no scan is called {impl!r}; there are: {', '.join(get_args(Impl))}")
    if a.shape not in (b.shape, b.shape[2:]):
        raise InputError(f"decays of shape {a.shape} fit no inputs of shape {b.shape}: expected it, or {b.shape[2:]}")
    carry_type = jnp.result_type(a, b, jnp.float32)
    h0 = jnp.zeros(b.shape[:1] + b.shape[2:], carry_type) if h0 is None else h0.astype(carry_type)
    if starts is not None and valid is not None:
        starts = starts & valid
    if impl == "reference":
        return _reference(a, b, h0, starts, valid, reverse)
    return _scan(a, b, h0, starts, valid, _How(reverse, impl))


def _reference(a, b, h0, starts, valid, reverse) -> tuple[Array, Array]:
    """The definition, differentiated by JAX."""
    flags = [jnp.broadcast_to(x, b.shape[:2]) for x in (starts if starts is not None else False, _all(valid))]
    inputs = [jnp.moveaxis(x, 1, 0) for x in (jnp.broadcast_to(a, b.shape), b, *flags)]

    def step(h, xs):
        a, b, start, valid = xs
        start, valid = (wide(x, b.ndim) for x in (start, valid))
        h = jnp.where(valid, jnp.where(start, 0, a * h) + b, h)
        return h, h

    last, states = jax.lax.scan(step, h0, tuple(inputs), reverse=reverse)
    return jnp.moveaxis(states, 0, 1), last


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _scan(a, b, h0, starts, valid, how: _How) -> tuple[Array, Array]:
    return _scan_forward(a, b, h0, starts, valid, how)[0]


def _scan_forward(a, b, h0, starts, valid, how: _How):
    layout = time_layout(b)

    def local(a, b, h0, starts, valid):
        h_in, last = h0, None
        if layout.sharded:
            h_in, last = carry_over(_summary(a, b, starts, valid, how.reverse), h0, how.reverse)
        states = _by_platform(_forward_loop, _forward_tree, how, a, b, h_in, starts, valid)
        return states, states[:, 0 if how.reverse else -1] if last is None else last, h_in[:, None]

    along, row = layout.along(1), layout.row
    decay = along if a.ndim == b.ndim else layout.whole
    island = layout.island(local, (decay, along, row, along, along), (along, row, along))
    states, last, h_in = island(a, b, h0, starts, valid)
    return (states, last), (a, states, h_in, starts, valid, jnp.zeros((), b.dtype))


def _scan_backward(how: _How, kept, cotangents):
    a, states, h_in, starts, valid, like_b = kept
    layout = time_layout(states)

    def local(a, states, h_in, starts, valid, d, d_last):
        g_in, d_h0 = d_last, None
        if layout.sharded:
            g_in, d_h0 = carry_over(_adjoint_summary(a, d, starts, valid, how.reverse), d_last, not how.reverse)
        rule = partial(_by_platform, _backward_loop, _backward_tree, how)
        da, db, g_out = rule(a, states, h_in[:, 0], starts, valid, d, g_in)
        if a.ndim < d.ndim and layout.sharded:
            da = layout.sum(da)
        return _as(da, a), _as(db, like_b), g_out if d_h0 is None else d_h0

    along, row = layout.along(1), layout.row
    decay = along if a.ndim == states.ndim else layout.whole
    island = layout.island(local, (decay, along, along, along, along, along, row), (decay, along, row))
    da, db, d_h0 = island(a, states, h_in, starts, valid, *cotangents)
    return da, db, d_h0, None, None


_scan.defvjp(_scan_forward, _scan_backward)


def _by_platform(loop: Any, tree: Any, how: _How, *arrays: Any) -> Any:
    """The loop or the tree, the latter as a kernel or not: as asked, or by the platform that it is lowered for."""
    loop, scanned = partial(loop, how.reverse), partial(tree, _scanned, how.reverse)
    if how.impl == "auto":
        return jax.lax.platform_dependent(*arrays, cpu=loop, default=scanned)
    if how.impl == "kernel":
        on_chip, elsewhere = (partial(tree, partial(states_by_kernel, interpret=x), how.reverse) for x in (False, True))
        return jax.lax.platform_dependent(*arrays, tpu=on_chip, default=elsewhere)
    return {"sequential": loop, "associative": scanned}[how.impl](*arrays)


def _all(valid: Array | None) -> Any:
    return True if valid is None else valid


def _as(x: Array, like: Array) -> Array:
    """A gradient in the type of the input it belongs to."""
    real = jnp.iscomplexobj(x) and not jnp.iscomplexobj(like)
    return (x.real if real else x).astype(like.dtype)


def _decayed(a: Array, h: Array, start: Array | None, valid: Array | None) -> Array:
    """A_t h."""
    decayed = a * h
    if start is not None:
        decayed = jnp.where(wide(start, h.ndim), 0, decayed)
    return decayed if valid is None else jnp.where(wide(valid, h.ndim), decayed, h)


def _where(flags: Array | None, x: Array) -> Array:
    """`x` where flagged, 0 elsewhere; None flags everything."""
    return x if flags is None else jnp.where(wide(flags, x.ndim), x, 0)


def _kept(starts: Array | None, valid: Array | None) -> Array | None:
    """Mask of the states that depend on a decay."""
    if starts is None or valid is None:
        return valid if starts is None else ~starts
    return valid & ~starts


def _at(t: Array, *arrays: Array | None) -> list[Any]:
    """Position t of each."""
    take = partial(jax.lax.dynamic_index_in_dim, index=t, axis=1, keepdims=False)
    return [None if x is None else take(x) for x in arrays]


def _put(x: Array, value: Array, t: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(x, value, t, 1)


def _forward_loop(reverse, a, b, h, starts, valid) -> Array:
    """States by a loop over positions."""
    length = b.shape[1]

    def body(i, carry):
        h, states = carry
        t = length - 1 - i if reverse else i
        b_t, start, is_valid = _at(t, b, starts, valid)
        a_t = a if a.ndim < b.ndim else _at(t, a)[0]
        h = _decayed(a_t, h, start, is_valid) + _where(is_valid, b_t)
        return h, _put(states, h, t)

    return jax.lax.fori_loop(0, length, body, (h, jnp.zeros(b.shape, h.dtype)))[1]


def _backward_loop(reverse, a, states, h_in, starts, valid, d, carry) -> tuple[Array, Array, Array]:
    """Gradients of decays, inputs and incoming state, by a loop from the last position of the run to its first."""
    length, static = states.shape[1], a.ndim < states.ndim

    def body(i, loop):
        carry, da, db = loop
        t = i if reverse else length - 1 - i
        before = jnp.clip(t + 1 if reverse else t - 1, 0, length - 1)
        d_t, start, is_valid = _at(t, d, starts, valid)
        a_t = a if static else _at(t, a)[0]
        h = jnp.where(i == length - 1, h_in, _at(before, states)[0])
        g = d_t + carry
        da_t = _where(_kept(start, is_valid), g * h)
        da = da + da_t if static else _put(da, _as(da_t, a), t)
        return _decayed(a_t, g, start, is_valid), da, _put(db, _where(is_valid, g), t)

    da = jnp.zeros_like(h_in) if static else jnp.zeros(a.shape, a.dtype)
    carry, da, db = jax.lax.fori_loop(0, length, body, (carry, da, jnp.zeros(d.shape, d.dtype)))
    return jnp.sum(da, axis=0) if static else da, db, carry


def _maps(a, b, starts, valid) -> AffineMaps:
    """Factors of each position on the state before it. A decay that never changes has one row unless rows differ."""
    flagged = starts is not None or valid is not None
    if a.ndim < b.ndim:
        a = jnp.broadcast_to(a, (b.shape if flagged else (1, *b.shape[1:])))
    if valid is not None:
        a = jnp.where(wide(valid, b.ndim), a, 1)
    carry_type = jnp.result_type(a, b, jnp.float32)
    return AffineMaps(a.astype(carry_type), _where(valid, b).astype(carry_type), starts)


def _scanned(maps: AffineMaps, h: Array, reverse: bool) -> Array:
    """States of the maps applied one after the other to `h`."""
    through = jax.lax.associative_scan(lambda x, y: x.then(y), maps, reverse=reverse, axis=1)
    return through(h[:, None])


def _forward_tree(scanned, reverse, a, b, h, starts, valid) -> Array:
    """States by a scan of the maps."""
    return scanned(_maps(a, b, starts, valid), h, reverse)


def _backward_tree(scanned, reverse, a, states, h_in, starts, valid, d, carry) -> tuple[Array, Array, Array]:
    """`_backward_loop` by a scan of the maps."""
    maps = _maps(a, d, starts, valid)
    one, uncut = jnp.ones_like(maps.scale[:, :1]), None if starts is None else jnp.zeros_like(starts[:, :1])
    cut = None if starts is None or uncut is None else _moved(starts, uncut, not reverse)
    g = scanned(AffineMaps(_moved(maps.scale, one, not reverse), d, cut), carry, not reverse)
    da = _where(_kept(starts, valid), g * _moved(states, h_in[:, None], reverse))
    first = -1 if reverse else 0
    start, is_valid = (None if x is None else x[:, first] for x in (starts, valid))
    carry = _decayed(a if a.ndim < d.ndim else a[:, first], g[:, first], start, is_valid)
    return jnp.sum(da, axis=(0, 1)) if a.ndim < d.ndim else da, _where(valid, g), carry


def _moved(x: Array, first: Array, reverse: bool) -> Array:
    """`x` one position later in the run, which begins with `first`."""
    return jnp.concatenate([x[:, 1:], first] if reverse else [first, x[:, :-1]], axis=1)


def _summary(a, b, starts, valid, reverse) -> AffineMaps:
    """Factor of all positions together on the state before them."""
    return _folded(_maps(a, b, starts, valid), reverse)


def _adjoint_summary(a, d, starts, valid, reverse) -> AffineMaps:
    """Factor of all positions together on the gradient that comes to them from behind."""
    maps = _maps(a, d, starts, valid)
    through = _decayed(a, d, starts, valid)
    return _folded(maps._replace(offset=through.astype(maps.offset.dtype)), not reverse)


def _folded(maps: AffineMaps, reverse: bool) -> AffineMaps:
    """One map for all positions, neighbours joined pair by pair."""
    while (length := maps.offset.shape[1]) > 1:
        even, odd, rest = (
            jax.tree.map(lambda x, cut=cut: x[:, cut], maps)
            for cut in (slice(0, length // 2 * 2, 2), slice(1, None, 2), slice(length // 2 * 2, None))
        )
        pairs = odd.then(even) if reverse else even.then(odd)
        maps = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=1), pairs, rest) if length % 2 else pairs
    return jax.tree.map(lambda x: x[:, 0], maps)
