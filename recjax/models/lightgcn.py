"""LightGCN over a graph of items: item vectors smoothed along links, and no network (He et al., SIGIR 2020)."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import SIZE, require, within
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.objectives import BPR, Objective
from recjax.ops.items.embedding import lookup, table_rows, take_position
from recjax.typing import Array, Float, Int, Params

SMOOTHED = "smoothed"
"""Name of the items' vectors in `Items.prepared`."""


@dataclass(frozen=True)
class LightGCN(ModelConfig):
    """Vectors of items are means over k = 0 .. layers of E_k, a user the mean of the vectors of the items so far, where

        E_{k+1} = D^-1/2 W D^-1/2 E_k

    (eq. 7 and 8), W are the weights of a relation between items, and D its sums. The order of events says nothing.

    The paper's graph is of users and items, and each user has a vector of its own. Users here have none, so that any
    history can be ranked for; two steps from item to item over users are one over the relation `CoOccurrence`, of which
    each item has its strongest links alone.

    Attributes:
        width: of the item vectors.
        layers: steps along the graph; 0 for vectors that are not smoothed.
        relation: the graph.
        loss: training objective.
    """

    width: int = 64
    layers: int = 3
    relation: str = "together"
    loss: Objective = field(default_factory=BPR)

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=within(0, 16))

    def build(self, stats: ItemStats) -> "LightGCNModel":
        return LightGCNModel(self, stats)


@dataclass(frozen=True)
class LightGCNModel(Model):
    """`LightGCN` built for a catalog."""

    config: LightGCN
    stats: ItemStats

    @property
    def item_rows(self) -> tuple[str, ...]:
        return ("items",)

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        del batch, items
        return {"items": 0.1 * jax.random.normal(key, (table_rows(self.n_items + 1), self.config.width))}

    def table(self, params: Params, items: Items) -> Float[Array, "rows d"]:
        """Smoothed vectors of the items."""
        own, graph = params["items"], items.relation(self.config.relation)
        ids, values = graph.ids[: len(own)], graph.values[: len(own)]
        scale = jax.lax.rsqrt(jnp.maximum(jnp.sum(values, axis=1), 1e-9))
        weights = values * scale[:, None] * scale[ids]
        layer = total = own
        for _ in range(self.config.layers):
            layer = jnp.einsum("nk,nkd->nd", weights, layer[ids])
            total = total + layer
        return total / (self.config.layers + 1)

    def states(
        self, table: Float[Array, "rows d"], items: Int[Array, "b l"], segments: Int[Array, "b l"]
    ) -> Float[Array, "b l d"]:
        """The user after each event: the mean of the vectors of the segment's events so far."""
        places = jnp.arange(items.shape[1])
        past = (segments[:, :, None] == segments[:, None, :]) & (places[:, None] >= places)
        shares = past / jnp.sum(past, axis=-1, keepdims=True)
        return jnp.matmul(shares.astype(table.dtype), lookup(table, items))

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        table = self.table(params, items)
        states = self.states(table, batch.items, batch.segments)
        key = jax.random.key(0) if key is None else key
        total, weight = self.config.loss(states, table, None, batch, key, self.stats), jnp.sum(batch.weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        return {SMOOTHED: self.table(params, items)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        table = (items.prepared or self.prepare(params, items))[SMOOTHED]
        users = take_position(self.states(table, queries.items, queries.segments), queries.last)
        return DotProduct(users, table, self.n_items)

    def sharding_rules(self) -> Rules:
        return [("items", ("model", None)), (".*", ())]
