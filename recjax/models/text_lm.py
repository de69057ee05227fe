"""Pre-training of a small language model on what there is: texts of items, in the order in which users had these."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.views import Batch, Queries
from recjax.data.features.feature import State
from recjax.data.features.tokens import TOKENIZER
from recjax.data.items import Items, by_rows
from recjax.decode.scoring import DotProduct
from recjax.limits import SIZE, refuse, require
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.item_reader import CHUNK, ItemReader
from recjax.models.slmrec import ADAPTED, SMALL
from recjax.nn.groups import FROZEN
from recjax.nn.lora import ADAPTERS, LoRA, beside, joined, merged
from recjax.ops.activation import unit
from recjax.ops.items.embedding import lookup, take_position
from recjax.text.folder import token_count
from recjax.text.hub import LANGUAGE_MODEL, find_folder
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES, Decoder
from recjax.text.lm.folder import read_language_model, write_language_model
from recjax.text.lm.generate import log_likelihoods
from recjax.text.rows import TokenRows, without_gaps
from recjax.typing import Array, Float, InputError, Int, Params

TABLE = "table"
"""Vectors of all texts, in `Items.prepared`."""
FOLDER = "language-model"
"""Of the trained model, inside the run's."""


@dataclass(frozen=True)
class TextLM(ModelConfig):
    """A Llama-like decoder that learns to write histories: the texts of their items, one after another.

    Cross-entropy of each token, given those before it in the history. A run that is done leaves a folder as Hugging
    Face writes it, `language-model`, for other systems to begin with: `weights`, or as a stage's,
    "stage:NAME/language-model". With `weights` it goes on from the language model of a folder, whole or by
    adapters beside frozen weights, which are added to these in the end; the column's tokenizer is that folder's.

    It ranks items by the cosines of mean states of their texts, which nothing has trained for that: neighbours of the
    last event's text.

    Attributes:
        base: sizes; with vocabulary 0, that of the column's tokenizer.
        weights: folder of a language model, see `recjax.text.hub.find_folder`; None for one from scratch.
        trained: of a model from a folder, "all" or "adapters".
        lora: the adapters.
        column: of tokens, see `recjax.data.features.tokens.Tokens`.
        room: tokens of a row at most, the first ones; None for all that its items may have. Rows are computed at this
            length, and most texts are shorter than the column has room for.
    """

    ranks_unseen: ClassVar[bool] = True
    leaves_files: ClassVar[bool] = True

    base: DecoderConfig = SMALL
    weights: str | None = None
    trained: Literal["all", "adapters"] = "all"
    lora: LoRA = ADAPTED
    column: str = "tokens"
    room: int | None = None

    def __post_init__(self) -> None:
        require(self, room=SIZE)
        if self.trained == "adapters" and self.weights is None:
            refuse(self, "trained", "'all' without `weights`: there is nothing to adapt")

    @property
    def adapters(self) -> LoRA | None:
        """Those that are trained, or None."""
        return self.lora if self.trained == "adapters" else None

    def build(self, stats: ItemStats) -> "TextLMModel":
        if self.column not in stats.sizes:
            raise InputError(f"TextLM reads tokens, but there is no column {self.column!r} of them: items=Tokens()")
        known = max(stats.sizes[self.column]) - 1
        if 0 < self.base.vocabulary < known:
            refuse(self, "base", f"sizes with vocabulary 0, or {known:,} at least: so many tokens the column has")
        config = replace(self.base, vocabulary=self.base.vocabulary or known)
        return TextLMModel(self, Decoder(config, self.adapters), stats)

    def given(self) -> Params | None:
        """The folder's model."""
        if self.weights is None:
            return None
        model = read_language_model(find_folder(self.weights, LANGUAGE_MODEL), layers=self.base.layers)
        held, ours = model.decoder.config, self.base
        # Tables may have more rows than there are tokens.
        ours = replace(ours, vocabulary=ours.vocabulary or token_count(model.tokenizer))
        if replace(held, dtype=ours.dtype, remat=ours.remat) != ours:
            raise InputError(f"the sizes of {self.weights} are {held}, but the recipe has {ours}")
        return model.params if self.adapters is None else {FROZEN: model.params}

    def write_files(self, folder: Path, params: Params, learned: Mapping[str, State]) -> None:
        whole = params if self.adapters is None else merged(joined(params), self.adapters)
        content = np.asarray(learned[self.column][TOKENIZER]).tobytes()
        write_language_model(folder / FOLDER, replace(self.base, vocabulary=len(whole["tokens"])), whole, content)


@dataclass(frozen=True)
class TextLMModel(Model):
    """`TextLM` built for a catalog."""

    config: TextLM
    decoder: Decoder
    stats: ItemStats

    @property
    def notes(self) -> dict[str, Any]:
        config = self.config
        source = "from scratch" if config.weights is None else f"from {config.weights}"
        return {"backbone": f"Llama-like, {config.base.layers} layers of {config.base.width}, {source}"}

    def row_bytes(self, batch: Batch) -> int | None:
        config, (count,) = self.config.base, self.stats.columns[self.config.column]
        length = self.config.room or 2 * batch.items.shape[1] * count
        return config.layers * length * (12 * config.width + 3 * config.inner) * 4

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        example = TokenRows(*(jnp.ones((CHUNK, 1), jnp.int32),) * 2)  # as many texts as a data axis divides
        base: Any = Decoder(self.decoder.config).init(key, example)["params"]
        if self.config.adapters is None:
            return base
        return beside(base, self.decoder, jax.random.fold_in(key, 1), example)

    def network(self, params: Params) -> Params:
        """Parameters of the decoder."""
        return params if self.config.adapters is None else joined({name: params[name] for name in (FROZEN, ADAPTERS)})

    def rows(self, batch: Batch, items: Items) -> TokenRows:
        """Texts of each history's first item and of all its targets, those that have a weight, without gaps."""
        first = batch.segments != jnp.pad(batch.segments[:, :-1], [(0, 0), (1, 0)])
        pairs = jnp.stack([jnp.where(first, batch.items, 0), batch.targets], axis=2)
        events = jnp.where((batch.weights > 0)[..., None], pairs, 0).reshape(len(first), -1)
        tokens = jnp.where((events > 0)[..., None], items[self.config.column][items.rows(events)], 0)
        segments = (jnp.repeat(batch.segments, 2, axis=1)[..., None] * (tokens > 0)).reshape(len(first), -1)
        words, places = jnp.maximum(tokens - 1, 0).reshape(len(first), -1), without_gaps(segments, self.config.room)
        return TokenRows(*(jnp.take_along_axis(x, places, axis=1) for x in (words, segments)))

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        rows = self.rows(batch, items)
        found = log_likelihoods(self.decoder, self.network(params), rows)
        follows = (rows.segments[:, 1:] == rows.segments[:, :-1]) & (rows.segments[:, 1:] > 0)
        total, weight = -jnp.sum(found), jnp.sum(follows).astype(jnp.float32)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def text_likelihood(
        self, params: Params, queries: Queries, targets: Int[Array, " q"], items: Items
    ) -> tuple[Float[Array, " q"], Int[Array, " q"]]:
        events = jnp.concatenate([queries.items, targets[:, None]], axis=1)
        tokens = jnp.where((events > 0)[..., None], items[self.config.column][items.rows(events)], 0)
        own = jnp.zeros(tokens.shape, jnp.int32).at[:, -1, 1:].set(1)  # all tokens of the target but its first
        tokens, own = (x.reshape(len(events), -1) for x in (tokens, own))
        there = (tokens > 0).astype(jnp.int32)
        places = without_gaps(there, self.config.room, last=True)
        words, there, own = (jnp.take_along_axis(x, places, axis=1) for x in (jnp.maximum(tokens - 1, 0), there, own))
        found = log_likelihoods(self.decoder, self.network(params), TokenRows(words, there))
        counted = own * there
        return jnp.sum(found * counted, axis=1), jnp.sum(counted, axis=1)

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        reader = ItemReader(self.decoder, first=1)
        return {TABLE: by_rows(unit(reader.table(self.network(params), items[self.config.column])))}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        table = (items.prepared or self.prepare(params, items))[TABLE]
        users = lookup(table, items.rows(take_position(queries.items, queries.last))[:, None])[:, 0]
        return DotProduct(users, table, items.size, start=items.start)

    def sharding_rules(self) -> Rules:
        return [*SHARDING_RULES, (".*", ())]
