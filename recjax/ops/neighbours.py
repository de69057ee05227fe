"""Nearest rows of a memory, and a learned mean of what they hold."""

from typing import Any

import jax
import jax.numpy as jnp

from recjax.ops.dropout import dropout
from recjax.typing import Array, Bool, Float


def recency_mean(vectors: Float[Array, "b l s"], present: Bool[Array, "b l"], decay: float) -> Float[Array, "b s"]:
    """Mean of the vectors that are there, each weighing `decay` of the next one, scaled to length 1.

    >>> found = recency_mean(jnp.eye(3)[None], jnp.array([[True, True, False]]), 0.75)  # weights 0.75 and 1
    >>> [round(x, 4) for x in found[0].tolist()]
    [0.6, 0.8, 0.0]

    Args:
        vectors: of the events, oldest first.
        present: events, without a gap.
        decay: what an event weighs of the next one.
    """
    later = jnp.sum(present, axis=1, keepdims=True) - jnp.cumsum(present, axis=1)
    weights = jnp.where(present, decay ** later.astype(jnp.float32), 0.0)
    found = jnp.einsum("bl,bls->bs", weights, vectors.astype(jnp.float32))
    return found / jnp.maximum(jnp.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def drawn_rows(rows: dict[str, Any], size: int, key: Array) -> tuple[dict[str, Array], Bool[Array, " m"]]:
    """Rows drawn at random for a memory, each once; and which of its `size` places they fill.

    >>> drawn, there = drawn_rows({"x": jnp.array([7, 7])}, 3, jax.random.key(0))
    >>> drawn["x"].tolist(), there.tolist()
    ([7, 7, 7], [True, True, False])

    Args:
        rows: arrays by name, [n, ...].
        size: m.
        key: of the draw.
    """
    count = len(next(iter(rows.values())))
    drawn = jnp.resize(jax.random.permutation(key, count), (size,))
    return {name: jnp.asarray(array)[drawn] for name, array in rows.items()}, jnp.arange(size) < count


def attended(
    query: Float[Array, "b s"],
    near: Float[Array, "b m"],
    allowed: Bool[Array, "b m"],
    keys: Float[Array, "m s"],
    values: Float[Array, "m d"],
    kernel: Float[Array, "s c"],
    score: Float[Array, "2 c"],
    k: int,
    *,
    rate: float = 0.0,
    random: Array | None = None,
) -> tuple[Float[Array, "b d"], Float[Array, " b"]]:
    """Sum over the k allowed rows of largest `near` of a_k v_k, where a = softmax over k of
    LeakyReLU(w . [W q ; W s_k]) (graph attention of one head, Velickovic et al. 2018).

    >>> memory, one = jnp.array([[1.0], [3.0], [5.0]]), jnp.ones((1, 1))
    >>> near, allowed = jnp.array([[0.1, 0.9, 0.5]]), jnp.array([[True, True, False]])
    >>> found, there = attended(one, near, allowed, memory, memory, one, jnp.zeros((2, 1)), 2)
    >>> found.tolist(), there.tolist()  # of equal weights
    ([[2.0]], [1.0])

    Args:
        query: q.
        near: of each row of the memory, however measured.
        allowed: rows that may be neighbours.
        keys: s of the rows.
        values: v of the rows.
        kernel: W.
        score: w, its half for q and that for s_k.
        k: neighbours; fewer where no more are allowed.
        rate: dropout of what W gives.
        random: key of the dropout, or None for none.

    Returns:
        The sums, zeros where nothing is allowed; and 1 where something is, else 0.
    """
    best, place = jax.lax.top_k(jnp.where(allowed, near, -jnp.inf), min(k, keys.shape[0]))
    known = jnp.isfinite(best)
    own = dropout(query[:, None] @ kernel, rate, random) @ score[0]
    theirs = dropout(keys[place] @ kernel, rate, random) @ score[1]
    shares = jax.nn.softmax(jnp.where(known, jax.nn.leaky_relu(own + theirs, 0.2), -1e30))
    found = jnp.einsum("bk,bkd->bd", jnp.where(known, shares, 0.0), values[place])
    return found, jnp.any(known, axis=1).astype(jnp.float32)
