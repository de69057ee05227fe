"""MQSA-TED: attention by two queries, and item vectors that know what follows what.

Zhu et al., Collaboration and Transition: Distilling Item Transitions into Multi-Query Self-Attention for Sequential
Recommendation, WSDM 2024.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.data.transitions import head_items
from recjax.limits import COUNT, SIZE, above, at_least, require, within
from recjax.mixers.stack import Encoder, Norm
from recjax.models.model import ItemStats
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder, Terms
from recjax.models.sasrec import SASRec
from recjax.ops.dropout import dropout
from recjax.ops.items.embedding import lookup, take_position
from recjax.ops.items.sparse_teacher import sparse_teacher
from recjax.typing import Array, Float, Params


@dataclass(frozen=True)
class MQSATED(SASRec):
    """SASRec with a second encoder, whose queries are means of the last inputs, and distilled item vectors.

    The state is alpha x short + (1 - alpha) x long: the short encoder is SASRec's, and a query of the long one is
    the mean of the last `window` inputs. The loss has two terms more: the vector of a frequent target alone predicts
    what users had after it,

        weight x mean of H(softmax(counts / (max counts x temperature)), softmax(sqrt(width) x e_i E' / temperature)),

    and l2 x half the squares of all parameters. Which items are frequent is not published: here, the share `head`.
    Counts come from a relation of the items such as `Transitions(count=100, gaps=(1.0,))`; items beyond it count 0.

    Attributes:
        alpha: share of the short encoder; 1 leaves the other out.
        window: inputs of a long query.
        weight: of the distillation; 0 leaves it out.
        temperature: of teacher and student.
        head: share of the items, the most frequent, that are distilled.
        distilled: frequent targets of a row that are, drawn anew in every step; None for all, as in the paper.
        relation: what users had after an item.
        l2: factor of the squares.
    """

    norm: Norm = "sasrec"
    layers: int = 1
    dropout: float = 0.5
    max_length: int = 50
    alpha: float = 0.5
    window: int = 3
    weight: float = 0.1
    temperature: float = 0.1
    head: float = 0.2
    distilled: int | None = 4
    relation: str = "next"
    l2: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, alpha=within(0, 1), window=SIZE, weight=at_least(0), temperature=above(0))
        require(self, head=within(0, 1), distilled=COUNT, l2=at_least(0))

    def build(self, stats: ItemStats) -> "MQSATEDModel":
        module = TwoQueries(
            stats.items + 1, self.max_length, self.stack(), scale=self.scale, alpha=self.alpha, window=self.window
        )
        return MQSATEDModel(module, self.loss, stats, self)


class TwoQueries(ItemSequenceEncoder):
    """Two encoders of one stream; see `MQSATED`."""

    alpha: float = 0.5
    window: int = 3

    def encoded(self, x: Array, context: Any, last: Array | None, state: Any) -> Any:
        if self.alpha == 1:
            return super().encoded(x, context, last, state)
        long = Encoder(replace(self.stack, query_window=self.window), name="long")(x, context, last, state)
        short = super().encoded(x, context, last, state)
        return self.alpha * short + (1 - self.alpha) * long


@dataclass(frozen=True)
class MQSATEDModel(DotProductModel):
    """The built model; the parameters of its second encoder are `long`."""

    config: MQSATED

    def init_state(self, users: int, max_length: int) -> Any:
        replace(self.module.stack, query_window=self.config.window).init_state(1, 1)  # a window is not advanced
        return super().init_state(users, max_length)

    @property
    def row_tables(self) -> tuple[str, ...]:
        return ()  # both terms read the whole table

    def terms(
        self, params: Params, batch: Batch, items: Items, hidden: Float[Array, "b l d"], key: Array | None
    ) -> Terms:
        config, terms = self.config, dict[str, Any]()
        if config.l2:
            squares = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
            terms["l2"] = (config.l2, squares / 2, jnp.ones(()))
        if config.weight:
            terms["distillation"] = (config.weight, *self._distillation(params, batch, items, key))
        return terms

    def head(self) -> np.ndarray:
        """bool [items + 1], the items that are distilled."""
        return head_items(self.stats.counts, self.config.head) & (self.stats.counts > 0)

    def _distillation(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, Array]:
        """Sum and weight of the losses of the frequent targets that are drawn."""
        config, table, rate = self.config, self.table(params), self.module.stack.dropout
        frequent = jnp.asarray(self.head())[batch.targets] & (batch.weights > 0)
        drawn, dropped = (None, None) if key is None else jax.random.split(key)
        if config.distilled is None or config.distilled >= frequent.shape[1]:
            ids, weights = batch.targets, frequent.astype(jnp.float32)
        else:
            lot = jnp.zeros(frequent.shape) if drawn is None else jax.random.uniform(drawn, frequent.shape)
            place = jax.lax.top_k(frequent - lot, config.distilled)[1]
            ids, weights = take_position(batch.targets, place), take_position(frequent, place).astype(jnp.float32)
        student = dropout(self.module.stack.width**0.5 * lookup(table, ids), rate, dropped) / config.temperature
        found, rows = items.relation(config.relation), items.rows(ids)
        counts = found.values[rows]
        most = jnp.max(counts, axis=-1, keepdims=True)
        weights = jnp.where(most[..., 0] > 0, weights, 0.0)
        logits = counts / jnp.where(most > 0, most, 1.0) / config.temperature
        total = sparse_teacher(student, table, found.ids[rows], logits, weights, items=self.n_items)
        return total, jnp.sum(weights)
