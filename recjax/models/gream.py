"""GREAM's policy step on item codes: a generator tuned by rewards that can be verified, without text.

Hong et al., Generative Reasoning Recommendation via LLMs, 2025: SRPO, sparse-regularised group policy optimisation.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.decode.stepwise import children
from recjax.decode.trie import Trie
from recjax.limits import COUNT, above, at_least, refuse, require
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.parts.flat_codes import codes_of
from recjax.models.parts.tuned import REFERENCE, Tuned, policy_loss, policy_of
from recjax.models.tiger import TIGER, TRIE, History, TIGERModel
from recjax.nn.groups import FROZEN
from recjax.ops.items.embedding import take_position
from recjax.ops.policy import group_advantages, pass_advantages
from recjax.text.lm.t5 import T5
from recjax.typing import Array, Bool, Float, Int, Params


@dataclass(frozen=True)
class GREAM(TIGER):
    """`TIGER` whose samples are items that it draws itself, to be trained after a stage of `TIGER`.

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

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, samples=COUNT, k=COUNT, kl=at_least(0), clip=above(0), tries=COUNT)
        if self.k > self.samples:
            refuse(self, "k", f"at most the {self.samples} samples")

    def build(self, stats: ItemStats) -> "GREAMModel":
        tokens = self.tokens(stats)
        return GREAMModel(self, T5(self.network(tokens)), tokens, stats)


@dataclass(frozen=True)
class GREAMModel(Tuned, TIGERModel):
    """`GREAM` built for a catalog; it logs the mean reward, the share of hits, and pass@k of the samples."""

    config: GREAM

    @property
    def packing(self) -> bool:
        return False

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config, key = self.config, jax.random.key(0) if key is None else key
        weights = take_position(batch.weights, batch.last)
        target = codes_of(items, take_position(batch.targets, batch.last))
        history, trie = self.history(batch, items), self.prepare(params, items)[TRIE]
        policy = policy_of(params)
        codes, rewards = self.drawn(jax.lax.stop_gradient(policy), history, trie, target, key)
        codes, rewards = jax.lax.stop_gradient((codes, rewards))
        hits = jnp.all(codes == target[:, None], axis=2)
        advantages = group_advantages(rewards)
        if config.passes:
            advantages += pass_advantages(hits, config.k)
        new = self.path_likelihood(policy, history, trie, codes)
        reference = self.path_likelihood(params[FROZEN][REFERENCE], history, trie, codes)
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
        self, params: Params, history: History, trie: Trie, target: Int[Array, "b slots"], key: Array
    ) -> tuple[Int[Array, "b n slots"], Float[Array, "b n"]]:
        """Codes of the samples, and rewards."""
        first = self.sampled(params, history, trie, jax.random.fold_in(key, 0))

        def flat(rewards: Float[Array, "b n"]) -> Bool[Array, " b"]:
            return jnp.max(rewards, axis=1) == jnp.min(rewards, axis=1)

        def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            number, codes, rewards = state
            other = self.sampled(params, history, trie, jax.random.fold_in(key, number))
            lost = flat(rewards)
            codes = jnp.where(lost[:, None, None], other, codes)
            return number + 1, codes, self.rewards(codes, target)

        state = jnp.int32(1), first, self.rewards(first, target)
        going = lambda state: (state[0] < self.config.tries) & jnp.any(flat(state[2]))  # noqa: E731
        return jax.lax.while_loop(going, again, state)[1:]

    def sampled(self, params: Params, history: History, trie: Trie, key: Array) -> Int[Array, "b n slots"]:
        """Items drawn code by code, each by its probability among those that the trie has after the codes before."""
        mask = history[1]
        rows, count = len(mask), self.config.samples

        def run(t5: T5) -> Array:
            cache = t5.begin(self.states(t5, history), mask)
            code, node, codes = (jnp.zeros((rows, count), jnp.int32), jnp.zeros((rows, count), jnp.int32), [])
            for slot in range(trie.slots):
                hidden, cache = t5.step(cache, t5.embed(self.tokens.following(code, slot)))
                child = children(trie, slot, node)
                logits = jnp.where(child >= 0, t5.logits(hidden, *self.tokens.span(slot)), -jnp.inf)
                code = jax.random.categorical(jax.random.fold_in(key, slot), logits).astype(jnp.int32)
                node = jnp.maximum(jnp.take_along_axis(child, code[..., None], axis=2)[..., 0], 0)
                codes.append(code)
            return jnp.stack(codes, axis=2)

        return self._run(params, run)

    def path_likelihood(
        self, params: Params, history: History, trie: Trie, codes: Int[Array, "b n slots"]
    ) -> Float[Array, "b n"]:
        """Log-probability of items among those of the trie, by teacher forcing."""
        mask = history[1]
        rows, count, slots = codes.shape

        def run(t5: T5) -> Array:
            states = self.states(t5, history)
            many = (jnp.repeat(states, count, axis=0), jnp.repeat(mask, count, axis=0))
            hidden = t5.decode(self.written(t5, self.tokens.written(codes.reshape(-1, slots))), *many)
            node, total = jnp.zeros((rows, count), jnp.int32), jnp.zeros((rows, count))
            for slot in range(slots):
                child = children(trie, slot, node)
                logits = t5.logits(hidden[:, slot], *self.tokens.span(slot)).reshape(rows, count, -1)
                own = codes[..., slot, None]
                found = jax.nn.log_softmax(logits, where=child >= 0, axis=-1)
                total += jnp.take_along_axis(found, own, axis=2)[..., 0]
                node = jnp.maximum(jnp.take_along_axis(child, own, axis=2)[..., 0], 0)
            return total

        return self._run(params, run)
