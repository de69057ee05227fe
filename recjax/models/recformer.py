"""Recformer: items are sentences of their attributes, a history is a text of them, and no parameter is an item's.

Li et al., Text Is All You Need: Learning Language Representations for Sequential Recommendation, KDD 2023.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items, by_rows
from recjax.decode.scoring import DotProduct
from recjax.limits import COUNT, LAYERS, RATE, SIZE, above, at_least, divides, require, within
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, Sweep, WeightedSums
from recjax.models.parts.dot_product import last_token
from recjax.models.parts.sentence_encoder import RULES, SentenceReader, drawn_words, read_items
from recjax.nn.groups import FROZEN
from recjax.ops.activation import unit
from recjax.ops.contrast import info_nce
from recjax.ops.items.embedding import lookup, take_position
from recjax.ops.items.softmax import full_softmax
from recjax.text.lm.config import DecoderConfig
from recjax.typing import Array, Float, InputError, Int, Params

TABLE = "table"
"""Vectors of all items: under `FROZEN` as they were last read, and in `Items.prepared`."""


@dataclass(frozen=True)
class Recformer(ModelConfig):
    """An encoder reads a history, its newest item first, and, alone, each item; scores are cosines of their vectors.

    An item is keys and words (`recjax.data.features.sentences.Sentence`). A text begins with one more token, which all
    see and which sees all; other tokens see `window` on each side. To a token's vector are added one of what it is
    (beginning, key, word) and one of the item's place, counted back from the newest. Three phases, each from the one
    before (`train.stages`):

    * "pretrain": InfoNCE of a history and the item that follows it, those of the other histories of the batch being
      negatives, and `masked` times the cross-entropy of masked words; there is no table, so it serves any catalogs;
    * "table": cross-entropy over all items of cosine / temperature with a table that is read anew before each epoch;
    * "fixed": the same, with the table of the phase before, as it is.

    Not the paper's: a small encoder of Llama-like blocks with rotary places, from scratch, where the paper has a
    Longformer with learned ones. The view is `Prefixes(Shifted(targets=1))`, data.pack=false.

    Attributes:
        phase: see above.
        column: of the items' sentences.
        width: of the encoder.
        layers: of the encoder.
        heads: of the encoder.
        inner: width inside its feed-forward networks.
        window: tokens on each side.
        tokens: most tokens of a history, the first one among them: older items are cut off.
        temperature: of cosines.
        masked: factor of the cross-entropy of masked words.
        share: of the words that are masked.
        dropout: rate on the encoder's inputs.
    """

    ranks_unseen: ClassVar[bool] = True

    phase: Literal["pretrain", "table", "fixed"] = "table"
    column: str = "sentence"
    width: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 172
    window: int = 16
    tokens: int = 128
    temperature: float = 0.05
    masked: float = 0.1
    share: float = 0.15
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=LAYERS, heads=SIZE, inner=SIZE, window=COUNT, tokens=within(2, 8192))
        require(self, temperature=above(0), masked=at_least(0), share=within(0, 1), dropout=RATE)
        divides(self, "heads", self.width, "model width")

    def build(self, stats: ItemStats) -> "RecformerModel":
        if self.column not in stats.sizes or len(stats.columns.get(self.column, ())) != 1:
            known = ", ".join(stats.columns) or "none"
            raise InputError(
                f"Recformer reads the sentence {self.column!r} of each item, but the columns are: {known}; the recipe "
                f"needs items={{{self.column!r}: Sentence()}}"
            )
        sizes: dict[str, Any] = dict(layers=self.layers, heads=self.heads, kv_heads=self.heads, inner=self.inner)
        blocks = DecoderConfig(0, self.width, channels=self.width // self.heads, **sizes)
        vocabulary, given = stats.sizes[self.column][0], (self.window, self.tokens, self.dropout)
        return RecformerModel(self, SentenceReader(vocabulary, blocks, *given), stats)


@dataclass(frozen=True)
class RecformerModel(Model):
    """`Recformer` built for a catalog."""

    config: Recformer
    module: SentenceReader
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    @property
    def notes(self) -> dict[str, Any]:
        return {"backbone": f"{self.config.layers} layers of {self.config.width}, trained on item texts alone"}

    @property
    def per_item(self) -> tuple[str, ...]:
        return () if self.config.phase == "pretrain" else (FROZEN,)

    @property
    def refresh_every(self) -> Literal["epoch"] | None:
        return "epoch" if self.config.phase == "table" else None

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        sentences = items[self.config.column]
        params = self.module.init(key, jnp.ones((len(batch.items), 1, sentences.shape[1]), jnp.int32))["params"]
        if self.config.phase == "pretrain":
            return params
        return {**params, FROZEN: {TABLE: jnp.zeros((len(sentences), self.config.width))}}

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        """All items by the encoder as it is now."""
        return {**params, FROZEN: {TABLE: sweep.compiled(self.read)(params, items)}}

    def read(self, params: Params, items: Items) -> Float[Array, "rows d"]:
        """Vectors of all items, of length 1."""
        return by_rows(read_items(self.module, _own(params), items[self.config.column]))

    def users(
        self, params: Params, source: Batch | Queries, items: Items, key: Array | None = None
    ) -> Float[Array, "b d"]:
        """Vectors of histories, of length 1, with dropout where there is a key."""
        return self._vectors(params, self.sentences(source, items), key)

    def sentences(self, source: Batch | Queries, items: Items) -> Int[Array, "b l t"]:
        """Sentences of the events of each history, the newest first; zeros behind."""
        length = source.items.shape[1]
        back = last_token(source.segments)[:, None] - jnp.arange(length)
        newest = jnp.take_along_axis(source.items, jnp.maximum(back, 0), axis=1)
        rows = items.rows(jnp.where(back >= 0, newest, 0))
        return self._looked_up(items, rows)

    def _looked_up(self, items: Items, rows: Int[Array, "b l"]) -> Int[Array, "b l t"]:
        return lookup(items[self.config.column], rows).astype(jnp.int32)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        last, config = last_token(batch.segments), self.config
        targets, weights = take_position(batch.targets, last), take_position(batch.weights, last)
        weight = jnp.sum(weights)
        if config.phase == "pretrain":
            return self._pretraining(params, batch, targets, weights, items, key)
        users, table = self.users(params, batch, items, key), jax.lax.stop_gradient(params[FROZEN][TABLE])
        total = full_softmax(users / config.temperature, table, None, targets, weights, items=self.n_items)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def _pretraining(
        self, params: Params, batch: Batch, targets: Array, weights: Array, items: Items, key: Array | None
    ) -> tuple[Array, WeightedSums]:
        config, weight = self.config, jnp.sum(weights)
        histories = self.sentences(batch, items)
        followers = self._looked_up(items, items.rows(targets)[:, None])
        one, two, three, four = jax.random.split(jax.random.key(0) if key is None else key, 4)
        drops = (None, None) if key is None else (one, two)
        users, found = (self._vectors(params, *each) for each in zip((histories, followers), drops, strict=True))
        each = info_nce(users, found, temperature=config.temperature, weights=weights, groups=targets)
        total = jnp.sum(weights * each)
        sums, loss = {"contrast": (total, weight)}, total / jnp.maximum(weight, 1.0)
        if config.masked:
            parts = [
                self._run(params, sentences, drawn_words(sentences, config.share, drawn), drop, method="masked")
                for sentences, drawn, drop in zip((histories, followers), (three, four), drops, strict=True)
            ]
            sums["masked"] = jax.tree.map(jnp.add, *parts)
            loss += config.masked * sums["masked"][0] / jnp.maximum(sums["masked"][1], 1.0)
        return loss, {"loss": (loss * weight, weight), **sums}

    def _vectors(self, params: Params, sentences: Int[Array, "b l t"], key: Array | None) -> Float[Array, "b d"]:
        return unit(self._run(params, sentences, None, key)[:, 0])

    def _run(self, params: Params, *given: Any, **options: Any) -> Any:
        return self.module.apply({"params": _own(params)}, *given, **options)

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        return {TABLE: params[FROZEN][TABLE] if FROZEN in params else self.read(params, items)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        table = (items.prepared or self.prepare(params, items))[TABLE]
        return DotProduct(self.users(params, queries, items), table, items.size, start=items.start)

    def sharding_rules(self) -> Rules:
        return [(rf"^{FROZEN}/{TABLE}$", ("model", None)), *RULES]


def _own(params: Params) -> Params:
    """Parameters of the encoder."""
    return {name: tree for name, tree in params.items() if name != FROZEN}
