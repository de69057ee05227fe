"""ILM, phase 2: a Q-Former translates what users do with items into vectors that a frozen language model reads.

Yang et al., Item-Language Model for Conversational Recommendation, 2024; `recjax.models.ilm_alignment` is phase 1.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import SIZE, refuse, require
from recjax.models.ilm_alignment import TABLE, check_vectors
from recjax.models.model import ItemStats, Model, ModelConfig, Rules, WeightedSums
from recjax.models.parts.language_network import backbone, read_blocks
from recjax.models.parts.objectives import FullSoftmax, Objective
from recjax.models.parts.qformer import QUERIES_ALONE, QFormer, QFormerConfig, read, read_all
from recjax.models.slmrec import SMALL
from recjax.nn.dense import Dense
from recjax.nn.groups import FROZEN
from recjax.nn.norm import LayerNorm
from recjax.ops.items.embedding import lookup, take_position
from recjax.text.hub import LANGUAGE_MODEL, find_folder
from recjax.text.lm.config import DecoderConfig
from recjax.text.lm.decoder import SHARDING_RULES, Decoder
from recjax.text.lm.folder import read_language_model
from recjax.text.rows import TokenRows
from recjax.typing import Array, Float, InputError, Int, Params

TRANSLATOR = (f"^qformer/{QUERIES_ALONE}",)
"""`train.take` of a run that begins with the queries of an `ILMAlignment`."""

QUESTION = "Here is what a person had, one thing after another. What comes next?"


@dataclass(frozen=True)
class ILM(ModelConfig):
    """Phase 2: a question in words, then a few vectors for each event, to a frozen language model.

    Vectors of an event are the query outputs for its item, mapped to the language model's width. Blocks from a folder
    and the words' vectors are frozen, without adapters; from scratch they are trained along. The score of an item is
    the product of its frozen vector with a linear map of the state behind an event's vectors, so that the whole catalog
    is ranked: not the paper's, which generates the answer's text. There the question may stand anywhere; here it comes
    first, so that each event has an answer. The run begins with an `ILMAlignment`'s queries, by `train.take` of
    `TRANSLATOR`, or with random ones.

    The view is `Shifted`, without packing.

    Attributes:
        qformer: sizes, as in phase 1.
        translator: "qformer", or "mlp": two dense layers that make as many vectors, the control.
        base: sizes of the language model, with vocabulary 0.
        weights: folder of a language model whose first blocks these are, see `recjax.text.hub.find_folder`; None for
            blocks and a question's vectors from scratch.
        question: before the history.
        room: tokens of the question at most.
        vectors: column of the frozen vectors.
        loss: training objective.
    """

    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    translator: Literal["qformer", "mlp"] = "qformer"
    base: DecoderConfig = SMALL
    weights: str | None = None
    question: str = QUESTION
    room: int = 20
    vectors: str = "behaviour"
    loss: Objective = field(default_factory=FullSoftmax)

    def __post_init__(self) -> None:
        require(self, room=SIZE)
        if self.base.vocabulary:
            refuse(self, "base", "sizes with vocabulary 0, for the network reads vectors alone")

    def build(self, stats: ItemStats) -> "ILMModel":
        check_vectors(self.vectors, stats)
        sizes = self.qformer
        module = QFormer(sizes) if self.translator == "qformer" else Perceptron(sizes)
        return ILMModel(self, module, stats)

    def given(self) -> Params | None:
        """The folder's blocks, and its vectors of the question's tokens, behind zeros."""
        if self.weights is None:
            return None
        blocks = read_blocks(self.weights, self.base)[FROZEN]
        model = read_language_model(find_folder(self.weights, LANGUAGE_MODEL), layers=1)
        (tokens,) = model.tokenise([self.question])
        if len(tokens) > self.room:
            raise InputError(f"the question has {len(tokens)} tokens, but model.room is {self.room}")
        prompt = jnp.pad(model.params["tokens"][jnp.array(tokens, int)], [(self.room - len(tokens), 0), (0, 0)])
        return {"language": {FROZEN: {"blocks": blocks, "prompt": prompt}}}


class Perceptron(nn.Module):
    """Two dense layers in the place of a Q-Former.

    Attributes:
        config: sizes of the Q-Former.
    """

    config: QFormerConfig

    @nn.compact
    def read(self, vectors: Float[Array, "n v"]) -> Float[Array, "n k d"]:
        """Vectors for the language model."""
        config = self.config
        hidden = jax.nn.gelu(Dense(config.inner, name="up")(vectors))
        found = Dense(config.queries * config.width, name="down")(hidden)
        return LayerNorm(name="norm")(found.reshape(len(vectors), config.queries, config.width))


@dataclass(frozen=True)
class ILMModel(Model):
    """`ILM` built for a catalog."""

    config: ILM
    module: QFormer | Perceptron
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    @property
    def notes(self) -> dict[str, Any]:
        read_by = backbone(self.config.base, self.config.weights, "frozen")
        return {"backbone": read_by, "translator": self.config.translator}

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        config, keys, (width,) = self.config, jax.random.split(key, 5), self.stats.columns[self.config.vectors]
        own, normal = config.base.width, jax.nn.initializers.normal(0.02)
        inputs = jnp.zeros((1, 2, own)), TokenRows(*(jnp.ones((1, 2), jnp.int32),) * 2)
        blocks: Any = Decoder(config.base).init(keys[0], *inputs, method=Decoder.states)["params"]
        language = {"blocks": blocks, "prompt": normal(keys[1], (config.room, own))}
        module: Any = self.module.init(keys[2], jnp.zeros((1, width)), method=type(self.module).read)["params"]
        return {
            config.translator: module,
            "adapt": normal(keys[3], (config.qformer.width, own)),
            "language": language if config.weights is None else {FROZEN: language},
            "out": jax.nn.initializers.lecun_normal()(keys[4], (own, width)),
        }

    def translated(
        self, params: Params, vectors: Float[Array, "n v"], key: Array | None = None
    ) -> Float[Array, "n k*d"]:
        """Vectors of items that the language model reads, one after another."""
        found = read(self.module, params[self.config.translator], vectors, key) @ params["adapt"]
        return found.reshape(len(vectors), -1)

    def states(self, params: Params, events: Float[Array, "b l k*d"], segments: Int[Array, "b l"]) -> Array:
        """State behind the vectors of each event, [b, l, d], of histories that begin their rows."""
        language, count, own = params["language"], self.config.qformer.queries, self.config.base.width
        language = language if self.config.weights is None else language[FROZEN]
        rows, length = segments.shape
        prompt = jnp.broadcast_to(language["prompt"], (rows, self.config.room, own))
        inputs = jnp.concatenate([prompt, events.reshape(rows, length * count, own)], axis=1)
        there = jnp.any(prompt != 0, axis=-1).astype(jnp.int32)
        both = jnp.concatenate([there, jnp.repeat(jnp.minimum(segments, 1), count, axis=1)], axis=1)
        found: Any = Decoder(self.config.base).apply(
            {"params": language["blocks"]}, inputs, TokenRows(both, both), method=Decoder.states
        )
        return found[:, self.config.room + count - 1 :: count].astype(jnp.float32)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        drop, drawn = jax.random.split(jax.random.key(0) if key is None else key)
        table = items[self.config.vectors]
        vectors = lookup(table, items.rows(batch.items))
        events = self.translated(params, vectors.reshape(-1, vectors.shape[-1]), None if key is None else drop)
        hidden = self.states(params, events.reshape(*batch.items.shape, -1), batch.segments) @ params["out"]
        total, weight = self.config.loss(hidden, table, None, batch, drawn, self.stats), jnp.sum(batch.weights)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        return {TABLE: read_all(partial(self.translated, params), items[self.config.vectors])}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        table = (items.prepared or self.prepare(params, items))[TABLE]
        states = self.states(params, lookup(table, items.rows(queries.items)), queries.segments)
        users = take_position(states, queries.last) @ params["out"]
        return DotProduct(users, items[self.config.vectors], items.size, start=items.start)

    def sharding_rules(self) -> Rules:
        return [("^(adapt|out|qformer/.*|mlp/.*|.*prompt)$", ()), *SHARDING_RULES, (".*", ())]
