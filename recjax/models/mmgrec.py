"""MMGRec: codes made of a graph of users and items, generated from a history without an order.

Liu et al., MMGRec: Multimodal Generative Recommendation with Transformer Model, 2024.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.limits import SIZE, require
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.parts.flat_codes import codes_of
from recjax.models.tiger import TIGER, History, TIGERModel
from recjax.nn.dense import Dense
from recjax.text.lm.t5 import MASKED, T5, Block
from recjax.typing import Array, Bool, Float, InputError, Int


@dataclass(frozen=True)
class MMGRec(TIGER):
    """`TIGER` whose encoder reads the items of a history as a set, one vector each, by relation-aware attention: with
    u the user, beside what each head has for itself there is a part that all heads share,

        scores  Q K' + (s_q(u) U_q x) (s_k(u) U_k x)'
        values  V + s_v(u) U_v x

    where s_q, s_k and s_v are networks of two layers that give a number each. Positions are not read. A sample has some
    items of a user to be read and others to be generated, each by itself: the view is a `Cloze`.

    The codes are those of `RQVAE` of `GraphVectors`, with `Codes(popular=True)`. Not the paper's: a user is the mean of
    the vectors of the items that are read, not one of the graph's users, so that a history of anyone can be ranked for;
    and products have no scale, as in all of `T5`, which starts its weights that much smaller.

    Attributes:
        vectors: column that the encoder reads, such as `recjax.data.features.graph.GraphVectors`.
        user_term: False for plain attention, the control.
        targets: most targets of a sample that are generated, the first ones.
    """

    orders: ClassVar[bool] = False

    vectors: str = "graph"
    user_term: bool = True
    targets: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, targets=SIZE)

    def build(self, stats: ItemStats) -> "MMGRecModel":
        tokens = self.tokens(stats)
        if len(stats.columns.get(self.vectors, ())) != 1:
            known = ", ".join(stats.columns) or "none"
            raise InputError(
                f"MMGRec reads {self.vectors!r} of each item, but the columns are: {known}; the recipe needs "
                "items={'graph': GraphVectors(), 'codes': Codes(..., of='graph')}"
            )
        return MMGRecModel(self, UnorderedT5(self.network(tokens), self.user_term), tokens, stats)


class RelatedBlock(Block):
    """Block of the encoder whose attention knows the user.

    Attributes:
        user_term: whether it does.
    """

    user_term: bool = True

    def setup(self) -> None:
        super().setup()
        if not self.user_term:
            return
        width, channels, dtype = self.config.width, self.config.channels, jnp.dtype(self.config.dtype)
        deviations = ((width * channels) ** -0.5, width**-0.5, width**-0.5)
        inits = [nn.initializers.normal(deviation) for deviation in deviations]
        self.shared = [Dense(channels, use_bias=False, dtype=dtype, kernel_init=init) for init in inits]
        self.inner = [Dense(width) for _ in range(3)]
        self.outer = [Dense(1) for _ in range(3)]

    def related(self, x: Float[Array, "b l d"], bias: Array, user: Float[Array, "b e"]) -> Float[Array, "b l d"]:
        """One block over whole rows; `bias` is added to scores [b, h, l, l]."""
        normed = self.own_norm(x)
        key, value = self.own.remembered(normed)
        if self.user_term:
            scales = [outer(jax.nn.relu(inner(user))) for inner, outer in zip(self.inner, self.outer, strict=True)]
            query, other, added = (
                layer(normed) * scale[:, None].astype(x.dtype) for layer, scale in zip(self.shared, scales, strict=True)
            )
            relation = jnp.einsum("blc,bmc->blm", query, other, preferred_element_type=jnp.float32)
            bias, value = bias + relation[:, None], value + added[:, :, None]
        x = x + self.dropout(self.own(normed, (key, value), bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class UnorderedT5(T5):
    """The encoder-decoder whose encoder reads a set of vectors.

    Attributes:
        user_term: see `MMGRec`.
    """

    user_term: bool = True

    def setup(self) -> None:
        super().setup()
        dtype, init = jnp.dtype(self.config.dtype), nn.initializers.normal(1.0)
        self.vector = Dense(self.config.width, use_bias=False, dtype=dtype, kernel_init=init)
        self.related = [RelatedBlock(self.config, False, self.user_term) for _ in range(self.config.layers)]

    def __call__(
        self, vectors: Float[Array, "b m e"], mask: Bool[Array, "b m"], targets: Int[Array, "b t"]
    ) -> Float[Array, "b t v"]:
        return self.logits(self.decode(self.embed(targets), self.encode(vectors, mask), mask))

    def encode(
        self, inputs: Float[Array, "b m e"], mask: Bool[Array, "b m"], positions: Array | None = None
    ) -> Float[Array, "b m d"]:
        """States of items; places say nothing."""
        held = mask[..., None]
        inputs = jnp.where(held, inputs.astype(jnp.float32), 0.0)
        user = jnp.sum(inputs, axis=1) / jnp.maximum(jnp.sum(held, axis=1), 1)
        x = self.dropout(self.vector(inputs))
        bias = jnp.where(mask, 0.0, MASKED)[:, None, None]
        for block in self.related:
            x = block.related(x, bias, user)
        return self.dropout(self.encoder_norm(x))


@dataclass(frozen=True)
class MMGRecModel(TIGERModel):
    """`MMGRec` built for a catalog."""

    config: MMGRec
    module: UnorderedT5

    def read(self, t5: Any, tokens: Any) -> Float[Array, "b m e"]:
        return tokens

    def history(self, source: Batch | Queries, items: Items) -> History:
        """Vectors of the items of each row; masks are none."""
        held = (source.items > 0) & (source.items <= self.n_items)
        return items[self.config.vectors][items.rows(jnp.where(held, source.items, 0))], held

    def loss(self, params: Any, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        first = jnp.argsort(batch.weights <= 0, axis=1, stable=True)[:, : self.config.targets]
        targets, weights = (jnp.take_along_axis(each, first, axis=1) for each in (batch.targets, batch.weights))
        (vectors, mask), codes = self.history(batch, items), codes_of(items, targets)
        seen = jnp.broadcast_to(mask[:, None], (*targets.shape, mask.shape[1]))
        each = self._run(params, lambda t5: self.likelihood_of(t5, t5.encode(vectors, mask), seen, codes), key)
        total, weight = -jnp.sum(jnp.where(weights > 0, weights * each, 0.0)), jnp.sum(weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}
