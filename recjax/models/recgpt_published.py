"""RecGPT as published (Jiang et al., EMNLP 2025), weight for weight: a small GPT-2 over four code tokens an item.

The parameter tree follows the published state dict; `recjax.models.parts.published_checkpoint` fills it from one.
Tokens are numbered as published: a code is its own token, and the last of the vocabulary is padding, which the head
predicts like any other although it never is a target.

What differs is around the network. Histories are packed, and positions count from the first item of a history, so they
need a view with `align="left"`, as the published training has it (its inference does not: a user's scores there depend
on the longest history of the batch). Items are ranked exactly, by the sum of the logits of their codes; the published
beam search approximates that, and of several items with the same codes it can return one only.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, VECTORS, Items
from recjax.decode.scoring import CodeSum
from recjax.limits import COUNT, LAYERS, RATE, SIZE, at_least, divides, require
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.nn.dense import Dense
from recjax.nn.dropout import Dropout
from recjax.nn.norm import LayerNorm
from recjax.ops.attention.dense import attend_keys, attention
from recjax.ops.items.embedding import lookup, table_rows, take_position
from recjax.ops.items.softmax import full_softmax
from recjax.typing import Array, Dtype, Float, InputError, Int, Params

EPSILON = 1e-5
"""Added to the variance in every layer normalisation of the published model."""


@dataclass(frozen=True)
class RecGPTPublished(ModelConfig):
    """The published network; the defaults are the published sizes (45.8 M parameters that are used).

    Attributes:
        width: model width.
        layers: GPT-2 blocks.
        heads: attention heads.
        vocabulary: codes and, as the last token, padding.
        slots: tokens of an item.
        aux_width: coordinates of each slot's part of the text vector; `slots * aux_width` is the width of a vector.
        max_items: items of a history; the position table has `max_items * slots` rows.
        dropout: rate on embeddings, attention weights and the outputs of attention and feed-forward network.
        dtype: compute type; parameters, normalisations, softmax and loss are float32.
    """

    width: int = 768
    layers: int = 3
    heads: int = 12
    vocabulary: int = 15_361
    slots: int = 4
    aux_width: int = 192
    max_items: int = 256
    dropout: float = 0.1
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        require(
            self,
            width=SIZE,
            layers=LAYERS,
            heads=COUNT,
            vocabulary=at_least(2),
            slots=SIZE,
            aux_width=SIZE,
            max_items=SIZE,
            dropout=RATE,
        )
        divides(self, "heads", self.width, "the width")

    @property
    def longest(self) -> int:
        """Items that there are positions for."""
        return self.max_items

    def build(self, stats: ItemStats) -> "RecGPTPublishedModel":
        """The model for a catalog whose items have vectors and codes."""
        if VECTORS in stats.columns:
            self._check(stats)
        return RecGPTPublishedModel(self, RecGPTPublishedModule(self), stats)

    def _check(self, stats: ItemStats) -> None:
        (vectors,), (codes,), sizes = stats.columns[VECTORS], stats.columns[CODES], stats.code_sizes
        if vectors != self.slots * self.aux_width:
            raise InputError(
                f"item vectors have {vectors} coordinates, expected {self.slots} x {self.aux_width} "
                "(model.slots x model.aux_width)"
            )
        if codes != self.slots:
            raise InputError(f"items have {codes} codes each, but model.slots is {self.slots}")
        if sizes and max(sizes) > self.vocabulary - 1:
            raise InputError(
                f"a slot has {max(sizes)} codes, but model.vocabulary has {self.vocabulary - 1} and padding"
            )


class _Block(nn.Module):
    """A GPT-2 block: x + attention(LN(x)), then x + feed-forward(LN(x)).

    With `last` int32 [b], an item of each row, only its tokens come out, [b, slots, d].
    """

    config: RecGPTPublished

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], segments: Int[Array, "b l"], last: Int[Array, " b"] | None = None
    ) -> Array:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        rows, width = x.shape[0], config.width
        dense = lambda size, name: Dense(  # noqa: E731
            size, dtype=dtype, kernel_init=nn.initializers.normal(0.02), name=name
        )
        dropout = Dropout(config.dropout)

        fused = dense(3 * width, "c_attn")(LayerNorm(EPSILON, dtype, name="ln_1")(x))
        q, k, v = (
            part.reshape(rows, -1, config.heads, width // config.heads).swapaxes(1, 2)
            for part in jnp.split(fused, 3, axis=-1)
        )
        if last is None:
            random = self.make_rng("dropout") if config.dropout and self.has_rng("dropout") else None
            mixed = attention(q, k, v, segments, slots=config.slots, dropout=config.dropout, key=random)
        else:
            items = jnp.arange(x.shape[1]) // config.slots
            same = segments == take_position(segments, last * config.slots)[:, None]
            allowed = same & (items[None] <= last[:, None])
            q = item_tokens(q.swapaxes(1, 2), last, config.slots).swapaxes(1, 2)
            mixed = attend_keys(q, (k,), (v,), allowed[:, None])
            x = item_tokens(x, last, config.slots)
        mixed = mixed.swapaxes(1, 2).reshape(rows, -1, width)
        x = x + dropout(dense(width, "c_proj")(mixed))
        inner = jax.nn.gelu(dense(4 * width, "c_fc")(LayerNorm(EPSILON, dtype, name="ln_2")(x)), approximate=True)
        return x + dropout(dense(width, "mlp_c_proj")(inner))


class RecGPTPublishedModule(nn.Module):
    """Codes and vectors of items to the hidden states of their tokens; the head is a parameter only.

    Attributes:
        config: the recipe.
    """

    config: RecGPTPublished

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "b l slots"],
        vectors: Float[Array, "b l v"],
        real: Float[Array, "b l"],
        segments: Int[Array, "b l"],
        positions: Int[Array, "b l"],
        last: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b t d"]:
        """States of all tokens, or with `last` of those of one item a row.

        Args:
            tokens: of each item.
            vectors: of each item.
            real: 1 for items, 0 for padding.
            segments: of each item.
            positions: of each item inside its history, from 0.
            last: an item of each row.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        init = nn.initializers.normal(0.02)
        table = self.param("wte", init, (config.vocabulary, config.width))
        places = self.param("wpe", init, (config.max_items * config.slots, config.width))
        self.param("pred_head", init, (config.vocabulary, config.width))

        flat = lambda array: array.reshape(array.shape[0], -1)  # noqa: E731
        spread = lambda array: jnp.repeat(array, config.slots, axis=1)  # noqa: E731
        x = LayerNorm(EPSILON, name="norm_seq")(jnp.take(table, flat(tokens), axis=0, mode="clip"))
        parts = vectors.reshape(vectors.shape[0], -1, config.aux_width)
        aux = Dense(config.width, use_bias=False, dtype=dtype, kernel_init=init, name="linear_layer")(parts)
        x = x + LayerNorm(EPSILON, name="norm_aux")(aux) * spread(real)[..., None]
        index = flat(positions[..., None] * config.slots + jnp.arange(config.slots))
        x = Dropout(config.dropout)((x + jnp.take(places, index, axis=0, mode="clip")).astype(dtype))
        for layer in range(config.layers):
            final = layer == config.layers - 1
            x = _Block(config, name=f"h_{layer}")(x, spread(segments), last if final else None)
        return LayerNorm(EPSILON, dtype, name="ln_f")(x)


@dataclass(frozen=True)
class RecGPTPublishedModel(Model):
    """`RecGPTPublished` built for a catalog. The loss is the mean over tokens, in nats."""

    config: RecGPTPublished
    module: RecGPTPublishedModule
    stats: ItemStats

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        return self.module.init(key, *self._inputs(batch, items), batch.segments, batch.positions)["params"]

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        """Each slot of an item predicts that slot of the next one, over the whole vocabulary."""
        slots, vocabulary = self.config.slots, self.config.vocabulary
        rngs = None if key is None else {"dropout": key}
        hidden: Any = self.module.apply(
            {"params": params}, *self._inputs(batch, items), batch.segments, batch.positions, rngs=rngs
        )
        # The loss takes row 0 for padding, so token t is row t + 1; and rows that any model axis divides.
        head = jnp.pad(params["pred_head"], [(1, table_rows(vocabulary + 1) - vocabulary - 1), (0, 0)])
        targets, weights = self._tokens(items, batch.targets) + 1, jnp.repeat(batch.weights, slots, axis=1)
        total = full_softmax(hidden, head, None, targets, weights, items=vocabulary)
        weight = jnp.sum(weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def logits(self, params: Params, queries: Queries, items: Items) -> Float[Array, "q slots tokens"]:
        """Logits of the next item's tokens, slot by slot, float32."""
        hidden: Any = self.module.apply(
            {"params": params}, *self._inputs(queries, items), queries.segments, queries.positions, queries.last
        )
        return jnp.einsum("qsd,nd->qsn", hidden, params["pred_head"], preferred_element_type=jnp.float32)

    def scoring(self, params: Params, queries: Queries, items: Items) -> CodeSum:
        return CodeSum(self.logits(params, queries, items), items[CODES], items.size, start=items.start)

    def _inputs(self, batch: Batch | Queries, items: Items) -> tuple[Array, Array, Array]:
        vectors = lookup(items[VECTORS], items.rows(batch.items))
        return self._tokens(items, batch.items), vectors, (batch.items > 0).astype(jnp.float32)

    def _tokens(self, items: Items, ids: Int[Array, "b l"]) -> Int[Array, "b l slots"]:
        """Published tokens: codes as they are, and the last token of the vocabulary for padding."""
        codes = jnp.take(items[CODES], items.rows(ids), axis=0, mode="clip")
        return jnp.where(ids[..., None] > 0, codes, self.config.vocabulary - 1)


def item_tokens(x: Float[Array, "b l ..."], item: Int[Array, " b"], slots: int) -> Float[Array, "b slots ..."]:
    """The tokens of one item of each row."""
    index = item[:, None] * slots + jnp.arange(slots)
    return jnp.take_along_axis(x, index.reshape(*index.shape, *(1,) * (x.ndim - 2)), axis=1)
