"""Dual embeddings: what completes an item, by the input vector of one and the output vector of the other.

Kvernadze et al., Two Is Better Than One: Dual Embeddings for Complementary Product Recommendations, ICKG 2022.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import SIZE, at_least, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.ops.activation import unit
from recjax.ops.items.embedding import lookup, lookup_shared, table_rows
from recjax.typing import Array, Float, Int, Params

HIDDEN = -4.0
"""Bias of an item that is not to be listed; cosines are above it."""


@dataclass(frozen=True)
class DualEmbeddings(ModelConfig):
    """Skip-gram with negative sampling over the pairs of a basket, whose two tables are both kept.

    A pair (a, b) adds log sigma(in_a . out_b) and `negatives` terms log sigma(-in_a . out_n), in expectation over the
    `drawn` items of a batch; n is drawn by events^power. An item scores by the mean of its cosines with the basket's:
    "in-out" finds what is bought with them, "in-in" and "out-out" what is bought with the same things, as substitutes
    are. Items of fewer than `least` events are not listed, for vectors that hardly moved are near everything else.

    With `synthetic`, an item of fewer than `least` events takes the place of an item of a pair to which it is alike, by
    a relation such as the `Neighbours` of texts; the pair then counts `synthetic` times their similarity, and such
    items are listed. The view is `Shifted`, over baskets; the paper's filters by taxonomy are not built.

    Attributes:
        width: of the vectors.
        negatives: k, of each pair.
        drawn: items that a batch draws for them.
        power: of the events; 0 draws uniformly.
        score: which tables scores compare.
        centred: take the mean vector of a table from each before comparing. Most pairs repel each other, so inputs lean
            one way and outputs the other, and without it what moved least, the rarest, is nearest; not the paper's.
        least: events of an item that are enough to be listed.
        synthetic: factor of synthetic pairs; 0 makes none.
        relation: between items that are alike.
    """

    width: int = 64
    negatives: int = 20
    drawn: int = 128
    power: float = 0.0
    score: Literal["in-out", "in-in", "out-out"] = "in-out"
    centred: bool = True
    least: int = 5
    synthetic: float = 0.0
    relation: str = "alike"

    def __post_init__(self) -> None:
        require(self, width=SIZE, negatives=SIZE, drawn=SIZE, power=at_least(-1), least=at_least(0))
        require(self, synthetic=at_least(0))

    def build(self, stats: ItemStats) -> "DualEmbeddingsModel":
        return DualEmbeddingsModel(self, stats)


@dataclass(frozen=True)
class DualEmbeddingsModel(Model):
    """The built model: tables `inputs` and `outputs`."""

    config: DualEmbeddings
    stats: ItemStats

    @property
    def per_item(self) -> tuple[str, ...]:
        return ("inputs", "outputs")

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        shape = table_rows(self.n_items + 1), self.config.width
        names = ("inputs", "outputs")
        draws = (jax.random.uniform(k, shape, minval=-0.5, maxval=0.5) for k in jax.random.split(key))
        return {name: drawn / self.config.width**0.5 for name, drawn in zip(names, draws, strict=True)}

    @property
    def rare(self) -> np.ndarray:
        """bool [items + 1], the items of too few events."""
        return self.stats.counts < self.config.least

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        first, second, third = jax.random.split(jax.random.key(0) if key is None else key, 3)
        shares = np.cumsum(np.where(self.stats.counts > 0, np.maximum(self.stats.counts, 1.0) ** self.config.power, 0))
        places = jax.random.uniform(first, (self.config.drawn,)) * float(shares[-1])
        noise = jnp.searchsorted(jnp.asarray(shares, jnp.float32), places, side="right").astype(jnp.int32)
        noise = lookup_shared(params["outputs"], jnp.clip(noise, 1, self.n_items))
        together = (batch.segments[:, :, None] == batch.segments[:, None]) & (batch.segments > 0)[:, None]
        together &= batch.items[:, :, None] != batch.targets[:, None]
        weights = together * batch.weights[:, None].astype(jnp.float32)
        total = self._pairs(params, batch.items, batch.targets, noise, weights)
        count, sums = jnp.sum(weights), {}
        if self.config.synthetic:
            one, near = self._alike(batch.items, items, second)
            two, also = self._alike(batch.targets, items, third)
            made = weights * near[:, :, None], weights * also[:, None]
            extra = self._pairs(params, one, batch.targets, noise, made[0])
            extra += self._pairs(params, batch.items, two, noise, made[1])
            total, sums = total + extra, {"synthetic": (extra, jnp.sum(made[0]) + jnp.sum(made[1]))}
        return total / jnp.maximum(count, 1.0), {"loss": (total, count), **sums}

    def _pairs(self, params: Params, one: Array, two: Array, noise: Array, weights: Float[Array, "b l l"]) -> Array:
        """Sum of the losses of the pairs of each row's items `one` and `two` [b, l]."""
        inputs, outputs = lookup(params["inputs"], one), lookup(params["outputs"], two)
        right = jax.nn.softplus(-jnp.einsum("bid,bjd->bij", inputs, outputs))
        wrong = jnp.mean(jax.nn.softplus(jnp.einsum("bid,nd->bin", inputs, noise)), axis=-1)
        return jnp.sum(weights * right) + self.config.negatives * jnp.sum(weights.sum(axis=2) * wrong)

    def _alike(self, ids: Int[Array, "b l"], items: Items, key: Array) -> tuple[Int[Array, "b l"], Float[Array, "b l"]]:
        """A rare item like each one, drawn, and what it weighs: 0 where there is none."""
        found, rows = items.relation(self.config.relation), items.rows(ids)
        near = found.ids[rows]
        able = jnp.asarray(self.rare)[near] & (near > 0) & (ids > 0)[..., None] & (near != ids[..., None])
        best = jnp.argmax(jnp.where(able, jax.random.uniform(key, near.shape), -1.0), axis=-1)[..., None]
        take: Any = lambda x: jnp.take_along_axis(x, best, axis=-1)[..., 0]  # noqa: E731
        weights = self.config.synthetic * jnp.maximum(take(found.values[rows]), 0.0) * take(able)
        return jnp.where(take(able), take(near), 0), weights

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        asked, answers = ({"in": "inputs", "out": "outputs"}[name] for name in self.config.score.split("-"))
        there = (queries.segments > 0)[..., None]
        basket = unit(lookup(params[asked], queries.items) - self._centre(params[asked]))
        mean = jnp.sum(there * basket, axis=1) / jnp.maximum(there.sum(axis=1), 1)
        hidden = jnp.zeros(len(params["inputs"]))
        if not self.config.synthetic and self.config.least:
            hidden = hidden.at[: self.n_items + 1].set(jnp.where(self.rare, HIDDEN, 0.0))
        return DotProduct(mean, unit(params[answers] - self._centre(params[answers])), self.n_items, hidden)

    def _centre(self, table: Float[Array, "n d"]) -> Float[Array, " d"]:
        """The mean vector of the items, or zero."""
        place = jnp.arange(len(table))
        own = (place > 0) & (place <= self.n_items)
        return self.config.centred * jnp.sum(table * own[:, None], axis=0) / self.n_items

    def sharding_rules(self) -> Rules:
        return [("inputs|outputs", ("model", None))]
