"""LoRec: users who look injected weigh less.

Zhang et al., LoRec: Large Language Model for Robust Sequential Recommendation against Poisoning Attacks, SIGIR 2024.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch
from recjax.data.items import VECTORS, Items
from recjax.limits import COUNT, SIZE, above, at_least, require
from recjax.models.model import ItemStats, Sweep, WeightedSums
from recjax.models.parts.calibrator import fraud_scores, updated
from recjax.models.parts.dot_product import DotProductModel
from recjax.models.sasrec import SASRec
from recjax.nn.groups import FROZEN
from recjax.typing import Array, Float, InputError, Params

WHOLE = 3.0
"""Credit of every user at first; the loss of a user weighs sigmoid(credit) / sigmoid(WHOLE), at most 1."""


@dataclass(frozen=True)
class LoRec(SASRec):
    """SASRec whose loss weighs each user by a credit that those who look injected lose.

    Now and then, between epochs, a calibrator learns to tell the samples of an epoch from copies of them filled with
    items drawn at random, by what `evidence` says of either. Users whose score is above the mean, if they are fewer
    than a third, lose 1, which is shared out among the others. The paper's calibrator reads vectors of a language model
    that was asked about each user; here statistics stand in for them: how popular the items are, whether one often
    follows the other, and how near their texts are.

    The view is a `Users` view. A relation, such as `Transitions(count=100, gaps=(1.0,))`, says what follows what.

    Attributes:
        room: users that there is room for, injected ones included.
        first: epoch that the first credits are lost before; with `first` beyond the run, it is SASRec.
        every: epochs between two updates.
        loss_of_credit: what a user loses at a time.
        doubt: factor of the entropy of real users' scores, so that injected ones among them may drift.
        states: whether the calibrator sees the model's states too. They are trained on the injected users as well, so
            that these seem as real as others.
        relation: what users had after an item.
    """

    room: int = 32_768
    first: int = 3
    every: int = 1
    loss_of_credit: float = 1.0
    doubt: float = 0.5
    states: bool = False
    relation: str = "next"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, room=SIZE, first=COUNT, every=COUNT, loss_of_credit=above(0), doubt=at_least(0))

    def build(self, stats: ItemStats) -> "LoRecModel":
        return LoRecModel(super().build(stats).module, self.loss, stats, self)


@dataclass(frozen=True)
class LoRecModel(DotProductModel):
    """The built model; credits are frozen parameters."""

    config: LoRec
    streams: ClassVar[bool] = True  # credits weigh the loss alone

    @property
    def per_item(self) -> tuple[str, ...]:
        return ("items",)

    @property
    def refresh_every(self) -> Literal["epoch"]:
        return "epoch"

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        return {**super().init(key, batch, items), FROZEN: {"credit": jnp.full(self.config.room, WHOLE)}}

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        users = self._users(batch)
        credit = jax.lax.stop_gradient(jnp.take(params[FROZEN]["credit"], users, mode="clip"))
        trust = jnp.minimum(jax.nn.sigmoid(credit) / jax.nn.sigmoid(WHOLE), 1.0)
        batch = replace(batch, weights=batch.weights * (trust if users.ndim == 2 else trust[:, None]))
        return super().loss(params, batch, items, key)

    def _users(self, batch: Batch) -> Array:
        if "users" not in batch.more:
            raise InputError("LoRec weighs users: data.view has to be a Users view")
        return batch.more["users"]

    def evidence(self, params: Params, batch: Batch, items: Items, counted: bool) -> Float[Array, "b l f"]:
        """Statistics of each history up to each event, by which real users are told from made ones.

        They are mean and mean square of the logarithm of an item's popularity, of the share of its followers that the
        next event is, and of the cosine of their texts; then, if wanted, the model's state. Histories that are
        `counted` are taken out of the counts: else whoever has rare items would seem to do what is often done.
        """
        own = (batch.segments[:, :, None] == batch.segments[:, None]) & jnp.tri(batch.items.shape[1], dtype=bool)
        before, counts = jnp.pad(batch.items, [(0, 0), (1, 0)])[:, :-1], jnp.asarray(self.stats.counts, jnp.float32)
        second = (batch.segments == jnp.pad(batch.segments, [(0, 0), (1, 0)])[:, :-1])[..., None]
        followers = items.relation(self.config.relation)
        rows, earlier = items.rows(batch.items), items.rows(before)
        values = followers.values[earlier]
        once = jnp.min(jnp.where(values > 0, values, jnp.inf), axis=-1)  # the share of a pair that happened once
        share = jnp.sum(jnp.where(followers.ids[earlier] == batch.items[..., None], values, 0.0), -1)
        share = jnp.maximum(share - once, 0.0) if counted else share
        near = jnp.zeros_like(share)
        if VECTORS in self.stats.columns:
            near = jnp.sum(items[VECTORS][rows].astype(jnp.float32) * items[VECTORS][earlier], axis=-1)
        popular = jnp.log(jnp.maximum(counts[batch.items] - counted, 0.5))
        pairs = jnp.where(second, jnp.stack([jnp.log1p(100.0 * share), near], axis=-1), 0.0)
        each = jnp.concatenate([popular[..., None], pairs], axis=-1)
        means = jnp.matmul(own.astype(jnp.float32), jnp.concatenate([each, jnp.square(each)], axis=-1))
        states = [self.states(params, batch, items)] if self.config.states else []
        return jnp.concatenate([means / jnp.sum(own, axis=-1, keepdims=True), *states], axis=-1)

    def compared(self, params: Params, batch: Batch, items: Items) -> dict[str, Array]:
        """Evidence of the samples and of copies with random items that have events, and the users; at each token."""
        key = jax.random.fold_in(jax.random.key(0), jnp.sum(batch.items))
        drawn = jax.random.choice(key, np.flatnonzero(self.stats.counts), batch.items.shape).astype(jnp.int32)
        fakes = replace(batch, items=jnp.where(batch.segments > 0, drawn, 0))
        users = self._users(batch)
        users = users if users.ndim == 2 else jnp.broadcast_to(users[:, None], batch.items.shape)
        real, fake = self.evidence(params, batch, items, True), self.evidence(params, fakes, items, False)
        return {"real": real, "fake": fake, "users": users}

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        """Credits after an update, in the epochs that have one."""
        config = self.config
        if sweep.epoch < config.first or (sweep.epoch - config.first) % config.every:
            return params
        found: Any = sweep(self.compared)
        if (most := int(found["users"].max())) >= config.room:
            raise InputError(f"model.room is {config.room}, but user number {most} is trained on")
        scores = fraud_scores(found["real"], found["fake"], config.doubt)
        users, place = np.unique(found["users"], return_inverse=True)
        scores = np.bincount(place, scores) / np.bincount(place)
        credit = np.array(params[FROZEN]["credit"])
        credit[users] = updated(credit[users], scores, config.loss_of_credit)
        return {**params, FROZEN: {"credit": credit}}
