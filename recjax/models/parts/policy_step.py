"""SRPO, the policy step of GREAM: a generator of item codes tuned by rewards of its own samples that can be verified.

Hong et al., Generative Reasoning Recommendation via LLMs, 2025: sparse-regularised group policy optimisation.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.decode.sampling import log_probabilities, sampled_codes
from recjax.decode.scoring import Stepwise
from recjax.limits import COUNT, above, at_least, refuse, require
from recjax.models.model import ModelConfig, WeightedSums
from recjax.models.parts.flat_codes import codes_of
from recjax.models.parts.tuned import REFERENCE, Tuned, policy_loss, policy_of
from recjax.nn.groups import FROZEN
from recjax.ops.items.embedding import take_position
from recjax.ops.policy import group_advantages, pass_advantages
from recjax.typing import Array, Bool, Float, Int, Params


@dataclass(frozen=True)
class SRPO(ModelConfig):
    """A base for the configuration of a generator whose samples are items that it draws itself.

    For each history `samples` items are drawn code by code among those of the trie. A sample has the reward 1 for the
    target, else the square root of the share of its codes, from the first on, that are the target's. Its advantage is
    the reward less the group's mean, over the deviation, plus that of pass@k. A group whose rewards are all equal is
    drawn again, at most `tries` times. The loss is -advantage x ratio, clipped, plus `kl` times the divergence from the
    parameters before the first step, which are frozen. Probabilities are among the codes that the trie has.

    Attributes:
        samples: items of a group.
        k: of pass@k.
        passes: add the advantage of pass@k; without, and with exact rewards, it is GRPO.
        prefixes: reward prefixes of the target; otherwise the target alone.
        kl: weight.
        clip: of the ratio.
        tries: draws of a group.
    """

    samples: int = 10
    k: int = 4
    passes: bool = True
    prefixes: bool = True
    kl: float = 1e-3
    clip: float = 0.2
    tries: int = 10

    def check_policy(self) -> None:
        """Raises InputError where a setting is out of range."""
        require(self, samples=COUNT, k=COUNT, kl=at_least(0), clip=above(0), tries=COUNT)
        if self.k > self.samples:
            refuse(self, "k", f"at most the {self.samples} samples")


class SRPOModel(Tuned):
    """A base for the model of `SRPO`; it logs the mean reward, the share of hits, and pass@k of the samples."""

    config: Any

    @property
    def packing(self) -> bool:
        return False

    @abstractmethod
    def answers(self, params: Params, batch: Batch, items: Items) -> Stepwise:
        """The search for items after each row's history."""

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config, key = self.config, jax.random.key(0) if key is None else key
        weights = take_position(batch.weights, batch.last)
        target = codes_of(items, take_position(batch.targets, batch.last))
        policy = policy_of(params)
        codes, rewards = self.drawn(self.answers(jax.lax.stop_gradient(policy), batch, items), target, key)
        codes, rewards = jax.lax.stop_gradient((codes, rewards))
        hits = jnp.all(codes == target[:, None], axis=2)
        advantages = group_advantages(rewards)
        if config.passes:
            advantages += pass_advantages(hits, config.k)
        new, reference = (
            log_probabilities(self.answers(each, batch, items), codes) for each in (policy, params[FROZEN][REFERENCE])
        )
        none = jnp.prod((jnp.sum(~hits, axis=1)[:, None] - jnp.arange(config.k)).clip(0), axis=1)
        none = none / jnp.prod(config.samples - jnp.arange(config.k))
        means = {"reward": rewards, "hits": hits, f"pass@{config.k}": (1 - none)[:, None]}
        return policy_loss(new, reference, advantages, weights, clip=config.clip, kl=config.kl, means=means)

    def rewards(self, codes: Int[Array, "b n slots"], target: Int[Array, "b slots"]) -> Float[Array, "b n"]:
        """1 for the target; the root of the share of the codes before the first wrong one, or 0."""
        right = jnp.cumprod(codes == target[:, None], axis=2)
        share = jnp.mean(right.astype(jnp.float32), axis=2)
        return jnp.sqrt(share) if self.config.prefixes else (share == 1).astype(jnp.float32)

    def drawn(
        self, search: Stepwise, target: Int[Array, "b slots"], key: Array
    ) -> tuple[Int[Array, "b n slots"], Float[Array, "b n"]]:
        """Codes of the samples, and rewards."""
        cache = search.begin(search.queries)
        search = replace(search, begin=lambda _: cache)  # histories are read once, however often groups are drawn
        first = sampled_codes(search, self.config.samples, jax.random.fold_in(key, 0))

        def flat(rewards: Float[Array, "b n"]) -> Bool[Array, " b"]:
            return jnp.max(rewards, axis=1) == jnp.min(rewards, axis=1)

        def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            number, codes, rewards = state
            other = sampled_codes(search, self.config.samples, jax.random.fold_in(key, number))
            codes = jnp.where(flat(rewards)[:, None, None], other, codes)
            return number + 1, codes, self.rewards(codes, target)

        state = jnp.int32(1), first, self.rewards(first, target)
        going = lambda state: (state[0] < self.config.tries) & jnp.any(flat(state[2]))  # noqa: E731
        return jax.lax.while_loop(going, again, state)[1:]
