"""Linear attention that sees both sides: each query reads the sum of all key-value products of its segment."""

import jax.numpy as jnp

from recjax.ops.scan.elementwise import linear_scan
from recjax.typing import Array, Float, Int


def segment_product(
    q: Float[Array, "b h l k"],
    k: Float[Array, "b h l k"],
    v: Float[Array, "b h l v"],
    segments: Int[Array, "b l"],
    *,
    chunk: int = 64,
) -> Float[Array, "b h l v"]:
    """o_t = q_t S with S = sum of k_i v_i^T over the segment of t; linear in the length, nothing [l, l] is made.

    Inside a chunk of positions, products of queries and keys are masked to their segment. A segment reaches beyond the
    chunk only through its first or its last position, so what it holds of the others is one matrix from either side:
    sums over chunks, which run on as long as chunks hold that segment alone.

    Args:
        q: queries.
        k: keys.
        v: values.
        segments: consecutive positions of one number belong together; 0 = padding, which reads nothing.
        chunk: positions handled by masked products.

    Returns:
        What each position reads, float32.
    """
    length = q.shape[2]
    chunk = min(chunk, length)
    chunks = -(-length // chunk)

    def cut(x: Array) -> Array:
        """[b, n, c, ...]: chunks, the last filled up with zeros."""
        x = jnp.pad(x, [(0, 0), (0, chunks * chunk - length), *[(0, 0)] * (x.ndim - 2)])
        return x.reshape(x.shape[0], chunks, chunk, *x.shape[2:])

    q, k, v = (cut(x.swapaxes(1, 2)) for x in (q, k, v))
    part = cut(segments)
    same = (part[..., :, None] == part[..., None, :]) & (part > 0)[..., None]
    weights = jnp.einsum("bnchk,bnmhk->bnhcm", q, k, preferred_element_type=jnp.float32)
    weights = jnp.where(same[:, :, None], weights, 0)
    out = jnp.einsum("bnhcm,bnmhv->bnchv", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    if chunks > 1:
        out += _beyond(q, k, v, part, reverse=False) + _beyond(q, k, v, part, reverse=True)
    return out.reshape(out.shape[0], chunks * chunk, *out.shape[3:])[:, :length].swapaxes(1, 2)


def _beyond(q: Array, k: Array, v: Array, part: Array, reverse: bool) -> Array:
    """Sums of their segment that positions read from the chunks before theirs, or from those after it."""
    near, far = (-1, 0) if reverse else (0, -1)  # the positions next to those chunks and away from them
    towards, away = (part == part[..., i : i + 1 or None] for i in (near, far))
    towards, away = towards & (part > 0), away & (part > 0)
    whole = jnp.all(away, axis=-1)
    # Whether the chunk before holds the start of the segment that this chunk begins with.
    outside = jnp.zeros_like(part[:, :1, 0])
    first, last = part[..., near], part[..., far]
    before = jnp.concatenate([last[:, 1:], outside] if reverse else [outside, last[:, :-1]], axis=1)
    joined = (first == before) & (first > 0)

    held = jnp.where(away[..., None, None], k, 0)
    sums = jnp.einsum("bnchk,bnchv->bnhkv", held, v, preferred_element_type=jnp.float32)
    one = jnp.ones(sums.shape[2:], jnp.float32)
    states, _ = linear_scan(one, sums, starts=~(whole & joined), reverse=reverse)
    nothing = jnp.zeros_like(states[:, :1])
    states = jnp.concatenate([states[:, 1:], nothing] if reverse else [nothing, states[:, :-1]], axis=1)
    states = jnp.where(joined[..., None, None, None], states, 0)
    asking = jnp.where(towards[..., None, None], q, 0)
    return jnp.einsum("bnchk,bnhkv->bnchv", asking, states.astype(q.dtype), preferred_element_type=jnp.float32)
