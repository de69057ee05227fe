"""A small network that tells real users from made ones, trained anew for each update, and what its scores cost."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from recjax.typing import Array, Float

STEPS, INNER, RATE = 200, 32, 0.01


def fraud_scores(real: Float[Array, "n f"], fake: Float[Array, "n f"], doubt: float) -> np.ndarray:
    """float32 [n], the probability that each real user is made: of two layers trained on both, all at once, by

        BCE(real as 0, fake as 1) + doubt x entropy of the scores of the real.

    Args:
        real: evidence of users as they are.
        fake: of made users.
        doubt: factor of the entropy.
    """
    both = np.concatenate([real, fake]).astype(np.float32)
    both = (both - both.mean(axis=0)) / np.maximum(both.std(axis=0), 1e-6)
    return np.asarray(_trained(jnp.asarray(both), doubt))[: len(real)]


@partial(jax.jit, static_argnums=1)
def _trained(evidence: Array, doubt: float) -> Array:
    made = (jnp.arange(len(evidence)) >= len(evidence) // 2).astype(jnp.float32)
    optimiser = optax.adamw(RATE, weight_decay=5e-4)
    inner = jax.random.normal(jax.random.key(0), (evidence.shape[1], INNER)) * evidence.shape[1] ** -0.5
    start = {"inner": inner, "bias": jnp.zeros(INNER), "outer": jnp.zeros(INNER), "level": jnp.zeros(())}

    def logits(params: dict[str, Array]) -> Array:
        return jax.nn.relu(evidence @ params["inner"] + params["bias"]) @ params["outer"] + params["level"]

    def loss(params: dict[str, Array]) -> Array:
        found = logits(params)
        share = jax.nn.sigmoid(found)
        entropy = share * jax.nn.softplus(-found) + (1 - share) * jax.nn.softplus(found)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(found, made) + 2 * doubt * jnp.where(made > 0, 0.0, entropy))

    def step(carried: tuple, _: None) -> tuple[tuple, None]:
        params, state = carried
        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jax.lax.scan(step, (start, optimiser.init(start)), None, STEPS)[0][0]
    return jax.nn.sigmoid(logits(params))


def updated(credit: np.ndarray, scores: np.ndarray, loss: float) -> np.ndarray:
    """Credits after users with scores above the mean have lost some, if they are fewer than a third; the sum stays.

    >>> updated(np.full(4, 3.0), np.array([0.9, 0.1, 0.1, 0.1]), 1.0).round(2).tolist()
    [2.0, 3.33, 3.33, 3.33]
    """
    bad = scores > scores.mean()
    if not bad.any() or 3 * bad.sum() >= len(bad):
        return credit
    return np.where(bad, credit - loss, credit + loss * bad.sum() / (~bad).sum()).astype(credit.dtype)
