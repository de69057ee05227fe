"""Advantages and losses of policies that are tuned by rewards of groups of samples."""

import jax.numpy as jnp

from recjax.typing import Array, Bool, Float


def group_advantages(rewards: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
    """(reward - mean) / deviation within each group of samples (GRPO, Shao et al. 2024); 0 in groups without spread.

    >>> group_advantages(jnp.array([1.0, 0.0, 1.0, 0.0])).tolist()
    [1.0, -1.0, 1.0, -1.0]
    >>> group_advantages(jnp.array([0.5, 0.5])).tolist()
    [0.0, 0.0]
    """
    centred = rewards - jnp.mean(rewards, axis=-1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True))
    return jnp.where(deviation > 1e-6, centred / jnp.maximum(deviation, 1e-6), 0.0)


def pass_advantages(hits: Bool[Array, "*b n"], k: int) -> Float[Array, "*b n"]:
    """Advantages of pass@k (Chen et al. 2025): a subset of k of the n samples is rewarded if one of them is a hit.

    With c hits rho = 1 - C(n - c, k) / C(n, k) is the mean over subsets; a hit has (1 - rho) / sigma, another sample
    (1 - rho - C(n - c - 1, k - 1) / C(n - 1, k - 1)) / sigma, sigma = sqrt(rho (1 - rho)); 0 where sigma is 0.

    >>> found = pass_advantages(jnp.arange(10) < 1, 4)
    >>> [round(float(x), 4) for x in found[:2]]
    [1.2247, -0.1361]
    >>> pass_advantages(jnp.arange(10) < 7, 4).tolist() == [0.0] * 10
    True

    Args:
        hits: which samples of each group are right.
        k: samples of a subset, at most n.
    """
    n, count = hits.shape[-1], jnp.sum(hits, axis=-1, keepdims=True)
    rho = 1 - _none_of(n - count, n, k)
    sigma = jnp.sqrt(rho * (1 - rho))
    miss = 1 - rho - _none_of(n - count - 1, n - 1, k - 1)
    return jnp.where(sigma > 1e-6, jnp.where(hits, 1 - rho, miss) / jnp.maximum(sigma, 1e-6), 0.0)


def _none_of(left: Array, n: int, k: int) -> Array:
    """C(left, k) / C(n, k): the share of the subsets of k of n in which all are of the `left`."""
    places = jnp.arange(k)
    return jnp.prod(jnp.maximum(left[..., None] - places, 0) / (n - places), axis=-1)


def clipped_loss(
    log_ratio: Float[Array, "*b"], advantages: Float[Array, "*b"], clip: float = 0.2
) -> Float[Array, "*b"]:
    """-min(ratio A, clip(ratio) A), the loss of PPO, of the log of the ratio of the policy to the one that sampled."""
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages)


def kl_estimate(log_policy: Float[Array, "*b"], log_reference: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """exp(d) - d - 1, d = log reference - log policy: never negative; its mean over samples of the policy is the
    divergence from the reference (Schulman 2020)."""
    difference = log_reference - log_policy
    return jnp.exp(difference) - difference - 1
