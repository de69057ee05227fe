"""REG4Rec's second stage: the order-free generator of codes tuned by rewards of the paths that it takes itself.

Xing et al., REG4Rec: Reasoning-Enhanced Generative Model for Large-Scale Recommendation Systems, 2025: rewards of paths
(PARS) and of several events ahead (MSRA). There is no official code; the numbers are this library's.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch
from recjax.data.items import CODES, Items
from recjax.decode.any_order import present
from recjax.limits import COUNT, RATE, above, at_least, require
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.parts.flat_codes import codes_of
from recjax.models.parts.tuned import REFERENCE, Tuned, policy_loss, policy_of
from recjax.models.reg4rec import REG4Rec, REG4RecModel, SetT5
from recjax.nn.groups import FROZEN
from recjax.ops.policy import group_advantages
from recjax.typing import Array, Bool, Float, Int, Params

History = tuple[Int[Array, "b l slots"], Bool[Array, "b l"]]
"""Codes of the items, and which there are."""


class Paths(NamedTuple):
    """Items drawn code by code, n for each history, in p = slots steps each.

    Attributes:
        codes: of the items, int32 [b, n, slots].
        slot: that each step takes, int32 [b, n, p].
        used: slots taken before each step, bool [b, n, p, slots].
        exists: codes of that slot that some item has beside those taken before, bool [b, n, p, size].
    """

    codes: Array
    slot: Array
    used: Array
    exists: Array


@dataclass(frozen=True)
class REG4RecTuned(REG4Rec):
    """`REG4Rec` whose samples are items that it draws itself, to be trained after a stage of `REG4Rec`.

    For each history `samples` items are drawn: each step takes the slot of which the model is surest, as the search
    does, and draws a code among those of the items that are left. An item's reward for a target is 1 for the target
    itself and `share` times the share of equal codes; its reward is the mean over the target and the events after it
    that the view gives (`Shifted(targets=3)`), the j-th weighing `ahead`^j. Advantages are those of a group (GRPO); the
    loss is -advantage x ratio, clipped, plus `kl` times the divergence from the parameters before the first step.

    Attributes:
        samples: items of a group.
        share: reward of equal codes.
        ahead: weight of an event beside that of the one before it; 0 rewards the next alone.
        clip: of the ratio.
        kl: weight.
    """

    samples: int = 8
    share: float = 0.5
    ahead: float = 0.5
    clip: float = 0.2
    kl: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, samples=COUNT, share=at_least(0), ahead=RATE, clip=above(0), kl=at_least(0))

    def build(self, stats: ItemStats) -> "REG4RecTunedModel":
        found = super().build(stats)
        return REG4RecTunedModel(self, found.module, stats)


@dataclass(frozen=True)
class REG4RecTunedModel(Tuned, REG4RecModel):
    """`REG4RecTuned` built for a catalog; it logs the mean reward of the samples and the share of hits."""

    config: REG4RecTuned

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config, key = self.config, jax.random.key(0) if key is None else key
        asked, weights = batch.weights > 0, jnp.max(batch.weights, axis=1)
        first = jnp.argmax(asked, axis=1)[:, None]
        before = (jnp.arange(asked.shape[1]) <= first) & (batch.items > 0)
        history = codes_of(items, batch.items), before
        policy = policy_of(params)
        paths = jax.lax.stop_gradient(self.drawn(policy, history, items, key))
        ahead = jnp.where(asked, config.ahead ** (jnp.arange(asked.shape[1]) - first), 0.0)
        targets = codes_of(items, batch.targets)
        rewards = self.rewards(paths.codes, targets, ahead)
        hits = jnp.all(paths.codes == jnp.take_along_axis(targets, first[..., None], axis=1), axis=2)
        new, old = (self.likelihood(each, history, paths) for each in (policy, params[FROZEN][REFERENCE]))
        means = {"reward": rewards, "hits": hits}
        return policy_loss(new, old, group_advantages(rewards), weights, clip=config.clip, kl=config.kl, means=means)

    def rewards(
        self, codes: Int[Array, "b n slots"], targets: Int[Array, "b l slots"], ahead: Float[Array, "b l"]
    ) -> Float[Array, "b n"]:
        """Rewards of items for targets that weigh `ahead`."""
        equal = jnp.mean((codes[:, :, None] == targets[:, None]).astype(jnp.float32), axis=3)
        each = (equal == 1) + self.config.share * equal
        return jnp.einsum("bnl,bl->bn", each, ahead) / jnp.maximum(jnp.sum(ahead, axis=1), 1e-9)[:, None]

    def drawn(self, params: Params, history: History, items: Items, key: Array) -> Paths:
        """Samples; each ends at an item."""
        known = jax.lax.dynamic_slice_in_dim(items[CODES], items.start + 1, self.n_items)
        rows, count, slots = len(history[1]), self.config.samples, known.shape[1]
        size = max(self.stats.code_sizes)

        def run(t5: SetT5) -> Paths:
            states = t5.histories(*history)
            codes, used = jnp.zeros((rows, count, slots), jnp.int32), jnp.zeros((rows, count, slots), bool)
            left, steps = jnp.ones((rows, count, self.n_items), bool), []
            for place in range(slots):
                logits = t5.asked(states, history[1], codes, used)
                sure = jnp.max(jax.nn.log_softmax(logits), axis=-1)
                slot = jnp.argmax(jnp.where(used, -jnp.inf, sure), axis=-1)
                values = known.T[slot]
                exists = present(values, left, size)
                own = jnp.take_along_axis(logits, slot[..., None, None], axis=2)[:, :, 0]
                noise = jax.random.fold_in(key, place)
                code = jax.random.categorical(noise, jnp.where(exists, own, -jnp.inf)).astype(jnp.int32)
                steps.append((slot, used, exists))
                left &= values == code[..., None]
                here = jnp.arange(slots) == slot[..., None]
                codes, used = jnp.where(here, code[..., None], codes), used | here
            return Paths(codes, *(jnp.stack(each, axis=2) for each in zip(*steps, strict=True)))

        return self._run(params, run)

    def likelihood(self, params: Params, history: History, paths: Paths) -> Float[Array, "b n"]:
        """Log-probability of each path, by teacher forcing."""
        rows, count, steps = paths.slot.shape
        sets = jnp.repeat(paths.codes, steps, axis=1)
        used = paths.used.reshape(sets.shape)
        logits = self._run(params, lambda t5: t5.asked(t5.histories(*history), history[1], sets, used))
        logits = logits.reshape(rows, count, steps, *logits.shape[2:])
        own = jnp.take_along_axis(logits, paths.slot[..., None, None], axis=3)[:, :, :, 0]
        found = jax.nn.log_softmax(own, where=paths.exists, axis=-1)
        code = jnp.take_along_axis(paths.codes, paths.slot, axis=2)
        return jnp.sum(jnp.take_along_axis(found, code[..., None], axis=-1)[..., 0], axis=2)
