"""Perplexity: how well a model that writes texts knows those of the held-out items, with the histories and without."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import numpy as np
import polars as pl

from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Queries
from recjax.data.items import Items, bare_items
from recjax.data.splits import Examples, Which
from recjax.evaluate.evaluator import EvaluationData, Evaluator, sampled
from recjax.evaluate.intervals import bootstrap_values
from recjax.evaluate.metrics import means
from recjax.evaluate.ranking import NonFiniteScoresError, SameModel, answered, few_shapes, replicated
from recjax.evaluate.report import TIES, Report, dataset_facts
from recjax.limits import COUNT, SEED, SIZE, require, within
from recjax.models.model import Model
from recjax.parallel.sharding import local_rows, row_sharding, to_devices
from recjax.typing import Array, Params

LIKELIHOOD = "likelihood"


@dataclass(frozen=True)
class Perplexity(Evaluator):
    """Log-likelihood of the held-out item's text after the history's texts ("all"), and by itself ("alone").

    `likelihood` is the mean over users of nats a token, below 0, and perplexity e to the minus likelihood. The first
    token of the text counts in neither, since nothing stands before it where it stands alone. Users whose item's text
    has fewer than two tokens are left out. Likelihoods by different tokenizers do not compare.

    Attributes:
        users: a sample of the users; None for all.
        split: which events.
        users_per_batch: queries of a batch over all devices.
        bootstrap: resamples of the users for the 95 % intervals; 0 for none.
        seed: of the bootstrap.
    """

    users: int | None = None
    split: Which = "test"
    users_per_batch: int = 64
    bootstrap: int = 1000
    seed: int = 0

    metrics: ClassVar[tuple[str, ...]] = (LIKELIHOOD,)

    def __post_init__(self) -> None:
        require(self, users=COUNT, users_per_batch=SIZE, bootstrap=within(0, 100_000), seed=SEED)

    def validate(self, model: Model, params: Params, data: EvaluationData, users: int | None) -> dict[str, float]:
        return means({LIKELIHOOD: self._likelihoods(model, params, data, sampled(data.split.validation, users))[1]})

    def evaluate(
        self,
        model: Model,
        params: Params,
        data: EvaluationData,
        *,
        floors: bool = True,
        name: str = "model",
        progress: bool = False,
    ) -> Report:
        examples, dataset = sampled(data.split.examples(self.split), self.users), data.dataset
        started = time.perf_counter()
        kept, own = self._likelihoods(model, params, data, examples, progress=progress)
        _, alone = self._likelihoods(model, params, data, examples, progress=progress, histories=False)
        values = {"all": {LIKELIHOOD: own}, "alone": {LIKELIHOOD: alone}}
        metrics = {group: means(each) for group, each in values.items()}
        metrics = {group: {**each, "perplexity": math.exp(-each[LIKELIHOOD])} for group, each in metrics.items()}
        gained = bootstrap_values({"gain": own - alone}, self.bootstrap, self.seed)
        notes = {"nats a token by the history": f"{(own - alone).mean():.4f}"}
        if gained:
            notes["nats a token by the history"] += " [{:.4f}, {:.4f}]".format(*gained["gain"])
        return Report(
            name=name,
            dataset=dataset_facts(dataset),
            protocol={"split": self.split, "candidates": "full", "mask_seen": "none", "tie": TIES},
            metrics=metrics,
            interval=bootstrap_values(values["all"], self.bootstrap, self.seed),
            floors={},
            counts={"users": len(kept), "alone": len(kept)},
            seconds=time.perf_counter() - started,
            audit=None,
            notes=model.notes | notes,
            users=pl.DataFrame(
                {
                    "user_id": [dataset.user_ids[user] for user in kept.histories.users],
                    "target": [dataset.item_ids[item] for item in kept.targets],
                    "history": kept.histories.lengths,
                    LIKELIHOOD: own,
                    f"{LIKELIHOOD}: alone": alone,
                }
            ),
        )

    def _likelihoods(
        self,
        model: Model,
        params: Params,
        data: EvaluationData,
        examples: Examples,
        *,
        progress: bool = False,
        histories: bool = True,
    ) -> tuple[Examples, np.ndarray]:
        """Examples that have a text, and float64 [n], nats a token of each."""
        sharding, totals = row_sharding(), np.zeros((len(examples), 2))
        items = bare_items(model.n_items) if data.items is None else data.items

        def ask(queries: Queries, rows: np.ndarray) -> tuple[Array, Array]:
            mine = rows[local_rows(sharding, len(rows))]
            targets = np.where(mine >= 0, examples.targets[mine], 0).astype(np.int32)
            (targets,) = to_devices((targets,), sharding, len(rows))
            given = queries if histories else replace(queries, items=queries.items[:, :1] * 0)
            return _likelihood(SameModel(model), params, given, targets, items)

        batches = query_batches(examples, data.view, model.n_items, self.users_per_batch, shapes=few_shapes(examples))
        for rows, found in answered(batches, ask, len(examples), self.users_per_batch, progress, "reading"):
            totals[rows] = np.stack(found, axis=1)
        if not (finite := np.isfinite(totals).all(axis=1)).all():
            raise NonFiniteScoresError.of([data.dataset.user_ids[user] for user in examples.histories.users[~finite]])
        kept = np.flatnonzero(totals[:, 1])
        return examples.take(kept), totals[kept, 0] / totals[kept, 1]


@partial(jax.jit, static_argnames="identity")
def _likelihood(
    identity: SameModel, params: Params, queries: Queries, targets: Array, items: Items
) -> tuple[Array, Array]:
    return jax.tree.map(replicated, identity.model.text_likelihood(params, queries, targets, items))
