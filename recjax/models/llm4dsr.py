"""LLM4DSR: which events of a history do not belong there, and what would.

Wang et al., LLM4DSR: Leveraging Large Language Model for Denoising Sequential Recommendation, TOIS 2025.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import VECTORS, Items
from recjax.decode.scoring import DotProduct
from recjax.limits import at_least, between, refuse, require, within
from recjax.models.bert4rec import BERT4Rec
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.parts.dot_product import DotProductModel
from recjax.ops.items.embedding import lookup
from recjax.typing import Array, Float, Int, Params


@dataclass(frozen=True)
class LLM4DSR(BERT4Rec):
    """A bidirectional encoder that says of each event whether it was replaced, and what it was.

    Of the positions that the view `Cloze` masks, a share stays masked, a share shows another item, and the others show
    their own. From all of them the encoder restores the item, by the objective; of those that show an item a second
    head says whether it is theirs. Where the items have text vectors, these are added to the items' own. The paper asks
    a language model of eight billion parameters, trained on histories with one item replaced; that is what this encoder
    stands in for. `recjax.Recommender.rewritten` makes a dataset of what it finds, for any other model.

    Attributes, beside those of `BERT4Rec`:
        shown: share of the masked positions that show another item.
        kept: share of them that show their own; the rest shows the mask.
        hard: share of the other items that are related to the right one, the rest being drawn from all.
        relation: of items, for `hard`.
        detection: factor of the cross-entropy of whether an item was replaced; 0 leaves it out.
    """

    shown: float = 0.3
    kept: float = 0.4
    hard: float = 0.0
    relation: str = "alike"
    detection: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, shown=between(0, 1), kept=between(0, 1), hard=within(0, 1), detection=at_least(0))
        if self.shown + self.kept > 1:
            refuse(self, "kept", f"a share that is 1 at most with shown = {self.shown:g}")

    def build(self, stats: ItemStats) -> "LLM4DSRModel":
        return LLM4DSRModel(super().build(stats).module, self.loss, stats, self)


@dataclass(frozen=True)
class LLM4DSRModel(DotProductModel):
    """The built model; `texts` maps text vectors to the encoder's width, `replaced` is the second head."""

    config: LLM4DSR

    @property
    def row_tables(self) -> tuple[str, ...]:
        return ()

    @property
    def per_item(self) -> tuple[str, ...]:
        return ("items", "bias")

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        width, params = self.config.width, super().init(key, batch, items)
        params |= {"replaced": {"kernel": jnp.zeros(width), "bias": jnp.zeros(())}}
        if VECTORS in self.stats.columns:
            start = jax.nn.initializers.normal(0.02)
            params["texts"] = start(jax.random.fold_in(key, 1), (*self.stats.columns[VECTORS], width))
        return params

    def encoded(
        self, params: Params, rows: Batch | Queries, items: Items, key: Array | None = None, last: Array | None = None
    ) -> Any:
        """States of what the rows show, [b, l, d], or of those at `last` alone."""
        vectors = lookup(params["items"], rows.items)
        if "texts" in params:
            known = jnp.where(rows.items <= self.n_items, rows.items, 0)
            vectors += items[VECTORS][items.rows(known)].astype(vectors.dtype) @ params["texts"]
        inputs = (rows.items, rows.positions, rows.segments, rows.timestamps)
        return self._apply(params, *inputs, key=key, vectors=vectors, last=last)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        dropout, sampling, which, drawn = jax.random.split(jax.random.key(0) if key is None else key, 4)
        share, config = jax.random.uniform(which, batch.items.shape), self.config
        other, own = share < config.shown, (share >= config.shown) & (share < config.shown + config.kept)
        masked, others = batch.weights > 0, self.others(batch.targets, items, drawn)
        seen = jnp.where(masked & other, others, jnp.where(masked & own, batch.targets, batch.items))
        hidden = self.encoded(params, replace(batch, items=seen), items, None if key is None else dropout)
        total = self.objective(hidden, self.table(params), params.get("bias"), batch, sampling, self.stats)
        weight = jnp.sum(batch.weights)
        loss, sums = total / jnp.maximum(weight, 1.0), {"objective": (total, weight)}
        if config.detection:
            each = optax.sigmoid_binary_cross_entropy(self.doubt(params, hidden), (seen != batch.targets).astype(float))
            judged = jnp.where(other | own, batch.weights, 0.0)
            sums["detection"] = (jnp.sum(judged * each), jnp.sum(judged))
            loss += config.detection * sums["detection"][0] / jnp.maximum(sums["detection"][1], 1.0)
        return loss, {"loss": (loss * weight, weight), **sums}

    def others(self, own: Int[Array, "b l"], items: Items, key: Array) -> Int[Array, "b l"]:
        """Items drawn in the place of others: from those with events, or from those that are related."""
        which, place, drawn = jax.random.split(key, 3)
        found = jax.random.choice(drawn, np.flatnonzero(self.stats.counts), own.shape).astype(jnp.int32)
        if not self.config.hard:
            return found
        related = items.relation(self.config.relation).ids[items.rows(own)]
        count = jnp.sum(related > 0, axis=-1)
        column = (jax.random.uniform(place, own.shape) * count).astype(jnp.int32)
        near = jnp.take_along_axis(related, column[..., None], axis=-1)[..., 0]
        return jnp.where((jax.random.uniform(which, own.shape) < self.config.hard) & (count > 0), near, found)

    def doubt(self, params: Params, hidden: Float[Array, "b l d"]) -> Float[Array, "b l"]:
        """Logits of whether what stands at each position was replaced."""
        head = params["replaced"]
        return (hidden.astype(jnp.float32) @ head["kernel"]) + head["bias"]

    def corrections(self, params: Params, queries: Queries, items: Items) -> tuple[Array, Array]:
        hidden = self.encoded(params, queries, items)
        count, length = queries.items.shape
        own = jnp.repeat(jnp.where(queries.items <= self.n_items, queries.items, 0), length, axis=0)
        states = hidden.astype(jnp.float32).reshape(count * length, -1)
        best, _ = self.state_scoring(params, states, items).topk(own, 1)
        return self.doubt(params, hidden), best.reshape(count, length)

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        return self.state_scoring(params, self.encoded(params, queries, items, last=queries.last), items)
