"""Learning of the evidence model's weights on catalogs that are not the user's.

The weights are few and the loss is convex, so they are found by L-BFGS, without draws. A catalog is seen at several
stages: with the logs of a share of its users, and with part of its texts missing, so that one set of weights knows
young catalogs and grown ones. The events asked for are those that the split keeps back, which no count contains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from scipy.optimize import minimize

from recjax.config import RunConfig
from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries
from recjax.data.dataset import Dataset
from recjax.data.items import Items
from recjax.data.splits import Examples, Split, few_shot
from recjax.evaluate.evaluator import sampled
from recjax.evaluate.metrics import user_metrics
from recjax.evaluate.ranking import rank_users
from recjax.models.evidence import Evidence, EvidenceModel, listwise
from recjax.models.model import ItemStats
from recjax.train.catalogs import open_catalogs
from recjax.train.task import device_items, item_stats
from recjax.typing import Array, Bool, Float, Params

KEPT = 200
"""Linked items of a query that the softmax goes over: those with the largest signals."""

QUERIES = 128
METRIC = "ndcg@10"


@dataclass(frozen=True, eq=False)
class CountedCatalog:
    """A catalog with its evidence, ready to be asked.

    Attributes:
        model: for the catalog.
        items: its items with their links, on the devices.
        examples: what is asked.
        config: of the run.
    """

    model: EvidenceModel
    items: Items
    examples: Examples
    config: RunConfig

    def ndcg(self, params: Params) -> np.ndarray:
        """float64 [n], ndcg@10 of each example in the whole catalog, histories masked."""
        ranked = rank_users(self.model, params, self.examples, self.config.data.view, str, self.items)
        return user_metrics(ranked.ranks)[METRIC]


def counted(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    asked: Examples,
    *,
    share: float = 1.0,
    textless: float = 0.0,
    users: int | None = None,
) -> CountedCatalog:
    """A catalog at some stage.

    Args:
        config: of the evidence model.
        dataset: the catalog.
        split: its training events count.
        asked: what to ask, events that are not counted.
        share: of the training users whose events count, 0 to 1.
        textless: share of the items that lose their texts.
        users: examples to ask, a fixed sample.
    """
    split = at_share(split, share)
    if textless:
        dataset = without_texts(dataset, textless)
    catalogs = open_catalogs(config, [(dataset, split)], None)
    model = config.model.build(item_stats(dataset, split, catalogs))
    return CountedCatalog(model, device_items(catalogs, [dataset])[0], sampled(asked, users), config)


def at_share(split: Split, share: float) -> Split:
    """The split with the training events of a share of the users, which may be 0."""
    if share == 1:
        return split
    few = few_shot(split, share or 1.0)
    return few if share else replace(few, train=few.train.take(np.zeros(0, np.int64)), before_test=None)


def without_texts(dataset: Dataset, share: float) -> Dataset:
    """The dataset with the texts of a share of its items gone, always the same ones."""
    kept = pl.Series(np.random.default_rng(0).random(dataset.n_items) >= share)
    columns = [pl.when(kept).then(pl.col(name)).alias(name) for name in dataset.catalog.columns if name != "item_id"]
    fingerprint = f"{dataset.fingerprint} without texts {share:g}"
    return replace(dataset, catalog=dataset.catalog.with_columns(columns), fingerprint=fingerprint)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Questions:
    """Examples as the learner sees them: those whose target is among the linked items.

    Attributes:
        features: of the linked items with the largest signals and of two that nothing links to, lest the learned
            weights rank those first; in the order of `FEATURES`.
        listed: which of them are items.
        hit: which of them is the target.
        known: what weights depend on.
        weight: of each example; a catalog's weights sum to 1.
    """

    features: Float[Array, "n m f"]
    listed: Bool[Array, "n m"]
    hit: Bool[Array, "n m"]
    known: Float[Array, "n d"]
    weight: Float[Array, " n"]


def questions(catalog: CountedCatalog, *, shuffled: bool = False) -> Questions:
    """The examples of a catalog.

    Args:
        catalog: with its evidence.
        shuffled: give every example another one's target, so that there is nothing to learn but what is popular.
    """
    examples, view = catalog.examples, catalog.config.data.view
    targets = examples.targets
    if shuffled:
        targets = np.random.default_rng(0).permutation(targets)

    parts = []
    for queries, rows in query_batches(examples, view, catalog.model.n_items, QUERIES):
        asked = np.where(rows >= 0, targets[rows], 0).astype(np.int32)
        found = jax.tree.map(np.asarray, _strongest(catalog.model.config, queries, asked, catalog.items))
        pointed = found[2].any(axis=1)  # without a hit there is nothing to learn
        parts.append([array[pointed] for array in found])
    features, listed, hit, known = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Questions(features, listed, hit, known, np.full(len(hit), 1 / max(len(hit), 1), np.float32))  # pyright: ignore


@partial(jax.jit, static_argnames="config")
def _strongest(config: Evidence, queries: Queries, targets: Array, items: Items) -> tuple[Array, ...]:
    """Features, which are items, hits, and what weights depend on; compiled once for all stages of a catalog."""
    model = config.build(ItemStats(0, np.zeros(1, np.int64)))
    found = model.found(queries, items)
    others, there = model.unlinked(found, queries.seen, items)
    place = jax.lax.top_k(jnp.max(found.signals, axis=2), min(KEPT, found.listed.shape[1]))[1]
    listed = jnp.take_along_axis(found.listed, place, axis=1)
    features = jnp.take_along_axis(found.features, place[..., None], axis=1)
    features = jnp.concatenate([features, others.features], axis=1)
    hit = (listed == targets[:, None]) & (listed > 0)
    return features, jnp.concatenate([listed > 0, there], axis=1), jnp.pad(hit, ((0, 0), (0, 2))), found.known


def learn(catalogs: Sequence[Questions], start: Params, l2: float) -> Params:
    """Weights with the least mean loss over catalogs, each weighing the same, pulled to those of `start`.

    Args:
        catalogs: what to learn from.
        start: the untrained weights.
        l2: of the squared distance to `start`.
    """
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), *catalogs)
    first = np.asarray(start["gate"], np.float32)

    @jax.jit
    @jax.value_and_grad
    def loss(gate: Array, asked: Questions) -> Array:
        logits = jnp.einsum("nmf,nf->nm", asked.features, asked.known @ gate)
        total, _ = listwise(jnp.where(asked.listed, logits, -jnp.inf), asked.hit, asked.weight)
        return total / len(catalogs) + l2 * jnp.sum((gate - first) ** 2)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(jnp.asarray(x.reshape(first.shape), jnp.float32), whole)
        return float(value), np.asarray(slope, np.float64).ravel()

    best: Any = minimize(function, first.ravel().astype(np.float64), jac=True, method="L-BFGS-B")
    return {"gate": np.asarray(best.x, np.float32).reshape(first.shape)}


def selected(
    tried: Mapping[float, Params], start: Params, catalogs: Sequence[CountedCatalog]
) -> tuple[tuple[float | None, Params], dict[float, tuple[float, float]]]:
    """The weights with the best mean ndcg@10 on catalogs that were not learned from.

    The untrained weights win unless others are better by two standard errors over users: what learned nothing falls
    back to them.

    Args:
        tried: weights by their `l2`.
        start: the untrained weights.
        catalogs: to select on; each weighs the same.

    Returns:
        (l2, weights), l2 being None for the untrained ones; and for each tried the gain over these and its standard
        error.
    """
    base = [catalog.ndcg(start) for catalog in catalogs]
    chosen: tuple[float | None, Params] = (None, start)
    best, table = 0.0, {}
    for l2, params in tried.items():
        gains = [catalog.ndcg(params) - own for catalog, own in zip(catalogs, base, strict=True)]
        gain = float(np.mean([each.mean() for each in gains]))
        error = float(np.sqrt(sum(each.var() / len(each) for each in gains)) / len(gains))
        table[l2] = (gain, error)
        if gain > max(best, 2 * error):
            chosen, best = (l2, params), gain
    return chosen, table
