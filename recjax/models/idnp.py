"""IDNP: what a user wants as a function of time, inferred from few events by a neural process.

Du et al., IDNP: Interest Dynamics Modeling using Generative Neural Processes for Sequential Recommendation, WSDM 2023.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import RATE, SIZE, at_least, divides, refuse, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.dot_product import last_token
from recjax.models.parts.neural_process import DAY, Process
from recjax.models.parts.objectives import FullSoftmax, Objective
from recjax.ops.items.embedding import lookup, table_rows
from recjax.typing import Array, Float, Params


@dataclass(frozen=True)
class IDNP(ModelConfig):
    """A neural process over windows of a history: a set of pairs of a time and what its window says of the interest.

    Causal convolutions of several dilations read each window of the last `window` events. What the user wants when
    asked at a time is decoded from that time, attention by times over the windows, and a latent function, a Gaussian of
    the mean over the windows. A training step cuts each history at an event drawn anew: windows up to there are the
    context, every event from there on is a time to ask for the item that follows it, and the loss is

        mean of L(item | z, context, time) + divergence x KL(q(z | all windows) || q(z | context)),

    with z drawn from the former. Queries are cut, and asked, at their last event, with the mean of z. The paper's sizes
    are not published. The view is `Shifted(times=True)`, without times events count as days; data.pack is false.

    Attributes:
        width: of item vectors, windows and z.
        heads: of the attention over windows.
        dropout: rate on item vectors and on what is decoded.
        window: events of a window.
        stride: events between the ends of two windows, back from the cut.
        dilations: of the convolutions, a scale each.
        process: False has the last window alone in place of the process, and trains every event: the control.
        divergence: factor of the KL; 0 leaves out z as well.
        distance: of the two Gaussians: the "kl", or Wasserstein's, "w2".
        loss: training objective.
    """

    width: int = 64
    heads: int = 4
    dropout: float = 0.2
    window: int = 5
    stride: int = 2
    dilations: tuple[int, ...] = (1, 2, 4)
    process: bool = True
    divergence: float = 1.0
    distance: Literal["kl", "w2"] = "kl"
    loss: Objective = field(default_factory=FullSoftmax)

    def __post_init__(self) -> None:
        require(self, width=SIZE, heads=SIZE, dropout=RATE, window=SIZE, stride=SIZE, dilations=SIZE)
        divides(self, "heads", self.width, "model width")
        require(self, divergence=at_least(0))
        if not self.dilations:
            refuse(self, "dilations", "one number or more")

    def build(self, stats: ItemStats) -> "IDNPModel":
        options = {
            name: getattr(self, name) for name in ("heads", "dropout", "window", "stride", "process", "distance")
        }
        return IDNPModel(self, Process(dilations=self.dilations, latent=self.divergence > 0, **options), stats)


@dataclass(frozen=True)
class IDNPModel(Model):
    """The built model."""

    config: IDNP
    module: Process
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        shape = table_rows(self.n_items + 1), self.config.width
        params = {"items": 0.02 * jax.random.normal(key, shape)}
        cut = last_token(batch.segments)
        read = self._read(params["items"], batch)
        network: Any = self.module.init(jax.random.fold_in(key, 1), *read, cut, cut[:, None])
        return params | network["params"]

    def _read(self, table: Array, rows: Batch | Queries) -> tuple[Array, Array, Array]:
        """Vectors of the events, whether they are there, and their seconds."""
        times = rows.positions * DAY if rows.timestamps is None else rows.timestamps
        return lookup(table, rows.items) * self.config.width**0.5, rows.segments > 0, times

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        (rows, length), last = batch.items.shape, last_token(batch.segments)
        drop, where, noise, drawn = jax.random.split(jax.random.key(0) if key is None else key, 4)
        share = jnp.full(rows, 0.5) if key is None else jax.random.uniform(where, (rows,))
        cut = jnp.zeros_like(last) if not self.config.process else (share * (last + 1)).astype(jnp.int32)
        z = jnp.zeros((rows, self.config.width)) if key is None else jax.random.normal(noise, (rows, self.config.width))
        asked = jnp.broadcast_to(jnp.arange(length), (rows, length))
        found: Any = self.module.apply(
            {"params": params},
            *self._read(params["items"], batch),
            cut,
            asked,
            z,
            rngs=None if key is None else {"dropout": drop},
        )
        states, apart = found
        batch = replace(batch, weights=jnp.where(asked >= cut[:, None], batch.weights, 0.0))
        total = self.config.loss(states, params["items"], None, batch, drawn, self.stats)
        weight, there = jnp.sum(batch.weights), (batch.segments > 0).any(axis=1)
        far, count = jnp.sum(apart * there), jnp.sum(there, dtype=jnp.float32)
        loss = total / jnp.maximum(weight, 1.0) + self.config.divergence * far / jnp.maximum(count, 1.0)
        return loss, {"loss": (loss * weight, weight), "objective": (total, weight), "divergence": (far, count)}

    def users(self, params: Params, queries: Queries) -> Float[Array, "q d"]:
        """Interest of each user at the last event."""
        read = self._read(params["items"], queries)
        found: Any = self.module.apply({"params": params}, *read, queries.last, queries.last[:, None])
        return found[0][:, 0]

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        return DotProduct(self.users(params, queries), params["items"], self.n_items)

    def sharding_rules(self) -> Rules:
        return [("^items$", ("model", None)), (".*", ())]
