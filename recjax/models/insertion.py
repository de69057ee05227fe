"""Insertion language model: what is missing in a history, and where.

Patel et al., Insertion Language Models: Sequence Generation with Arbitrary-Position Insertions, 2025.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.insertion import Gaps
from recjax.decode.scoring import DotProduct
from recjax.limits import at_least, refuse, require
from recjax.mixers.attention import Attention
from recjax.mixers.stack import Stack
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.parts.dot_product import DotProductModel, ItemSequenceEncoder
from recjax.models.parts.encoder_config import EncoderConfig
from recjax.models.parts.objectives import FullSoftmax
from recjax.nn.dense import Dense
from recjax.nn.norm import LayerNorm
from recjax.ops.items.embedding import lookup, take_position
from recjax.ops.items.log_normalisers import log_normalisers
from recjax.ops.items.softmax import EXCLUDED
from recjax.typing import Array, Bool, Float, Int, Params


@dataclass(frozen=True)
class Insertion(EncoderConfig):
    """A bidirectional encoder of what was kept of a history, trained to insert what was dropped, one event at a time.

    The state of a gap is made of those of the tokens on its sides, and one softmax over all pairs of a gap and an item
    learns the share of the dropped events that the gap has with that value. The class token says whether nothing is
    missing. The next item is what goes into the last gap. The view is `Insertions`.

    Attributes, beside those of `EncoderConfig`:
        inner: width inside the feed-forward network.
        stop: factor of the cross-entropy of whether nothing is missing.
        sides: "both", or "left" for a causal encoder whose gaps know the events before them alone: the control, a
            next-item model of the same size and training. Nothing tells its class token what there is.
        ordered: whether events have an order. Without, as in baskets, there are no positions and one gap.
    """

    heads: int = 2
    inner: int = 128
    stop: float = 1.0
    sides: Literal["both", "left"] = "both"
    ordered: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, stop=at_least(0))
        if not isinstance(self.loss, FullSoftmax):
            refuse(self, "loss", "FullSoftmax, for the softmax over gaps and items has no other")
        if self.sides == "left" and not self.ordered:
            refuse(self, "sides", '"both" where events have no order')

    @property
    def longest(self) -> int | None:
        return self.max_length if self.ordered else None

    def stack(self) -> Stack:
        mixers = (Attention(heads=self.heads, dropout=self.dropout),)
        return self.blocks(mixers, self.inner, causal=self.sides == "left", activation="gelu")

    def build(self, stats: ItemStats) -> "InsertionModel":
        module = ItemSequenceEncoder(stats.items + 2, self.longest or 0, self.stack(), bias=True)
        return InsertionModel(module, self.loss, stats, self)


class GapHead(nn.Module):
    """States of the tokens on both sides of a gap to that of the gap, and a logit that all its items have in common."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, left: Float[Array, "... d"], right: Float[Array, "... d"]) -> tuple[Array, Array]:
        x = Dense(self.width, dtype=self.dtype, name="sides")(jnp.concatenate([left, right], axis=-1))
        x = LayerNorm(dtype=self.dtype, name="norm")(left + jax.nn.gelu(x))
        return x, Dense(1, name="level")(x)[..., 0].astype(jnp.float32)


@dataclass(frozen=True)
class InsertionModel(DotProductModel):
    """The built model; `gap` joins the sides of a gap, `stop` reads the class token."""

    config: Insertion
    inserts: ClassVar[bool] = True

    @property
    def row_tables(self) -> tuple[str, ...]:
        return ()

    @property
    def item_rows(self) -> tuple[str, ...]:
        return ("items", "bias")

    def row_bytes(self, batch: Batch) -> int | None:
        return self._row_bytes(batch.items)

    @property
    def head(self) -> GapHead:
        return GapHead(self.config.width, self.config.dtype)

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        state = jnp.zeros((1, self.config.width))
        gap: Any = self.head.init(jax.random.fold_in(key, 1), state, state)
        stop = {"kernel": jnp.zeros(self.config.width), "bias": jnp.zeros(())}
        return super().init(key, batch, items) | {"gap": gap["params"], "stop": stop}

    def between(self, params: Params, left: Array, right: Array) -> tuple[Array, Array]:
        """States and levels of gaps; a last gap, and that of a set, has the class token on its right."""
        right = right if self.config.sides == "both" else jnp.zeros_like(left)
        found: Any = self.head.apply({"params": params["gap"]}, left, right)
        return found

    def stops(self, params: Params, token: Float[Array, "... d"]) -> Float[Array, "..."]:
        """Logits of whether nothing is missing, from states of class tokens."""
        return token.astype(jnp.float32) @ params["stop"]["kernel"] + params["stop"]["bias"]

    def gaps(
        self, params: Params, items: Int[Array, "b l"], segments: Int[Array, "b l"], key: Array | None = None
    ) -> tuple[tuple[Array, Array], Float[Array, "b l d"], Bool[Array, "b l"], Int[Array, "b l"]]:
        """States [b, l, d] and levels [b, l] of the gaps behind all tokens; states of the tokens; where there is a gap;
        and places of class tokens.

        Places without an item are nothing to the encoder, whatever their segment.
        """
        place, there = jnp.arange(items.shape[1]), items > 0
        begins = jnp.pad(segments[:, 1:] != segments[:, :-1], [(0, 0), (1, 0)], constant_values=True)
        first = jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
        shown = jnp.where(there, segments, 0)
        hidden = self.encode(params, items, place - first, shown, key=key)
        after = jnp.pad((shown[:, 1:] == shown[:, :-1]) & there[:, 1:], [(0, 0), (0, 1)])
        right = take_position(hidden, jnp.where(after & self.config.ordered, place + 1, first))
        open_ = there if self.config.ordered else there & (place == first)
        return self.between(params, hidden, right), hidden, open_, first

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        (states, levels), hidden, open_, first = self.gaps(params, batch.items, batch.segments, key)
        begins = (first == jnp.arange(first.shape[1])) & (batch.segments > 0)
        share = jnp.where((batch.items == 0) & (batch.targets > 0), batch.weights, 0.0)
        gap = first + (batch.positions if self.config.ordered else 0)
        own = jnp.sum(take_position(states, gap) * lookup(params["items"], batch.targets), axis=-1, dtype=jnp.float32)
        own += lookup(params["bias"][:, None], batch.targets)[..., 0] + take_position(levels[..., None], gap)[..., 0]
        each = self.normalisers(params, states) + levels
        total = jnp.sum(share * (joined(each, open_, batch.segments) - own))
        judged = jnp.where(begins, batch.weights, 0.0)
        whole = (batch.targets > self.n_items).astype(jnp.float32)
        wrong = jnp.sum(judged * optax.sigmoid_binary_cross_entropy(self.stops(params, hidden), whole))
        samples = jnp.sum(judged)
        sums = {"insertion": (total, jnp.sum(share)), "stop": (wrong, samples)}
        loss = total + self.config.stop * wrong
        return loss / jnp.maximum(samples, 1.0), {"loss": (loss, samples), **sums}

    def normalisers(self, params: Params, states: Float[Array, "b l d"]) -> Float[Array, "b l"]:
        """logsumexp over the items of each gap."""
        size = self.config.loss.chunk_elements  # pyright: ignore[reportAttributeAccessIssue]
        return log_normalisers(states, params["items"], params["bias"], items=self.n_items, chunk_elements=size)

    def insertions(self, params: Params, queries: Queries, items: Items, places: Int[Array, "q n"]) -> Gaps:
        (states, levels), hidden, open_, _ = self.gaps(params, queries.items, queries.segments)
        states = states.astype(jnp.float32)
        shares = jax.nn.log_softmax(jnp.where(open_, self.normalisers(params, states) + levels, EXCLUDED))
        asked = take_position(states, places if self.config.ordered else jnp.zeros_like(places))
        scoring = self.state_scoring(params, asked.reshape(places.size, -1), items)
        return Gaps(scoring, levels, jnp.where(open_, shares, -jnp.inf), self.stops(params, hidden[:, 0]))

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        ends = jnp.stack([queries.last * self.config.ordered, jnp.zeros_like(queries.last)], axis=1)
        hidden = self.encode(params, queries.items, queries.positions, queries.segments, last=ends)
        states, _ = self.between(params, hidden[:, 0], hidden[:, 1])
        return self.state_scoring(params, states.astype(jnp.float32), items)


def joined(values: Float[Array, "b l"], open_: Bool[Array, "b l"], segments: Int[Array, "b l"]) -> Float[Array, "b l"]:
    """logsumexp of the open values of each position's segment."""
    values, count = jnp.where(open_, values, EXCLUDED), values.shape[1] + 1

    def row(values: Array, segments: Array) -> Array:
        top = jax.lax.stop_gradient(jax.ops.segment_max(values, segments, count))[segments]
        return top + jnp.log(jax.ops.segment_sum(jnp.exp(values - top), segments, count))[segments]

    return jax.vmap(row)(values, segments)
