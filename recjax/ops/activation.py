"""Memory strength of the items of a history, by the declarative memory of ACT-R (Anderson et al. 2004).

Rows hold events; `[l, l]` arrays say of each event (first axis) something about every event of its row (second axis).
"""

import jax
import jax.numpy as jnp

from recjax.typing import Array, Bool, Float, InputError, Int

EPSILON = 2.0**-20
"""Strength of an item without activation: a square, so that weights of equal activations are exactly equal shares."""


def unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Vectors of length 1; a zero vector stays zero."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def event_times(
    number: Int[Array, "b l"], timestamps: Int[Array, "b l"] | None, seconds: float | None
) -> Float[Array, "b l"]:
    """Times of events: in units of so many seconds after the row's first, or the numbers of their sessions.

    Raises:
        InputError: a unit, and no time stamps.
    """
    if seconds is None:
        return number.astype(jnp.float32)
    if timestamps is None:
        raise InputError(f"ages are counted in units of {seconds:g} seconds, but events have no times: set view.times")
    return (timestamps - timestamps[:, :1]).astype(jnp.float32) / seconds


def traces(times: Float[Array, "b l"], seen: Bool[Array, "b l l"], decay: float) -> Float[Array, "b l l"]:
    """Trace of event k at the time of event p, as a share of all traces then: (1 + t_p - t_k) ** -decay.

    Args:
        times: of the events.
        seen: whether event k is remembered at event p; rows without any give zeros.
        decay: 0.5 in ACT-R; 0 counts events.
    """
    left = jnp.where(seen, (1.0 + jnp.maximum(times[:, :, None] - times[:, None, :], 0.0)) ** -decay, 0.0)
    return left / jnp.maximum(jnp.sum(left, axis=-1, keepdims=True), 1e-12)


def base_level(left: Float[Array, "b l l"], items: Int[Array, "b l"]) -> Float[Array, "b l"]:
    """Base-level activation of each event's item: its share of the traces, softmax of log(sum_k age_k ** -decay) over
    the items of the history."""
    return jnp.sum(jnp.where(items[:, :, None] == items[:, None, :], left, 0.0), axis=-1)


def spreading(
    items: Int[Array, "b l"], together: Bool[Array, "b l l"], links: Int[Array, "b l k"], values: Float[Array, "b l k"]
) -> Float[Array, "b l"]:
    """Spreading activation: the sum of the links from an event's item to the other items of its session.

    Args:
        items: of the events.
        together: whether two events are of one session.
        links: linked items of each event's item, 0 for none.
        values: weights of the links.
    """

    def add(total: Array, member: tuple[Array, Array]) -> tuple[Array, None]:
        item, near = member  # one event of each row, and the events of its session
        found = jnp.sum(jnp.where(links == item[:, None, None], values, 0.0), axis=-1)
        return total + jnp.where(near, found, 0.0), None

    members = (items.T, jnp.moveaxis(together, 2, 0))
    return jax.lax.scan(add, jnp.zeros(items.shape, values.dtype), members)[0]


def matching(
    vectors: Float[Array, "b l d"], items: Int[Array, "b l"], together: Bool[Array, "b l l"]
) -> Float[Array, "b l"]:
    """Partial matching: the sum of the products of an event's vector with those of the other items of its session."""
    others = together & (items[:, :, None] != items[:, None, :])
    return jnp.sum(vectors * jnp.matmul(others.astype(vectors.dtype), vectors), axis=-1)


def forget(
    left: Float[Array, "b l l"], weights: Float[Array, "b l"], share: float, key: Array
) -> tuple[Float[Array, "b l l"], Float[Array, "b l"]]:
    """Traces, and weights in sessions, with a random share of the events at zero; the others stay as they are."""
    kept = jax.random.bernoulli(key, 1 - share, weights.shape)
    return left * kept[:, None], weights * kept


def shares(activation: Float[Array, "b l"], together: Bool[Array, "b l l"]) -> Float[Array, "b l"]:
    """Weights of the events of a session, which sum to 1: the roots of their activations, where these are positive."""
    strength = jnp.sqrt(jax.nn.relu(activation) + EPSILON)
    total = jnp.sum(jnp.where(together, strength[:, None, :], 0.0), axis=-1)
    return strength / jnp.maximum(total, strength)
