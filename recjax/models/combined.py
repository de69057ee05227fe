"""Evidence and a trained encoder: the posterior of texts and counts, plus a share of what an encoder has learned.

The score of an item is that of `recjax.models.evidence` plus the encoder's logit times one number, which is chosen on
events that neither has seen. Texts and counts know rare items, an encoder knows what long histories mean.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from recjax.data.batches.views import Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct, Overlay
from recjax.models.evidence import Evidence, EvidenceModel
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.typing import Array, InputError, Params

ENCODER, EVIDENCE, SHARE = "encoder", "evidence", "share"
"""Parameters: those of the two models, and the factor of the encoder's logits, float32 []."""


@dataclass(frozen=True)
class Combined(ModelConfig):
    """Configuration of `CombinedModel`.

    Attributes:
        evidence: of the posterior.
        encoder: of a model that scores by products of vectors.
    """

    evidence: Evidence
    encoder: ModelConfig

    @property
    def longest(self) -> int | None:
        return self.encoder.longest

    def build(self, stats: ItemStats) -> "CombinedModel":
        evidence = self.evidence.build(stats)
        return CombinedModel(evidence, self.encoder.build(stats), stats)


@dataclass(frozen=True)
class CombinedModel(Model):
    """The model of this module. Its parts are trained elsewhere, so it is ranked with and not trained."""

    evidence: EvidenceModel
    encoder: Model
    stats: ItemStats

    def init(self, key: Array, batch: Any, items: Items) -> Params:
        raise InputError("a run beside evidence is made of parameters that there are, not from scratch")

    def loss(self, params: Params, batch: Any, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        raise InputError("a run beside evidence is not trained further: train the run")

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        return self.encoder.prepare(params[ENCODER], items)

    def scoring(self, params: Params, queries: Queries, items: Items) -> Overlay:
        posterior = self.evidence.scoring(params[EVIDENCE], queries, items)
        learned = self.encoder.scoring(params[ENCODER], queries, items)
        if not isinstance(learned, DotProduct):
            name = type(self.encoder).__name__
            raise InputError(f"{name} does not score by products of vectors, as a run beside evidence has to")
        users = params[SHARE] * learned.users.astype(jnp.float32)
        vectors = _as_many(learned.vectors.astype(jnp.float32), posterior.vectors.shape[0])
        own = posterior.own + jnp.einsum("qmd,qd->qm", vectors[posterior.listed], users)
        users, vectors = [posterior.users, users], [posterior.vectors, vectors]
        if learned.bias is not None:
            bias = params[SHARE] * _as_many(learned.bias.astype(jnp.float32), posterior.vectors.shape[0])
            own = own + bias[posterior.listed]
            users, vectors = [*users, jnp.ones_like(users[0][:, :1])], [*vectors, bias[:, None]]
        users, vectors = jnp.concatenate(users, axis=1), jnp.concatenate(vectors, axis=1)
        return Overlay(users, vectors, posterior.listed, own, posterior.n_items, posterior.start)


def _as_many(rows: Array, count: int) -> Array:
    """The first `count` rows; 0 behind those that there are, which belong to no item."""
    rows = rows[:count]
    return jnp.pad(rows, ((0, count - rows.shape[0]), *((0, 0),) * (rows.ndim - 1)))
