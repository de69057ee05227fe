"""SRA-CL: contrast with users who wanted alike things, by the texts of what they had.

Cui et al., Semantic Retrieval Augmented Contrastive Learning for Sequential Recommendation, NeurIPS 2025.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch
from recjax.data.items import VECTORS, Items
from recjax.limits import SIZE, at_least, require, within
from recjax.mixers.stack import Norm
from recjax.models.model import ItemStats, Sweep
from recjax.models.next_item import NextItem
from recjax.models.parts.dot_product import DotProductModel, Terms, last_token
from recjax.nn.groups import FROZEN
from recjax.ops.contrast import nt_xent
from recjax.ops.items.embedding import take_position
from recjax.ops.neighbours import attended, drawn_rows, recency_mean
from recjax.typing import Array, Float, InputError, Params

NOBODY = -1.0  # user of a place of the memory that holds no sample


@dataclass(frozen=True)
class SRACL(NextItem):
    """A next-item model with two contrastive terms whose positives come from the meaning of items.

    Intra: NT-Xent of two copies of a sample, items replaced by neighbours of their texts. Inter: NT-Xent of a sample's
    state and the sum of a_k h_k over its nearest samples k (`attended`), by the mean of their items' text vectors.

    The paper has texts of a language model, and encodes neighbours in every step. Here they are among `memory` samples,
    drawn before each epoch, whose states stay as they were then: h_k has no gradient. A sample's own user is no
    neighbour, for prefixes of one history are nearly copies. What ranks is the encoder alone.
    The view is `Partnered(Partnered(Users(Prefixes(Shifted(targets=1))), COPY, "first"), COPY, "second")` with COPY =
    `AlteredCopy((Substitute(),))`; data.pack is false.

    Attributes:
        inter: factor of the term between samples; 0 leaves it out.
        intra: factor of the term between copies; 0 leaves it out.
        neighbours: k.
        memory: samples that neighbours are among.
        neighbourhood: "random" has any samples of the memory in place of the nearest: the control.
        decay: weight of an item in that mean, as a share of the next one's.
        vectors: column of the items' vectors.
    """

    heads: int = 2
    norm: Norm = "post"
    dropout: float = 0.5
    max_length: int = 20
    input_norm: bool = True
    scale: bool = False
    inter: float = 0.1
    intra: float = 0.1
    neighbours: int = 10
    memory: int = 8192
    neighbourhood: Literal["semantic", "random"] = "semantic"
    decay: float = 0.8
    vectors: str = VECTORS

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, inter=at_least(0), intra=at_least(0), neighbours=SIZE, memory=SIZE, decay=within(0, 1))

    def build(self, stats: ItemStats) -> "SRACLModel":
        if self.vectors not in stats.columns and self.inter:
            raise InputError(f"SRACL reads items' vectors {self.vectors!r}, and there are none: set the recipe's text")
        base = super().build(stats)
        return SRACLModel(base.module, base.objective, stats, self)


@dataclass(frozen=True)
class SRACLModel(DotProductModel):
    """The built model; the memory is frozen, `attend` weighs neighbours."""

    config: SRACL

    @property
    def per_item(self) -> tuple[str, ...]:
        return ("items",)

    @property
    def refresh_every(self) -> Literal["epoch"] | None:
        return "epoch" if self.config.inter else None

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        params, config = super().init(key, batch, items), self.config
        if not config.inter:
            return params
        width, (semantic,) = self.module.stack.width, self.stats.columns[config.vectors]
        (one, two), uniform = jax.random.split(jax.random.fold_in(key, 1)), jax.nn.initializers.glorot_uniform()
        attend = {"kernel": uniform(one, (semantic, width)), "score": uniform(two, (2, width))}
        places = config.memory
        memory = {"states": jnp.zeros((places, width)), "semantics": jnp.zeros((places, semantic))}
        return {**params, "attend": attend, FROZEN: {**memory, "users": jnp.full(places, NOBODY)}}

    def semantics(self, batch: Batch, items: Items) -> Float[Array, "b s"]:
        """The meaning of each sample, of length 1."""
        vectors = items[self.config.vectors][items.rows(batch.items)]
        return recency_mean(vectors, batch.segments > 0, self.config.decay)

    def remembered(self, params: Params, batch: Batch, items: Items) -> dict[str, Array]:
        """Rows of the memory for each sample, at each of its tokens."""
        own = {"semantics": self.semantics(batch, items), "users": self._users(batch)}
        each = {name: jnp.broadcast_to(x[:, None], (*batch.items.shape, *x.shape[1:])) for name, x in own.items()}
        return {"states": self.states(params, batch, items), **each}

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        """A memory of samples drawn anew."""
        key = jax.random.fold_in(jax.random.key(0), sweep.step)
        memory, there = drawn_rows(sweep(self.remembered), self.config.memory, key)
        return {**params, FROZEN: {**memory, "users": jnp.where(there, memory["users"], NOBODY)}}

    def terms(
        self, params: Params, batch: Batch, items: Items, hidden: Float[Array, "b l d"], key: Array | None
    ) -> Terms:
        config, found = self.config, dict[str, tuple[float, Array, Array]]()
        keys: Any = (None,) * 3 if key is None else jax.random.split(key, 3)
        if config.intra:
            copies = (self.encode_partners(params, batch, keys[i], name) for i, name in enumerate(("first", "second")))
            weights = batch.more["first_weights"]
            found["intra"] = (config.intra, nt_xent(*copies, weights=weights), weights)
        if config.inter:
            positive, weights = self.positives(params, batch, items, keys[2])
            own = take_position(hidden, last_token(batch.segments))
            found["inter"] = (config.inter, nt_xent(own, positive, weights=weights), weights)
        return {name: (factor, jnp.sum(each), jnp.sum(weights)) for name, (factor, each, weights) in found.items()}

    def positives(
        self, params: Params, batch: Batch, items: Items, key: Array | None
    ) -> tuple[Float[Array, "b d"], Float[Array, " b"]]:
        """The states of each sample's neighbours, weighed by how near they are; and 1 where there are any, else 0."""
        own, attend, config = self.semantics(batch, items), params["attend"], self.config
        memory = jax.lax.stop_gradient(params[FROZEN])
        near = jnp.matmul(own, memory["semantics"].T)
        if config.neighbourhood == "random":
            near = jax.random.uniform(jax.random.key(0) if key is None else jax.random.fold_in(key, 1), near.shape)
        other = (memory["users"] != NOBODY) & (memory["users"] != self._users(batch)[:, None])
        read = (memory["semantics"], memory["states"], attend["kernel"], attend["score"])
        found, there = attended(own, near, other, *read, config.neighbours, rate=config.dropout, random=key)
        return found, there * jnp.any(batch.segments > 0, axis=1)

    def _users(self, batch: Batch) -> Float[Array, " b"]:
        if "users" not in batch.more:
            raise InputError("SRACL tells users from each other: data.view has to be a Users view inside its partners")
        return batch.more["users"].astype(jnp.float32)
