"""RPG: long tuples of codes without an order, all predicted at once from one state.

Hou et al., Generating Long Semantic IDs in Parallel for Recommendation, KDD 2025.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, Items
from recjax.decode.scoring import CodeSum
from recjax.limits import COUNT, LAYERS, RATE, SIZE, above, require
from recjax.mixers.mixer import SeqContext
from recjax.mixers.pattern import pattern
from recjax.mixers.stack import Encoder, Stack
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.models.parts.flat_codes import check_codes, codes_of
from recjax.nn.dropout import Dropout
from recjax.ops.activation import unit
from recjax.typing import Array, Dtype, Float, Int, Params


@dataclass(frozen=True)
class RPG(ModelConfig):
    """A causal encoder over items, each the mean of the vectors of its codes.

    For slot s the state h becomes h + silu(W_s h), W_s zeros at the start, and a code's logit is the cosine of that and
    the code's vector, over `temperature`. The loss is the mean over slots of the cross-entropies, at every position; an
    item scores the sum of the logits of its codes, which ranks as the product of their probabilities does. The whole
    catalog is scored; the paper's walk over a graph of near items, which looks at part of it, is not here.

    The tokenizer is `PQ`; the view is `Shifted`.

    Attributes:
        width: model width.
        layers: blocks.
        heads: attention heads.
        dropout: rate on embeddings, attention and feed-forward outputs.
        max_length: rows of the position table; at least the view's `max_length`.
        codes: rows of the code table for each slot, whatever the slot's size, so that parameters fit other catalogs.
        temperature: of the cosines.
        dtype: compute type; parameters are float32.
    """

    ranks_unseen: ClassVar[bool] = True

    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    max_length: int = 50
    codes: int = 256
    temperature: float = 0.03
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=LAYERS, heads=COUNT, dropout=RATE, max_length=SIZE, codes=SIZE)
        require(self, temperature=above(0))

    @property
    def longest(self) -> int:
        return self.max_length

    def build(self, stats: ItemStats) -> "RPGModel":
        """The model for a catalog whose items have codes."""
        check_codes("RPG", stats.code_sizes, self.codes)
        stack = Stack(
            pattern=pattern("attention", heads=self.heads, dropout=self.dropout),
            layers=self.layers,
            width=self.width,
            causal=True,
            norm="pre",
            inner=4 * self.width,
            dropout=self.dropout,
            dtype=self.dtype,
        )
        return RPGModel(self, CodeEncoder(len(stats.code_sizes), self.codes, self.max_length, stack), stats)


class CodeEncoder(nn.Module):
    """Codes of items to states; it owns the vectors of codes and the heads too, which `RPGModel` reads.

    Attributes:
        slots: codes of an item.
        codes: rows of the table for each slot.
        max_length: rows of the position table.
        stack: the encoder.
    """

    slots: int
    codes: int
    max_length: int
    stack: Stack

    @nn.compact
    def __call__(
        self,
        codes: Int[Array, "b l slots"],
        positions: Int[Array, "b l"],
        segments: Int[Array, "b l"],
        last: Int[Array, " b"] | None = None,
    ) -> Array:
        """States [b, l, d], or of the positions at `last` alone, [b, d]."""
        width, init = self.stack.width, nn.initializers.normal(0.02)
        table = self.param("codes", init, (self.slots, self.codes, width))
        places = self.param("positions", init, (self.max_length, width))
        self.param("heads", nn.initializers.zeros, (self.slots, width, width))
        x = jnp.mean(table[jnp.arange(self.slots), codes], axis=-2) * width**0.5
        x = Dropout(self.stack.dropout)(x + jnp.take(places, positions, axis=0, mode="clip"))
        context = SeqContext(segments, positions)
        return Encoder(self.stack, name="encoder")(x.astype(self.stack.dtype), context, last)


@dataclass(frozen=True)
class RPGModel(Model):
    """`RPG` built for a catalog."""

    config: RPG
    module: CodeEncoder
    stats: ItemStats

    @property
    def learned_positions(self) -> bool:
        return True

    def row_bytes(self, batch: Batch) -> int:
        return batch.items.shape[1] * self.module.stack.width * jnp.dtype(self.module.stack.dtype).itemsize

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        return self.module.init(key, codes_of(items, batch.items), batch.positions, batch.segments)["params"]

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        rngs = None if key is None else {"dropout": key}
        sources = codes_of(items, batch.items), batch.positions, batch.segments
        states: Any = self.module.apply({"params": params}, *sources, rngs=rngs)
        wanted = jnp.moveaxis(codes_of(items, batch.targets), -1, 0)

        @jax.checkpoint
        def nats(slot: tuple[Array, ...]) -> Array:
            head, table, size, wanted = slot
            found = jax.nn.log_softmax(self._logits(states, head, table), where=jnp.arange(len(table)) < size, axis=-1)
            found = -jnp.take_along_axis(found, wanted[..., None], axis=-1)[..., 0]
            return jnp.sum(jnp.where(batch.weights > 0, batch.weights * found, 0.0))

        sizes = jnp.array(self.stats.code_sizes)
        total = jnp.mean(jax.lax.map(nats, (params["heads"], params["codes"], sizes, wanted)))
        weight = jnp.sum(batch.weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def _logits(
        self, states: Float[Array, "*b d"], head: Float[Array, "d d"], table: Float[Array, "k d"]
    ) -> Float[Array, "*b k"]:
        states = states.astype(jnp.float32)
        own = states + jax.nn.silu(states @ head)
        return unit(own) @ unit(table).T / self.config.temperature

    def scoring(self, params: Params, queries: Queries, items: Items) -> CodeSum:
        sources = codes_of(items, queries.items), queries.positions, queries.segments
        states: Any = self.module.apply({"params": params}, *sources, queries.last)
        slots = zip(params["heads"], params["codes"], self.stats.code_sizes, strict=True)
        logits = [self._logits(states, head, table[:size]) for head, table, size in slots]
        return CodeSum(logits, items[CODES], items.size, start=items.start)
