"""Text as prior, logs as evidence: what follows what, counted in the catalog itself and read by learned weights.

Of the items a of a history, the last one most, every linked item b collects signals:

    following, preceding   c_ab / n_a and c_ba / n_a, counts of the catalog's own events
    together               n_ab / sqrt(n_a n_b), users
    text                   p(b|a), where the text of a points
    posterior              (c_ab + k p'(b|a)) / (n_a + k) for k = 8, 32, 128; p' is half text, half popularity

A signal is the sum over the history, weighted by 0.5 ** age, or by 0.8 ** age and the days that have passed since,
then divided by its largest of the user. The score is a linear function of the signals, their roots and the logarithm of
popularity, whose weights depend on how much is known of the last item, log(1 + n_a), and of the catalog (how often text
foresees what follows), so that the weight of the prior is a learned function of both. No weight belongs to an item: new
items come in by their text, new events by a count, and weights learned on some catalogs serve any other. Untrained, the
model is the posterior with k = 32.

Learning takes the events of a sample's own user out of the counts, exactly; else the model would learn to trust counts
that hold the answer.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.features.evidence import EVENTS, FOLLOWED, POPULARITY, SHARE, TRUST, USERS
from recjax.data.items import Items
from recjax.decode.scoring import Overlay
from recjax.limits import SIZE, require
from recjax.models.model import ItemStats, Model, ModelConfig, WeightedSums
from recjax.models.parts.signals import POSTERIORS, SIGNALS, TINY, Found, Links, event_weights, left_out, merged
from recjax.ops.items.embedding import last_items
from recjax.typing import Array, Bool, Float, Int, Params

FEATURES = (*SIGNALS, *(f"root {name}" for name in SIGNALS), "popularity")

TOGETHER = 8
"""Queries whose signals are held at a time."""

DEPENDS = ("always", "log(1 + n) / 5", "trust in text")
"""Inputs of the linear function that is the weight of a feature."""

TWIN, STEEPNESS = "posterior 32 0.5", 8.0
"""The one feature of the untrained model, and its weight, which says how sure the softmax is."""


@dataclass(frozen=True)
class Evidence(ModelConfig):
    """Configuration of `EvidenceModel`, which reads the features of `recjax.data.features.evidence`.

    Attributes:
        last: items of a history that count.
    """

    last: int = 16

    def __post_init__(self) -> None:
        require(self, last=SIZE)

    def build(self, stats: ItemStats) -> "EvidenceModel":
        return EvidenceModel(self, stats)


@dataclass(frozen=True)
class EvidenceModel(Model):
    """The model of this module for one catalog."""

    config: Evidence
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    def init(self, key: Array, batch: Any, items: Items) -> Params:
        """Parameters of the untrained twin: the posterior with k = 32 and nothing else."""
        del key, batch, items
        return {"gate": untrained_gate()}

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        """Mean negative log-probability of each row's last target among the linked items, the row's events left out.

        A target that nothing points to has no loss: no weight could raise it above the other items.
        """
        del key
        lengths = jnp.sum(batch.segments > 0, axis=1)
        last = jnp.maximum(lengths - 1, 0)[:, None]
        target = jnp.take_along_axis(batch.targets, last, axis=1)[:, 0]
        found = self.found_without(batch.items, lengths, batch.timestamps, target, batch.items, items)
        scores = jax.vmap(partial(self._scores, params))(found)
        logits = jnp.where(found.listed > 0, scores, -jnp.inf)
        weight = jnp.take_along_axis(batch.weights, last, axis=1)[:, 0]
        total, weight = listwise(logits, found.listed == target[:, None], weight)
        return total / jnp.maximum(weight, 1.0), {"loss": (total, weight)}

    def found(self, queries: Queries, items: Items) -> Found:
        """Items linked to the last items of each query, and their features."""
        return self.features(self.links(items, queries.items, queries.lengths, queries.timestamps), queries.seen, items)

    def found_without(
        self,
        events: Int[Array, "q l"],
        lengths: Int[Array, " q"],
        timestamps: Int[Array, "q l"] | None,
        targets: Int[Array, " q"],
        seen: Int[Array, "q s"],
        items: Items,
    ) -> Found:
        """`found` of histories that the counts hold, with the targets after them: their own events are left out."""
        after = jnp.arange(events.shape[1] + 1) == lengths[:, None]
        own = jnp.where(after, targets[:, None], jnp.pad(events, ((0, 0), (0, 1))))
        return self.features(self.links(items, events, lengths, timestamps, own), seen, items)

    def scoring(self, params: Params, queries: Queries, items: Items) -> Overlay:
        posterior, top = jnp.array(POSTERIORS), self._most_popular(items)

        def scored(query: tuple[Links, Array]) -> tuple[Array, Array, Array]:
            """A query's factors of popularity, its linked items and their scores; its signals stay in the cache."""
            found = self._described(items, top, query)
            weights = self._weights(params, found.known)
            linear, root = weights[: len(SIGNALS)], weights[len(SIGNALS) : -1]
            share = found.shares / found.largest[posterior]
            parts = (weights[-1], jnp.sum(linear[posterior] * share), jnp.sum(root[posterior] * jnp.sqrt(share)))
            return jnp.stack(parts), found.listed, self._scores(params, found)

        links = self.links(items, queries.items, queries.lengths, queries.timestamps)
        users, listed, own = jax.lax.map(scored, (links, queries.seen), batch_size=TOGETHER)
        return Overlay(users, _popular(items), items.rows(listed), own, self.n_items, items.start)

    def links(
        self,
        items: Items,
        events: Int[Array, "q l"],
        lengths: Int[Array, " q"],
        timestamps: Int[Array, "q l"] | None = None,
        own: Int[Array, "q t"] | None = None,
    ) -> Links:
        """Links of the last items of histories.

        Args:
            items: of the catalog.
            events: item ids, aligned to the left.
            lengths: of the histories.
            timestamps: unix seconds of the events, or None.
            own: events of the same users that are in the counts and have to be left out; None for none.
        """
        place = lengths[:, None] - 1 - jnp.arange(self.config.last)
        recent = last_items(events, lengths, self.config.last)
        seconds = None if timestamps is None else jnp.take_along_axis(timestamps, jnp.maximum(place, 0), axis=1)
        rows = items.rows(recent)
        relations = {name: items.relation(name) for name in ("following", "preceding", "together", "text")}
        ids = {name: found.ids[rows] for name, found in relations.items()}
        values = {name: found.values[rows] for name, found in relations.items()}
        users = items["totals"][items.rows(ids["together"]), USERS]
        own = jnp.zeros((len(events), 0), jnp.int32) if own is None else own
        return left_out(
            Links(recent, items["totals"][rows], ids, values, users, event_weights(place >= 0, seconds), own)
        )

    def features(self, links: Links, seen: Int[Array, "q s"], items: Items) -> Found:
        """Signals of all linked items but those `seen`, each divided by its largest."""
        describe = partial(self._described, items, self._most_popular(items))
        return jax.lax.map(describe, (links, seen), batch_size=TOGETHER)

    def _most_popular(self, items: Items) -> Float[Array, ""]:
        """The largest share of popularity in the catalog."""
        number = jnp.arange(items["totals"].shape[0])
        current = (number > items.start) & (number <= items.start + items.size)
        return jnp.max(jnp.where(current, items["totals"][:, SHARE], 0.0))

    def _described(self, items: Items, top: Array, query: tuple[Links, Array]) -> Found:
        """`features` of one query, without its axis."""
        links, _ = query
        listed, sums, shares = merged(len(items["totals"]), query)
        totals = items["totals"][items.rows(listed)]
        copies = jnp.sum(links.own[:, None] == listed, axis=0) if len(links.own) else 0.0
        left = jnp.maximum(totals[:, EVENTS] - copies, 0.0) / jnp.maximum(totals[:, EVENTS], 1.0)
        popular = jnp.pad(shares, (len(SIGNALS) - len(POSTERIORS), 0))
        sums = sums + popular * (totals[:, SHARE] * left)[:, None]
        largest = jnp.max(jnp.where(listed[:, None] > 0, sums, 0.0), axis=0)
        largest = jnp.maximum(largest, TINY).at[-len(POSTERIORS) :].max(shares * top)
        known = jnp.log1p(jnp.maximum(links.totals[0, FOLLOWED], 0.0)) / 5.0
        known = jnp.stack([jnp.ones_like(known), known, links.totals[0, TRUST]])
        return Found(listed, sums / largest, totals[:, POPULARITY] * left, known, shares, largest)

    def unlinked(self, found: Found, seen: Int[Array, "q s"], items: Items) -> tuple[Found, Bool[Array, "q 2"]]:
        """The most and the least popular item that nothing links to, of each query; whether there is one.

        Their scores are between those of all such items.
        """
        totals = items["totals"]

        def ends(listed: Array, hidden: Array) -> tuple[Array, Array]:
            free = jnp.ones(len(totals), bool).at[0].set(False).at[listed].set(False).at[hidden].set(False)
            shares = totals[:, SHARE]
            best = jnp.argmax(jnp.where(free, shares, -1.0)), jnp.argmin(jnp.where(free, shares, 2.0))
            return jnp.stack(best), jnp.any(free)

        listed, there = jax.vmap(ends)(items.rows(found.listed), items.rows(seen))
        share = found.shares[:, None] * totals[listed, SHARE][..., None]
        share = share / found.largest[:, None, -len(POSTERIORS) :]
        signals = jnp.pad(share, ((0, 0), (0, 0), (len(SIGNALS) - len(POSTERIORS), 0)))
        some = replace(found, listed=listed, signals=signals, popularity=totals[listed, POPULARITY])
        return some, jnp.broadcast_to(there[:, None], listed.shape)

    def _weights(self, params: Params, known: Float[Array, " 3"]) -> Float[Array, " f"]:
        return jnp.matmul(known, params["gate"], precision=jax.lax.Precision.HIGHEST)

    def _scores(self, params: Params, found: Found) -> Float[Array, " m"]:
        """Of one query's linked items."""
        weights = self._weights(params, found.known)
        linear, root = weights[: len(SIGNALS)], weights[len(SIGNALS) : -1]
        return jnp.sum(found.signals * linear + jnp.sqrt(found.signals) * root, axis=1) + found.popularity * weights[-1]


def untrained_gate() -> Float[Array, "3 f"]:
    """Weights of the posterior with k = 32 and of nothing else."""
    return jnp.zeros((len(DEPENDS), len(FEATURES))).at[0, FEATURES.index(TWIN)].set(STEEPNESS)


def listwise(logits: Float[Array, "q m"], hit: Array, weight: Float[Array, " q"]) -> tuple[Array, Array]:
    """Weighted sum of -log softmax at the hit of each row, and the weights of the rows that have one."""
    weight = jnp.where(jnp.any(hit, axis=1), weight, 0.0)
    own = jnp.sum(jnp.where(hit, logits, 0.0), axis=1)
    rows = jnp.where(weight > 0, jax.nn.logsumexp(jnp.where(weight[:, None] > 0, logits, 0.0), axis=1) - own, 0.0)
    return jnp.sum(weight * rows), jnp.sum(weight)


def _popular(items: Items) -> Float[Array, "rows 3"]:
    """Score of an item that nothing points to."""
    totals = items["totals"]
    return jnp.stack([totals[:, POPULARITY], totals[:, SHARE], jnp.sqrt(totals[:, SHARE])], axis=1)
