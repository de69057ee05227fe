"""Generators that are steered by stated preferences: kinds of items, wanted or not, before the items of the history.

Paischer et al., Preference Discerning with LLM-Enhanced Generative Retrieval, 2024.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import Stepwise
from recjax.limits import RATE, SIZE, above, require
from recjax.models.model import WeightedSums
from recjax.models.tiger import TIGER, History, TIGERModel
from recjax.ops.items.embedding import last_items, take_position
from recjax.typing import Array, Int, Params

Stated = Literal["all", "last", "none"]


@dataclass(frozen=True)
class Preferences(TIGER):
    """`TIGER` that reads preferences and then the items of the history.

    A preference is the kind of an item, wanted or not. The paper's are sentences that a language model of 70 billion
    parameters wrote of reviews. Here a user's are the kinds of the last `memory` items, and the matched one is that
    nearest to the target's: only training and the evaluator `Steering` know it.

    In a share `unwanted` of the samples the one preference is that the target's kind is not wanted, and its
    cross-entropy, up to `most`, counts against the loss (section 3.3).

    Attributes:
        kinds: column of the vectors of items' kinds, by which the matched preference is chosen.
        preference: what samples state: "matched", or as in `asked`.
        asked: what queries state where no preference is given: "all", "last" or "none".
        memory: items of a history whose kinds are preferences.
        unwanted: share of samples.
        most: nats.
    """

    orders: ClassVar[bool] = False

    kinds: str = "kinds"
    preference: Literal["matched", "all", "last", "none"] = "matched"
    asked: Stated = "all"
    memory: int = 5
    unwanted: float = 0.0
    most: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, memory=SIZE, unwanted=RATE, most=above(0))


@dataclass(frozen=True)
class PreferencesModel(TIGERModel):
    """A base for the model of `Preferences`: which are stated, and the loss that unwanted ones count against."""

    config: Preferences

    @property
    def notes(self) -> dict[str, Any]:
        return super().notes | {"preferences": self.config.asked}

    @abstractmethod
    def context(self, source: Batch | Queries, items: Items, preferences: Int[Array, "b p"]) -> History:
        """Preferences, see `Model.steered`, and items of each row."""

    def history(self, source: Batch | Queries, items: Items) -> History:
        return self.context(source, items, self.stated(source, self.config.asked))

    def recent(self, source: Batch | Queries) -> Int[Array, "b p"]:
        """The last items of each history, latest first, 0 where there are fewer."""
        return last_items(source.items, jnp.sum(source.items > 0, axis=1), self.config.memory)

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
