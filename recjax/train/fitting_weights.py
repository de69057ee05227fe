"""Choice among weights of the evidence model by what a catalog's own users did, without a gradient.

Weights learned on other catalogs are right for most; in a catalog unlike those (strict sequences, few items that all
follow each other, texts that say nothing) one plain signal may rank far better. So the last event of some of the users
is asked for, their own events taken out of all counts, and plain weights replace the learned ones where they are better
by `SURE` standard errors.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries, View
from recjax.data.items import Items
from recjax.data.splits import Examples
from recjax.evaluate.metrics import MISS, user_metrics
from recjax.models.evidence import FEATURES, Evidence, EvidenceModel, untrained_gate
from recjax.models.model import ItemStats
from recjax.typing import Array, Float, Int, Params

PLAIN = (
    *(f"following {decay}" for decay in (0.5, 0.8)),
    *(f"posterior {strength} {decay}" for strength in (8, 32, 128) for decay in (0.5, 0.8)),
)
"""Signals that may rank alone."""

ASKED = 512
"""Users whose last event is asked for."""

SURE = 4.0
"""Standard errors, paired over users: eight comparisons, and a change that fits some users only by chance is a loss."""

QUERIES = 128
"""Asked at a time; their signals lie in memory together."""

METRIC = "ndcg@10"


def plain_weights(name: str) -> Params:
    """Weights of one signal alone."""
    return {"gate": np.asarray(jnp.zeros_like(untrained_gate()).at[0, FEATURES.index(name)].set(1.0))}


def fitting(learned: Params, model: EvidenceModel, items: Items, train: Histories, view: View) -> int:
    """Place in `PLAIN` of the signal that ranks alone what some users did last, or -1 where the learned weights stay.

    Args:
        learned: weights that stay unless a signal is clearly better.
        model: for the catalog.
        items: with the evidence of `train`, on the devices.
        train: histories that are counted.
        view: of histories.
    """
    asked = last_of(train, ASKED)
    if len(asked) < 2:
        return -1
    gates = jnp.stack([jnp.asarray(each["gate"], jnp.float32) for each in (learned, *map(plain_weights, PLAIN))])
    ranks = np.zeros((len(gates), len(asked)), np.int64)
    for queries, rows in query_batches(asked, view, model.n_items, QUERIES, shapes=1):
        there = rows >= 0
        targets = np.where(there, asked.targets[rows], 0).astype(np.int32)
        ranks[:, rows[there]] = np.asarray(_ranks(model.config, gates, queries, targets, items))[:, there]
    reached = np.stack([user_metrics(each)[METRIC] for each in np.where(ranks > 0, ranks, MISS)])
    more = reached[1:] - reached[0]
    sure = more.mean(axis=1) > SURE * np.maximum(more.std(axis=1), 1e-12) / len(asked) ** 0.5
    return int(np.argmax(np.where(sure, more.mean(axis=1), -np.inf))) if sure.any() else -1


def last_of(histories: Histories, users: int) -> Examples:
    """The last event of some users after their other ones, a fixed sample of those with two events or more."""
    rows = np.flatnonzero(histories.lengths >= 2)
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:users])
    chosen = histories.take(rows)
    last = chosen.stops - 1
    return Examples(replace(chosen, stops=last), chosen.items[last], chosen.timestamps[last])


@partial(jax.jit, static_argnames="config")
def _ranks(
    config: Evidence, gates: Float[Array, "g 3 f"], queries: Queries, targets: Int[Array, " q"], items: Items
) -> Int[Array, "g q"]:
    """Rank of each target among the linked items, by each of the weights, 0 if it is not linked."""
    model: EvidenceModel = config.build(ItemStats(0, np.zeros(1, np.int64)))
    found = model.found_without(queries.items, queries.lengths, queries.timestamps, targets, queries.seen, items)
    hit = (found.listed == targets[:, None]) & (found.listed > 0)

    def ranked(gate: Array) -> Array:
        weights = jnp.matmul(found.known, gate, precision=jax.lax.Precision.HIGHEST)
        scores = jnp.einsum("qmf,qf->qm", found.features, weights, precision=jax.lax.Precision.HIGHEST)
        own = jnp.max(jnp.where(hit, scores, -jnp.inf), axis=1)
        before = (scores > own[:, None]) | ((scores == own[:, None]) & (found.listed < targets[:, None]))
        return jnp.where(jnp.any(hit, axis=1), 1 + jnp.sum(before & (found.listed > 0), axis=1), 0)

    return jax.lax.map(ranked, gates)
