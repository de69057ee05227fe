"""Losses of a positive item against negatives, per position; where negatives come from is the caller's."""

import jax
import jax.numpy as jnp

from recjax.ops.items.softmax import EXCLUDED
from recjax.typing import Array, Bool, Float


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
