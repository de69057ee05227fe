"""ICSRec: contrast of prefixes that share an intent.

Qin et al., Intent Contrastive Learning with Cross Subsequences for Sequential Recommendation, WSDM 2024.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.limits import COUNT, SIZE, at_least, require
from recjax.mixers.stack import Norm
from recjax.models.model import ItemStats, Sweep
from recjax.models.next_item import NextItem
from recjax.models.parts.dot_product import DotProductModel, Terms, last_token
from recjax.nn.groups import FROZEN
from recjax.ops.contrast import nt_xent, prototype_info_nce
from recjax.ops.items.embedding import take_position
from recjax.ops.kmeans import assign, kmeans
from recjax.typing import Array, Float, Params


@dataclass(frozen=True)
class ICSRec(NextItem):
    """A next-item model whose states of two prefixes with the same target are pulled together.

    Two terms stand beside the objective. The coarse one is NT-Xent between the last states of a sample and of its
    partner; pairs with the same target are no negatives of each other. The fine one pulls each of the two states to the
    centroid of its own cluster, away from the centroids of the other samples' clusters. Clusters are those of the last
    states of all samples, found anew before each epoch. States are compared as they are, at temperature 1.

    The view is `Partnered(Prefixes(Shifted(targets=1), least=4))`, or `Partnered(Shifted(), SameTarget(slots=True))`,
    which trains all positions and contrasts one of each history, at a sixth of the cost; data.pack is false.

    Attributes:
        coarse: factor of the coarse term (lambda); 0 leaves it out.
        fine: factor of the fine term (beta), the sum over both states; 0 leaves it and the clusters out.
        clusters: how many.
        rounds: of k-means.
    """

    heads: int = 2
    norm: Norm = "post"
    dropout: float = 0.5
    max_length: int = 50
    input_norm: bool = True
    scale: bool = False
    coarse: float = 0.3
    fine: float = 0.1
    clusters: int = 256
    rounds: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, coarse=at_least(0), fine=at_least(0), clusters=SIZE, rounds=COUNT)

    def build(self, stats: ItemStats) -> "ICSRecModel":
        base = super().build(stats)
        return ICSRecModel(base.module, base.objective, stats, self.coarse, self.fine, self.clusters, self.rounds)


@dataclass(frozen=True)
class ICSRecModel(DotProductModel):
    """The built model; its centroids are frozen parameters."""

    coarse: float
    fine: float
    clusters: int
    rounds: int

    @property
    def refresh_every(self) -> Literal["epoch"] | None:
        return "epoch" if self.fine else None

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        params = super().init(key, batch, items)
        if not self.fine:
            return params
        return {**params, FROZEN: {"centroids": jnp.zeros((self.clusters, self.module.stack.width))}}

    def refresh(self, params: Params, items: Items, sweep: Sweep) -> Params:
        """Centroids of the last states of all samples."""
        key = jax.random.fold_in(jax.random.key(0), sweep.step)
        centroids = kmeans(jnp.asarray(sweep(self.states)), self.clusters, key, iterations=self.rounds)
        return {**params, FROZEN: {"centroids": centroids}}

    def terms(
        self, params: Params, batch: Batch, items: Items, hidden: Float[Array, "b l d"], key: Array | None
    ) -> Terms:
        if not self.coarse and not self.fine:
            return {}
        place = batch.more.get("partner_places", last_token(batch.segments))
        partners = self.encode_partners(params, batch, key)
        own, paired = take_position(hidden, place), batch.more["partner_weights"]
        terms: Terms = {}
        if self.coarse:
            both = nt_xent(own, partners, weights=paired, groups=take_position(batch.targets, place))
            terms["coarse"] = (self.coarse, jnp.sum(both), jnp.sum(paired))
        if self.fine:
            present = jnp.any(batch.segments > 0, axis=1).astype(jnp.float32)
            terms["fine"] = (self.fine, *self._fine(params, own, present))
            terms["fine_partner"] = (self.fine, *self._fine(params, partners, paired))
        return terms

    def _fine(self, params: Params, states: Float[Array, "b d"], weights: Float[Array, " b"]) -> tuple[Array, Array]:
        """Sum and weight of the losses of states against the centroids of their clusters."""
        centroids = params[FROZEN]["centroids"]
        states = states.astype(jnp.float32)
        clusters = assign(jax.lax.stop_gradient(states), centroids)[0]
        # Clusters are of states as they are, but a centroid attracts as a direction, as in the authors' code.
        directions = centroids / jnp.maximum(jnp.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
        return jnp.sum(prototype_info_nce(states, directions, clusters, weights=weights)), jnp.sum(weights)
