"""What training, evaluation and recommendation know of a model."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from recjax.data.item_table import ItemTable
from recjax.data.views import Batch, Queries
from recjax.typing import Array, Params

WeightedSums = dict[str, tuple[Array, Array]]
"""Metric name -> (sum, weight): adding pairs over batches and devices keeps means unbiased."""


@dataclass(frozen=True)
class ItemStats:
    """What a model's config needs to know of the catalog before it can be built.

    Attributes:
        items: catalog size; item ids are 1..items.
        counts: int64 [items + 1], training interactions of each item (index 0 is padding, count 0).
        catalog: the items' vectors and codes, where the run says how to make them.
        code_sizes: codes that there are in each slot of the catalog's codes.
    """

    items: int
    counts: np.ndarray
    catalog: ItemTable | None = None
    code_sizes: tuple[int, ...] = ()


class Model(Protocol):
    """A built model: pure functions of parameters; it never reads a file and never keeps state."""

    @property
    def items(self) -> int:
        """Catalog size."""
        ...

    @property
    def catalog(self) -> ItemTable | None:
        """Vectors and codes of the items, which whoever calls the model passes along in batches and queries; None for
        a model that knows items by their ids."""
        ...

    def init(self, key: Array, batch: Batch) -> Params:
        """Parameters for batches shaped like `batch`."""
        ...

    def loss(self, params: Params, batch: Batch, key: Array | None) -> tuple[Array, WeightedSums]:
        """Weighted mean loss of a batch, and sums for logging; `sums["loss"]` is (sum, weight) of that mean.

        `key=None` switches dropout off and makes the loss deterministic.
        """
        ...

    def rank(self, params: Params, queries: Queries, k: int, candidates: Array | None = None) -> tuple[Array, Array]:
        """Best `k` items of each query: (items int32 [q, k], scores float32 [q, k]), best first.

        Seen items and padding are never returned (an exhausted list ends in item 0, score -inf); ties go to
        the smaller id. `candidates` bool [items + 1] restricts the catalog.
        """
        ...

    def target_rank(
        self, params: Params, queries: Queries, targets: Array, candidates: Array | None = None
    ) -> tuple[Array, Array]:
        """Rank of `targets` int32 [q] and its score: (ranks int32 [q], scores float32 [q]).

        The rank is 1 + the number of unseen items that score strictly higher + ties with a smaller id; the
        target itself always stands in the list, seen or not. A query whose scores are not all finite gets
        rank 0 and a NaN score, which evaluation refuses. `candidates` is bool [items + 1] for one list shared
        by all queries, or int32 [q, c] of item ids for sampled protocols.
        """
        ...


class ModelConfig(Protocol):
    """A frozen dataclass that says all about a model but the catalog."""

    def build(self, stats: ItemStats) -> Model: ...


class CatalogPreparer(Protocol):
    """Models of texts may make what they rank items by once for all queries, and not anew for each batch of them."""

    def prepare(self, params: Params, catalog: ItemTable) -> ItemTable:
        """The catalog with `represented`; queries that carry it are ranked as they are with the catalog as it was.

        It is of these parameters, and laid out like the table.
        """
        ...


class OwnArraysProvider(Protocol):
    """Models of texts may have parameters that know the items of one catalog.

    Such a model is of use on that catalog alone; started from a run without these parameters, they start afresh.
    """

    def own_arrays(self) -> tuple[str, ...]:
        """Names of these parameters, at the top of the tree."""
        ...


class ShardingRulesProvider(Protocol):
    """Models may say how their parameters are laid out: ordered (path pattern, axis names) pairs."""

    def sharding_rules(self) -> list[tuple[str, tuple[Any, ...]]]: ...
