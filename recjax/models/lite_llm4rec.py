"""Lite-LLM4Rec: a language model reads items, a second one reads their vectors, and a head scores the whole catalog.

Wang et al., Rethinking Large Language Model Architectures for Sequential Recommendations, 2024.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import VECTORS, Items, by_rows
from recjax.decode.scoring import DotProduct
from recjax.limits import LAYERS, RATE, SIZE, divides, refuse, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, Sweep, WeightedSums
from recjax.models.parts.item_reader import ItemReader
from recjax.models.parts.objectives import FullSoftmax, Objective
from recjax.nn.groups import FROZEN
from recjax.ops.dropout import dropout
from recjax.ops.items.embedding import lookup, table_rows, take_position
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES, Decoder
from recjax.text.rows import TokenRows
from recjax.typing import Array, Dtype, Float, InputError, Params

TABLE = "table"
"""Vectors of all items: in `Items.prepared`, and, as they were at the last refresh, under `FROZEN`."""


@dataclass(frozen=True)
class LiteLLM4Rec(ModelConfig):
    """A Llama-like decoder over vectors of items; one product scores the catalog, where a generator needs a beam.

    Item vectors, x_i, are by `text`: a linear map of a frozen encoder's vectors (of a language model's, by the recipe's
    `text`); or the mean state of a small decoder over the item's words, trained along: its gradient is that of the
    items of the batch, all others stand in the table of the last refresh, before each epoch. `ids` adds a vector of
    the item's own. The score of item i is h . x_i, or h . w_i with a head of its own. With text alone and the tied
    head, items without an event are ranked too. The pooling is not published; a mean is ours.

    Attributes:
        text: "vectors", "words", or "none", which leaves the item's own vector alone: the control.
        ids: whether each item has a vector of its own.
        head: "tied" or "free", see above.
        column: of the items' vectors, or of their words.
        width: of the residual streams.
        layers: blocks of the decoder over items.
        item_layers: blocks of the decoder over words.
        heads: attention heads.
        inner: width inside the feed-forward networks.
        dropout: rate on the inputs of the decoder over items.
        loss: training objective.
        dtype: compute type; parameters are float32.
        remat: recompute blocks in the backward pass to save memory.
    """

    text: Literal["vectors", "words", "none"] = "vectors"
    ids: bool = False
    head: Literal["tied", "free"] = "tied"
    column: str = VECTORS
    width: int = 64
    layers: int = 2
    item_layers: int = 2
    heads: int = 2
    inner: int = 172
    dropout: float = 0.2
    loss: Objective = field(default_factory=FullSoftmax)
    dtype: Dtype = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        require(self, width=SIZE, layers=LAYERS, item_layers=LAYERS, heads=SIZE, inner=SIZE, dropout=RATE)
        divides(self, "heads", self.width, "model width")
        if self.text == "none" and not self.ids:
            refuse(self, "ids", 'true where text is "none"')

    @property
    def ranks_unseen(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.head == "tied" and not self.ids

    def decoder(self, vocabulary: int, layers: int) -> Decoder:
        """A decoder of these sizes."""
        sizes: dict[str, Any] = dict(width=self.width, heads=self.heads, kv_heads=self.heads, inner=self.inner)
        sizes |= dict(channels=self.width // self.heads, dtype=self.dtype, remat=self.remat)
        return Decoder(DecoderConfig(vocabulary, layers=layers, **sizes))

    def build(self, stats: ItemStats) -> "LiteLLM4RecModel":
        if self.text != "none" and len(stats.columns.get(self.column, ())) != 1:
            known, wanted = ", ".join(stats.columns) or "none", "`text`" if self.text == "vectors" else "items=Words()"
            raise InputError(
                f"LiteLLM4Rec reads {self.column!r} of each item; the recipe needs {wanted} (has: {known})"
            )
        reader = None
        if self.text == "words":
            if self.column not in stats.sizes:
                raise InputError(f"LiteLLM4Rec reads words, but the column {self.column!r} has none: items=Words()")
            reader = ItemReader(self.decoder(max(stats.sizes[self.column]), self.item_layers))
        return LiteLLM4RecModel(self, self.decoder(0, self.layers), reader, stats)


@dataclass(frozen=True)
class LiteLLM4RecModel(Model):
    """`LiteLLM4Rec` built for a catalog."""

    config: LiteLLM4Rec
    sequence: Decoder
    reader: ItemReader | None
    stats: ItemStats

    @property
    def notes(self) -> dict[str, Any]:
        return {"backbone": f"Llama-like, {self.config.layers} layers of {self.config.width}, from scratch"}

    @property
    def per_item(self) -> tuple[str, ...]:
        own = {"items": self.config.ids, "head": self.config.head == "free", FROZEN: self.reader is not None}
        return tuple(name for name, there in own.items() if there)

    @property
    def refresh_every(self) -> Literal["epoch"] | None:
        return None if self.reader is None else "epoch"

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        config, (one, two, three, four) = self.config, jax.random.split(key, 4)
        rows = table_rows(self.n_items + 1) if config.text == "none" else len(items[config.column])
        inputs, normal = jnp.zeros((1, 2, config.width)), jax.nn.initializers.normal(0.02)
        lone = TokenRows(*(jnp.ones((1, 2), jnp.int32),) * 2)
        params = {"sequence": self.sequence.init(one, inputs, lone, method=Decoder.states)["params"]}
        if config.text == "vectors":
            shape = (*self.stats.columns[config.column], config.width)
            params["adapt"] = {"kernel": jax.nn.initializers.lecun_normal()(two, shape)}
        if self.reader is not None:
            params |= {"item": self.reader.init(two), FROZEN: {TABLE: jnp.zeros((rows, config.width))}}
        own = {"items": (config.ids, three), "head": (config.head == "free", four)}
        return params | {name: normal(k, (rows, config.width)) for name, (there, k) in own.items() if there}

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        """The items' vectors by the reader as it is now."""
        return {**params, FROZEN: {TABLE: sweep.compiled(self.read)(params, items)}}

    def read(self, params: Params, items: Items) -> Float[Array, "rows d"]:
        """Vectors of all texts by the reader."""
        assert self.reader is not None
        return by_rows(self.reader.table(params["item"], items[self.config.column]))

    def vectors(self, params: Params, items: Items, batch: Batch | None = None) -> Float[Array, "rows d"]:
        """x_i of all items: as they are now, or, for a batch in training, with a gradient for its items alone."""
        table, config = jnp.zeros(()), self.config
        if config.text == "vectors":
            table = by_rows(items[config.column] @ params["adapt"]["kernel"])
        elif self.reader is not None:
            table = self.read(params, items) if batch is None else self._with_gradient(params, items, batch)
        return table + params["items"] if config.ids else table

    def _with_gradient(self, params: Params, items: Items, batch: Batch) -> Float[Array, "rows d"]:
        assert self.reader is not None
        rows = jnp.unique(items.rows(batch.items), size=batch.items.size, fill_value=0)
        fresh = self.reader(params["item"], items[self.config.column][rows])
        return jax.lax.stop_gradient(params[FROZEN][TABLE]).at[rows].set(fresh)

    def states(
        self, params: Params, table: Array, source: Batch | Queries, items: Items, key: Array | None = None
    ) -> Float[Array, "b l d"]:
        """States of the decoder over items, with dropout where there is a key."""
        inputs = lookup(table, items.rows(source.items)) * self.config.width**0.5
        inputs = dropout(inputs, self.config.dropout, key)
        rows = TokenRows(source.items, source.segments, source.positions)
        found: Any = self.sequence.apply({"params": params["sequence"]}, inputs, rows, method=Decoder.states)
        return found.astype(jnp.float32)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        drop, drawn = jax.random.split(jax.random.key(0) if key is None else key)
        # Without a key the loss is that of the parameters as they are, whatever items the batch happens to have.
        table = self.vectors(params, items, None if key is None else batch)
        hidden = self.states(params, table, batch, items, None if key is None else drop)
        total = self.config.loss(hidden, params.get("head", table), None, batch, drawn, self.stats)
        weight = jnp.sum(batch.weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        return {TABLE: self.vectors(params, items)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        table = (items.prepared or self.prepare(params, items))[TABLE]
        users = take_position(self.states(params, table, queries, items), queries.last)
        return DotProduct(users, params.get("head", table), items.size, start=items.start)

    def sharding_rules(self) -> Rules:
        own = [(rf"^(items|head|{FROZEN}/{TABLE})$", ("model", None)), ("^adapt/", ())]
        return [*own, *SHARDING_RULES, (".*", ())]
