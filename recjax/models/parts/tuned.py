"""Models that are tuned by rewards of what they draw themselves, kept near what they were before."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.data.items import Items
from recjax.models.model import Model, Sweep, WeightedSums
from recjax.nn.groups import FROZEN
from recjax.ops.policy import clipped_loss, kl_estimate
from recjax.typing import Array, Float, Params

REFERENCE = "reference"
"""Name of the parameters before the first step, among the frozen ones."""


class Tuned(Model):
    """A base for the model of a system whose loss is `policy_loss`: it holds its reference, frozen."""

    @property
    def refresh_every(self) -> Literal["start"]:
        return "start"

    def init(self, key: Array, batch: Any, items: Items) -> Params:
        params = super().init(key, batch, items)
        return {**params, FROZEN: {REFERENCE: jax.tree.map(jnp.copy, params)}}

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        """The parameters before the first step, as the reference."""
        del items, sweep
        return {**params, FROZEN: {REFERENCE: policy_of(params)}}


def policy_of(params: Params) -> Params:
    """The parameters without the reference."""
    return {name: each for name, each in params.items() if name != FROZEN}


def policy_loss(
    new: Float[Array, "b n"],
    reference: Float[Array, "b n"],
    advantages: Float[Array, "b n"],
    weights: Float[Array, " b"],
    *,
    clip: float,
    kl: float,
    means: dict[str, Float[Array, "b n"]],
) -> tuple[Array, WeightedSums]:
    """Mean loss of groups of samples: clipped, and `kl` times the divergence from the reference.

    Args:
        new: log-probabilities of the samples, which the same parameters have drawn.
        reference: those by the reference.
        advantages: of the samples; they and what is logged have no gradient.
        weights: of the groups.
        clip: of the ratio.
        kl: weight.
        means: what is logged beside, by name.
    """
    each = clipped_loss(new - jax.lax.stop_gradient(new), jax.lax.stop_gradient(advantages), clip)
    divergence = kl_estimate(new, jax.lax.stop_gradient(reference))
    weight = jnp.sum(weights)

    def mean(values: Float[Array, "b n"]) -> tuple[Array, Array]:
        return jnp.sum(jnp.where(weights > 0, weights * jnp.mean(values, axis=1), 0.0)), weight

    total, _ = mean(each + kl * divergence)
    logged = {name: mean(values) for name, values in means.items()}
    return total / jnp.maximum(weight, 1.0), {"loss": (total, weight), "kl": mean(divergence), **logged}
