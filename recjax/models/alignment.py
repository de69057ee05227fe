"""A sentence encoder that has learned from users: items of one history near each other, others apart.

Sentence encoders are trained to put like meanings together; what people have one after another is alike in other ways
too (a brand, a use, a taste). The last blocks of a pretrained encoder go on learning, from pairs of items that the same
users had within a few events, with the other pairs of a batch as negatives (InfoNCE, van den Oord et al. 2018, as
sentence encoders themselves are trained: Reimers & Gurevych, EMNLP 2019; for histories: Hou et al., BLaIR, 2024). The
result is an encoder like any other: what it has learned carries over to catalogs that it has not seen.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from recjax.data.batches.pairs import PairBatch
from recjax.data.items import Items
from recjax.limits import COUNT, LAYERS, above, at_least, require
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.ops.items.softmax import EXCLUDED
from recjax.text import folder
from recjax.text.encoder import pooled
from recjax.text.folder import EncoderFolder
from recjax.text.hub import find_folder
from recjax.text.items import ItemText
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float, Params


@dataclass(frozen=True)
class Alignment(ModelConfig):
    """The last blocks of a sentence encoder, trained; `recjax align` trains it.

    Attributes:
        encoder: its folder, see `recjax.text.hub.find_folder`.
        template: text of an item, see `recjax.text.items.ItemText`.
        max_tokens: texts are cut here while training.
        layers: blocks that learn, from the last; the others and the word table stay as they are.
        temperature: of the similarities in the loss.
        window: events between the items of a pair, at most.
    """

    encoder: str
    template: str = "{title}"
    max_tokens: int = 24
    layers: int = 3
    temperature: float = 0.05
    window: int = 3
    ranks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self, max_tokens=at_least(3), layers=LAYERS, temperature=above(0), window=COUNT)
        ItemText(self.template)

    def read(self) -> EncoderFolder:
        """The encoder to begin with, texts cut at `max_tokens`."""
        return folder.read_folder(find_folder(self.encoder), max_tokens=self.max_tokens)

    def build(self, stats: ItemStats) -> "AlignmentModel":
        """The model that begins with the encoder in the folder."""
        return AlignmentModel(self, self.read(), stats)


@dataclass(frozen=True, eq=False)
class AlignmentModel(Model):
    """`Alignment` as a model that the training loop trains.

    Attributes:
        config: the recipe.
        encoder: that was read.
        stats: of the catalog.
    """

    config: Alignment
    encoder: EncoderFolder
    stats: ItemStats

    def init(self, key: Array, batch: PairBatch, items: Items) -> Params:
        """Random parameters of the encoder's shapes; training begins with the encoder's own."""
        del items
        tokens = batch.tokens[:, 0]
        return self.encoder.module.init(key, TokenRows(tokens, tokens))["params"]

    def loss(self, params: Params, batch: PairBatch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        """Cross-entropy of each item's partner among the items of the batch, in both directions; no dropout."""
        del items, key
        vectors = self._vectors(params, batch)
        ones, others = vectors[:, 0], vectors[:, 1]
        similar = ones @ others.T / self.config.temperature
        first, second = batch.items[:, 0], batch.items[:, 1]
        readable = batch.lengths.min(axis=1) > 0
        weights = (readable & (first != second)).astype(jnp.float32)
        losses = _cross_entropy(similar, first, second, readable) + _cross_entropy(similar.T, second, first, readable)
        total, weight = jnp.sum(weights * losses) / 2, jnp.sum(weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def _vectors(self, params: Params, batch: PairBatch) -> Float[Array, "b 2 d"]:
        """Vectors of length 1. No gradient reaches the blocks that do not learn, so nothing is kept for it either."""
        learns = self.learning(params)
        params = {name: tree if name in learns else jax.lax.stop_gradient(tree) for name, tree in params.items()}
        rows, pair, length = batch.tokens.shape
        tokens, lengths = batch.tokens.reshape(rows * pair, length), batch.lengths.reshape(rows * pair)
        segments = (jnp.arange(length) < lengths[:, None]).astype(jnp.int32)
        hidden: Any = self.encoder.module.apply({"params": params}, TokenRows(tokens, segments))
        vectors = pooled(hidden, lengths, self.encoder.pooling, normalise=True)
        return vectors.reshape(rows, pair, -1)

    def learning(self, params: Params) -> set[str]:
        """Names, at the top of the parameters, of what learns: everything where all blocks do."""
        total = self.encoder.module.sizes.layers
        if self.config.layers >= total:
            return set(params)
        return {f"layer_{number}" for number in range(total - self.config.layers, total)}


def _cross_entropy(similar: Array, anchors: Array, partners: Array, readable: Array) -> Float[Array, " b"]:
    """Of the diagonal in each row. A partner that is the anchor or its partner in another pair is no negative."""
    masked = (partners == partners[:, None]) | (partners == anchors[:, None]) | ~readable
    masked &= ~jnp.eye(len(similar), dtype=bool)
    return -jnp.diagonal(jax.nn.log_softmax(jnp.where(masked, EXCLUDED, similar), axis=-1))
