"""IntervalLLM: a language model's blocks read items and the times between them, and choose among a few options.

Du et al., Integrating Interval Information into Large Language Models for Sequential Recommendation, RecSys 2025.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import RATE, SIZE, divides, refuse, require
from recjax.mixers.attention import Attention
from recjax.mixers.mixer import SeqContext
from recjax.mixers.parts.gaps import DAY, IntervalQuery, log_days
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.language_network import Network, backbone, read_blocks
from recjax.models.parts.objectives import Objective, SampledSoftmax
from recjax.models.slmrec import ADAPTED, SMALL
from recjax.nn.lora import LoRA
from recjax.ops.attention.pairs import TIMES, log_bucket
from recjax.ops.dropout import dropout
from recjax.ops.items.embedding import lookup, table_rows, take_position
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float, Params


@dataclass(frozen=True)
class IntervalLLM(ModelConfig):
    """A decoder over up to three vectors an event: its item, the time since the event before, and attention by times.

    The time's vector is that of a small network of log(1 + days), or, as in a prompt that says it in words, one of a
    table by logarithmic steps. In the third, queries are made of the times alone, keys and values of items
    (`Attention(query="interval")`), so that how long a user was away says which past events count. The score of an
    item, an option among a few, is its vector's product with the state of the event's last vector; by default the loss
    is that of the answer among 20 options, drawn for each event, and the evaluator to go with it is `Options`.

    Not the paper's: items have vectors of their own, where a prompt has titles, attention by times sees earlier events
    alone, so that each event has a question, and blocks are small and from scratch unless `weights` names a folder,
    whose first blocks are then frozen with adapters beside. The view is `Shifted(times=True)`.

    Attributes:
        base: sizes of the decoder, with vocabulary 0.
        weights: folder of a language model, see `recjax.text.hub.find_folder`; None for blocks from scratch.
        lora: adapters of the blocks from a folder.
        gap: vector of the time: of a "network", of a table of "words", or "none".
        attention: whether there is the third vector.
        heads: of the attention by times.
        width: of items' vectors, and of the others before the decoder.
        dropout: rate on what the decoder reads.
        loss: training objective.
    """

    base: DecoderConfig = SMALL
    weights: str | None = None
    lora: LoRA = ADAPTED
    gap: Literal["network", "words", "none"] = "network"
    attention: bool = True
    heads: int = 2
    width: int = 64
    dropout: float = 0.1
    loss: Objective = field(default_factory=lambda: SampledSoftmax(negatives=19, share="position"))

    def __post_init__(self) -> None:
        require(self, heads=SIZE, width=SIZE, dropout=RATE)
        divides(self, "heads", self.width, "model width")
        if self.base.vocabulary:
            refuse(self, "base", "sizes with vocabulary 0, for the network reads vectors alone")

    def build(self, stats: ItemStats) -> "IntervalLLMModel":
        return IntervalLLMModel(self, Network(self.base, None if self.weights is None else self.lora), stats)

    def given(self) -> Params | None:
        return None if self.weights is None else {"network": read_blocks(self.weights, self.base)}


@dataclass(frozen=True)
class IntervalLLMModel(Model):
    """`IntervalLLM` built for a catalog."""

    config: IntervalLLM
    network: Network
    stats: ItemStats

    @property
    def notes(self) -> dict[str, Any]:
        return {"backbone": backbone(self.config.base, self.config.weights)}

    @property
    def item_rows(self) -> tuple[str, ...]:
        return ("items",)

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        config, keys, width = self.config, jax.random.split(key, 4), self.config.width
        normal = jax.nn.initializers.normal(0.02)
        params: Params = {"items": normal(keys[0], (table_rows(self.n_items + 1), width))}
        params["network"] = self.network.init(keys[1], width)
        if config.gap == "network":
            params["gap"] = IntervalQuery(width).init(keys[2], jnp.zeros((1, 1)))["params"]
        elif config.gap == "words":
            params["gap"] = normal(keys[2], (TIMES, width))
        if config.attention:
            lone = jnp.ones((1, 2), jnp.int32)
            example = jnp.zeros((1, 2, width)), SeqContext(lone, lone, lone)
            params["attention"] = self._attention.init(keys[3], *example)["params"]
        return params

    @property
    def _attention(self) -> Any:
        mixer = Attention(heads=self.config.heads, query="interval")
        return mixer.build(width=self.config.width, causal=True, dtype=jnp.float32, name="attention")

    def vectors(self, params: Params, source: Batch | Queries) -> tuple[Float[Array, "b l d"], ...]:
        """Vectors of each event that the decoder reads, in order."""
        config, scale = self.config, self.config.width**0.5
        context = SeqContext(source.segments, source.positions, source.timestamps)
        events = lookup(params["items"], source.items) * scale
        found = [events]
        if config.gap == "network":
            made: Any = IntervalQuery(config.width).apply({"params": params["gap"]}, log_days(context))
            found.append(made)
        elif config.gap == "words":
            seconds = (jnp.expm1(log_days(context)) * DAY).astype(jnp.int32)
            found.append(params["gap"][jnp.minimum(log_bucket(seconds, 1), TIMES - 1)] * scale)
        if config.attention:
            found.append(self._attention.apply({"params": params["attention"]}, events, context))
        return tuple(found)

    def states(self, params: Params, source: Batch | Queries, key: Array | None = None) -> Float[Array, "b l d"]:
        """State of each event, after all its vectors, with dropout where there is a key."""
        parts = self.vectors(params, source)
        count, (rows, length, width) = len(parts), parts[0].shape
        inputs = dropout(jnp.stack(parts, axis=2).reshape(rows, length * count, width), self.config.dropout, key)
        segments = jnp.repeat(source.segments, count, axis=1)
        places = jnp.repeat(source.positions * count, count, axis=1) + jnp.tile(jnp.arange(count), length)
        network = params["network"]
        states = self.network(network, inputs, TokenRows(segments, segments, places))[-1] @ network["out"]
        return states[:, count - 1 :: count].astype(jnp.float32)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        drop, drawn = jax.random.split(jax.random.key(0) if key is None else key)
        hidden = self.states(params, batch, None if key is None else drop)
        total = self.config.loss(hidden, params["items"], None, batch, drawn, self.stats)
        weight = jnp.sum(batch.weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        users = take_position(self.states(params, queries), queries.last)
        return DotProduct(users, params["items"], self.n_items)

    def sharding_rules(self) -> Rules:
        own = [("^items$", ("model", None)), ("^(gap|attention)", ()), ("^network/(into|out)$", ())]
        return [*own, *SHARDING_RULES, (".*", ())]
