"""Mender: a generator of item codes that is steered by stated preferences.

Paischer et al., Preference Discerning with LLM-Enhanced Generative Retrieval, 2024: the form with vectors of texts.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import VECTORS, Items
from recjax.decode.scoring import Stepwise
from recjax.limits import RATE, SIZE, above, require
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.tiger import TIGER, History, TIGERModel
from recjax.nn.dense import Dense
from recjax.ops.items.embedding import take_position
from recjax.text.lm.t5 import T5
from recjax.typing import Array, Float, InputError, Int, Params

Stated = Literal["all", "last", "none"]


@dataclass(frozen=True)
class Mender(TIGER):
    """`TIGER` that reads vectors of texts: preferences, then the items of the history.

    A preference is the kind of an item, wanted or not: its vector in the column `kinds`, mapped, and a vector for
    either. The paper's are sentences that a language model of 70 billion parameters wrote of reviews. Here a user's are
    the kinds of the last `memory` items, and the matched one is that nearest to the target's: only training and the
    evaluator `Steering` know it.

    In a share `unwanted` of the samples the one preference is that the target's kind is not wanted, and its
    cross-entropy, up to `most`, counts against the loss (section 3.3).

    Attributes:
        vectors: column of the vectors of items' texts.
        kinds: column of the vectors of their kinds.
        preference: what samples state: "matched", or as in `asked`.
        asked: what queries state where no preference is given: "all", "last" or "none".
        memory: items of a history whose kinds are preferences.
        unwanted: share of samples.
        most: nats.
    """

    orders: ClassVar[bool] = False

    vectors: str = VECTORS
    kinds: str = "kinds"
    preference: Literal["matched", "all", "last", "none"] = "matched"
    asked: Stated = "all"
    memory: int = 5
    unwanted: float = 0.0
    most: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, memory=SIZE, unwanted=RATE, most=above(0))

    def build(self, stats: ItemStats) -> "MenderModel":
        tokens = self.tokens(stats)
        for name in (self.vectors, self.kinds):
            if len(stats.columns.get(name, ())) != 1:
                known = ", ".join(stats.columns) or "none"
                raise InputError(
                    f"Mender reads the vectors {name!r} of each item, but the columns are: {known}; the recipe needs "
                    "`text`, and items={'kinds': Texts()}"
                )
        return MenderModel(self, ContextT5(self.network(tokens)), tokens, stats)


class ContextT5(T5):
    """The encoder-decoder whose encoder reads vectors of texts."""

    def setup(self) -> None:
        super().setup()
        width, init = self.config.width, nn.initializers.normal(1.0)  # vectors of length 1 to inputs like tokens
        dtype = jnp.dtype(self.config.dtype)
        self.item, self.kind = (Dense(width, use_bias=False, dtype=dtype, kernel_init=init) for _ in range(2))
        self.signs = self.param("signs", init, (2, width))

    def __call__(self, inputs: Any, mask: Array, targets: Array) -> Array:
        states = self.encode(self.read(inputs), mask)
        return self.logits(self.decode(self.embed(targets), states, mask))

    def read(self, inputs: Any) -> Float[Array, "b m d"]:
        """Inputs of preferences, then those of items."""
        kinds, unwanted, texts = inputs
        wishes = self.kind(kinds) + self.signs[unwanted.astype(jnp.int32)].astype(self.config.dtype)
        return jnp.concatenate([wishes, self.item(texts)], axis=1)


@dataclass(frozen=True)
class MenderModel(TIGERModel):
    """`Mender` built for a catalog."""

    config: Mender
    module: ContextT5

    @property
    def notes(self) -> dict[str, Any]:
        return super().notes | {"preferences": self.config.asked}

    def history(self, source: Batch | Queries, items: Items) -> History:
        return self.context(source, items, self.stated(source, self.config.asked))

    def context(self, source: Batch | Queries, items: Items, preferences: Int[Array, "b p"]) -> History:
        """Preferences, see `Model.steered`, and items of each row."""
        rows = items.rows(jnp.abs(preferences))
        kinds, texts = items[self.config.kinds][rows], items[self.config.vectors][items.rows(source.items)]
        mask = jnp.concatenate([preferences != 0, source.items > 0], axis=1)
        return (kinds, preferences < 0, texts), mask

    def read(self, t5: Any, tokens: Any) -> Float[Array, "b m d"]:
        return t5.read(tokens)

    def recent(self, source: Batch | Queries) -> Int[Array, "b p"]:
        """The last items of each history, latest first, 0 where there are fewer."""
        held = jnp.sum(source.items > 0, axis=1, keepdims=True)
        places = held - 1 - jnp.arange(self.config.memory)
        return jnp.where(places >= 0, jnp.take_along_axis(source.items, jnp.maximum(places, 0), axis=1), 0)

    def stated(self, source: Batch | Queries, which: Stated) -> Int[Array, "b p"]:
        """Preferences of histories alone."""
        first = {"all": self.config.memory, "last": 1, "none": 0}[which]
        return jnp.where(jnp.arange(self.config.memory) < first, self.recent(source), 0)

    def matched(self, source: Batch, targets: Int[Array, " b"], items: Items) -> Int[Array, "b p"]:
        """Of the last items, the one whose kind is nearest to the target's."""
        recent, kinds = self.recent(source), items[self.config.kinds]
        near = jnp.einsum("bpd,bd->bp", kinds[items.rows(recent)], kinds[items.rows(targets)])
        best = jnp.argmax(jnp.where(recent > 0, near, -jnp.inf), axis=1)
        return jnp.where(jnp.arange(self.config.memory) == best[:, None], recent, 0)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        config = self.config
        weights, targets = take_position(batch.weights, batch.last), take_position(batch.targets, batch.last)
        if config.preference == "matched":
            preferences = self.matched(batch, targets, items)
        else:
            preferences = self.stated(batch, config.preference)
        against = jnp.zeros(len(targets), bool)
        if key is not None and config.unwanted:
            against = jax.random.bernoulli(jax.random.fold_in(key, 1), config.unwanted, targets.shape)
            only = jnp.arange(config.memory) == 0
            preferences = jnp.where(against[:, None], jnp.where(only, -targets[:, None], 0), preferences)
        nats = -self.log_likelihood_after(params, self.context(batch, items, preferences), targets, items, key)
        signed = jnp.where(against, -jnp.minimum(nats, config.most), nats)
        total, weight = jnp.sum(jnp.where(weights > 0, weights * signed, 0.0)), jnp.sum(weights)
        wanted = jnp.where(against, 0.0, weights)
        sums = {"wanted": (jnp.sum(jnp.where(wanted > 0, wanted * nats, 0.0)), jnp.sum(wanted))}
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight), **sums}

    def steered(self, params: Params, queries: Queries, items: Items, preferences: Int[Array, "q p"]) -> Stepwise:
        return self.search(params, self.context(queries, items, preferences), items)
