"""ReaRec: latent steps between the history and the list (Tang et al., Think Before Recommend, 2025)."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.models.model import ItemStats, Sweep, WeightedSums
from recjax.models.next_item import NextItem
from recjax.models.parts.dot_product import DotProductModel, StreamState, last_token
from recjax.models.parts.objectives import FullSoftmax
from recjax.nn.groups import FROZEN
from recjax.ops.contrast import info_nce, score_kl
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError, Params


@dataclass(frozen=True)
class ReaRec(NextItem):
    """A next-item model that thinks: its last state, plus a learned vector of the step, goes in as one more token.

    Steps h_0 .. h_K share the history's keys and values. Two ways to train them:

    * "erl" scores by the mean of the steps; its loss is CE(mean) - weight x mean over i != j of KL(p_i || p_j), p_j
      fixed, so that steps differ;
    * "prl" scores by the last step; its loss is the sum over k of CE(h_k / anneal^(K - k)) and, from the epoch
      `warm_up` on, weight x InfoNCE between steps and steps whose inputs have noise added.

    States are compared with item vectors as they are, at temperature 1. The view is `Prefixes(Shifted(targets=1))`:
    only the last position of a sample is trained. Without steps it is a `NextItem`.

    Attributes:
        steps: K.
        way: "erl" or "prl".
        weight: of the divergence, or of the contrast.
        anneal: factor between the temperatures of two steps; this and the following are of "prl".
        noise: standard deviation of what is added to inputs.
        warm_up: epochs before the contrast begins.
    """

    scale: bool = False
    steps: int = 2
    way: Literal["erl", "prl"] = "erl"
    weight: float = 0.05
    anneal: float = 5.0
    noise: float = 0.01
    warm_up: int = 2

    def build(self, stats: ItemStats) -> "ReaRecModel | DotProductModel":
        if not isinstance(self.loss, FullSoftmax):
            raise InputError(f"model.loss is {type(self.loss).__name__}, but ReaRec's steps are distributions over all")
        base = NextItem.build(replace(self, max_length=self.max_length + self.steps), stats)
        return ReaRecModel(base.module, base.objective, stats, self) if self.steps else base


@dataclass(frozen=True)
class ReaRecModel(DotProductModel):
    """The built model, with one step or more; the step vectors are the parameter `steps`."""

    config: ReaRec
    streams: ClassVar[bool] = True

    @property
    def packing(self) -> bool:
        return False  # the steps go on from the last token of a row

    @property
    def refresh_every(self) -> Literal["epoch"] | None:
        return "epoch" if self.config.way == "prl" else None

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        shape = (self.config.steps, self.module.stack.width)
        steps = self.module.init_scale * jax.random.normal(jax.random.fold_in(key, 1), shape)
        params = {**super().init(key, batch, items), "steps": steps}
        return {**params, FROZEN: {"contrast": jnp.zeros(())}} if self.config.way == "prl" else params

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        return {**params, FROZEN: {"contrast": jnp.float32(sweep.epoch >= self.config.warm_up)}}

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config, table = self.config, self.table(params)
        keys: Any = (None, None) if key is None else jax.random.split(key)
        last = last_token(batch.segments)
        begin = partial(self.reason, params, *self._read(params, batch, last, keys[0]))
        begin = partial(begin, position=take_position(batch.positions, last), key=keys[1])
        steps = begin()
        targets, weights = (take_position(x, last[:, None]) for x in (batch.targets, batch.weights))
        asked, weights = replace(batch, targets=targets, weights=weights), weights[:, 0]

        def entropy(states: Array) -> Array:
            return self.objective(states[:, None], table, params.get("bias"), asked, None, self.stats)

        if config.way == "erl":
            total, name, factor = entropy(self.pooled(steps)), "divergence", -config.weight
            logits = [jnp.matmul(h.astype(jnp.float32), table[1 : self.n_items + 1].T) for h in steps]
            extra = [score_kl(a, jax.lax.stop_gradient(b), weights=weights) for a, b in permutations(logits, 2)]
        else:
            total = sum((entropy(h / config.anneal**k) for k, h in enumerate(reversed(steps))), jnp.zeros(()))
            name, factor = "contrast", config.weight * params[FROZEN]["contrast"]
            noisy = begin(noise=config.noise)
            extra = [info_nce(a, b, weights=weights) for a, b in zip(steps[1:], noisy[1:], strict=True)]
        other, weight = jnp.mean(jnp.stack(extra), axis=0).sum(), jnp.sum(weights)
        loss = (total + factor * other) / jnp.maximum(weight, 1.0)
        return loss, {"loss": (loss * weight, weight), "objective": (total, weight), name: (other, weight)}

    def reason(
        self, params: Params, first: Array, state: Any, position: Array, key: Array | None = None, noise: float = 0.0
    ) -> list[Float[Array, "b d"]]:
        """The last states of histories, `first` [b, d], and those of further steps, after the token at `position` [b]
        and the mixers' `state`. `key` switches dropout on, and `noise`, the standard deviation of what inputs get."""
        steps, one = [first], jnp.ones((len(first), 1), jnp.int32)
        after = {"last": jnp.zeros(len(first), jnp.int32), "continues": jnp.ones(len(first), bool)}
        for number in range(self.config.steps):
            vectors = steps[-1].astype(jnp.float32) + params["steps"][number]
            own = None if key is None else jax.random.fold_in(key, number)
            if noise and own is not None:
                vectors += noise * jax.random.normal(jax.random.fold_in(own, 1), vectors.shape)
            where = (0 * one, position[:, None] + number + 1, one)
            hidden, state = self._apply(params, *where, key=own, vectors=vectors[:, None], state=state, **after)
            steps.append(hidden)
        return steps

    def pooled(self, steps: list[Float[Array, "b d"]]) -> Float[Array, "b d"]:
        """State that items are scored by."""
        return (jnp.mean(jnp.stack(steps), axis=0) if self.config.way == "erl" else steps[-1]).astype(jnp.float32)

    def users(self, params: Params, queries: Queries) -> Float[Array, "q d"]:
        first, state = self._read(params, queries, queries.last)
        return self.pooled(self.reason(params, first, state, take_position(queries.positions, queries.last)))

    def init_state(self, users: int, max_length: int) -> StreamState:
        return super().init_state(users, max_length + self.config.steps)  # taken anew after every event

    def advance(
        self, params: Params, state: StreamState, items: Array, timestamps: Array | None = None
    ) -> tuple[Float[Array, "q d"], StreamState]:
        first, state = super().advance(params, state, items, timestamps)
        return self.pooled(self.reason(params, first, state.layers, state.length - 1)), state

    def _read(self, params: Params, rows: Batch | Queries, last: Array, key: Array | None = None) -> Any:
        """Last states of histories, and what the mixers keep of them."""
        count, length = rows.items.shape
        state = self.module.stack.init_state(count, length + self.config.steps)
        more = {"key": key, "last": last, "continues": jnp.zeros(count, bool), "state": state}
        return self._apply(params, rows.items, rows.positions, rows.segments, rows.timestamps, **more)
