"""Hierarchical k-means with clusters of nearly equal size: each slot splits the cluster of the slots before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import LENGTH, require, within
from recjax.ops.balanced import balanced_kmeans
from recjax.tokenizers.collisions import Policy, Tuple
from recjax.tokenizers.item_codes import State
from recjax.tokenizers.preparation import Preparation, check_enough, fit_preparation, prepared
from recjax.tokenizers.tokenizer import EqualSlots
from recjax.tokenizers.training import Trainer
from recjax.typing import Array, Float


@dataclass(frozen=True)
class HierarchicalKMeans(EqualSlots):
    """k-means of the vectors, then of each cluster's own vectors, and so on (ColaRec); the suffix numbers the items of
    a leaf, so that tuples are of one item each.

    Clusters are balanced by prices on distances, which hold for items that come later too.

    Attributes:
        slots: levels before the suffix.
        clusters: of each level, below each cluster of the level before.
        iterations: of k-means, at each level.
        prepare: "standardise", "whiten" or "none"; see `recjax.tokenizers.preparation`.
        collisions: "none", "suffix", "nearest-free" or "random"; see `recjax.tokenizers.collisions`.
    """

    slots: int = 2
    clusters: int = 32
    iterations: int = 10
    prepare: Preparation = "none"
    collisions: Policy = "suffix"

    def __post_init__(self) -> None:
        require(self, slots=within(1, 4), clusters=LENGTH, iterations=within(0, 10_000))

    @property
    def ordered(self) -> bool:
        return True

    def fit(self, vectors: np.ndarray, known: np.ndarray, key: Array, trainer: Trainer | None = None) -> dict[str, Any]:
        """Learns the preparation, centroids [nodes, clusters, d] of each level, and prices [nodes, clusters].

        Args:
            vectors: float32 [n + 1, d], row 0 padding.
            known: bool [n + 1], the items that have one; the others are not looked at.
            key: of the seeding.
            trainer: not needed.
        """
        del trainer
        check_enough(known, self.clusters)
        preparation = fit_preparation(vectors[known], self.prepare)
        ready = prepared(preparation, vectors, known)[known]
        node, levels = np.zeros(len(ready), np.int64), {}
        for level in range(self.slots):
            nodes = self.clusters**level
            keys = jax.random.split(jax.random.fold_in(key, level), nodes)
            centroids, prices = jax.vmap(lambda own, key: balanced_kmeans(own, self.clusters, key, self.iterations))(
                jnp.asarray(_members(ready, node, nodes)), keys
            )
            levels[f"{level}"] = {"centroids": np.asarray(centroids), "prices": np.asarray(prices)}
            node = node * self.clusters + _nearest(ready, levels[f"{level}"], node)
        return {"preparation": preparation, "levels": levels}

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots], row 0 zeros. An item without a vector gets those of a vector of zeros."""
        ready = prepared(state["preparation"], vectors, known)
        node, columns = np.zeros(len(ready), np.int64), []
        for level in range(self.slots):
            columns.append(_nearest(ready, state["levels"][f"{level}"], node))
            node = node * self.clusters + columns[-1]
        codes = np.stack(columns, axis=1).astype(np.int32)
        codes[0] = 0
        return codes

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], all tuples, the nearest first at each level, the last level changing fastest."""
        ready = prepared(state["preparation"], vectors, np.ones(len(vectors), bool))
        return [self._tuples(row, state["levels"], 0, 0) for row in ready]

    def _tuples(self, vector: Float[np.ndarray, " d"], levels: State, level: int, node: int) -> Iterator[Tuple]:
        order = np.argsort(_distances(vector[None], levels[f"{level}"], np.array([node]))[0], kind="stable").tolist()
        for code in order:
            if level + 1 == self.slots:
                yield (code,)
            else:
                below = self._tuples(vector, levels, level + 1, node * self.clusters + code)
                yield from ((code, *codes) for codes in below)


def _members(vectors: np.ndarray, node: np.ndarray, nodes: int) -> np.ndarray:
    """float32 [nodes, m, d]: the vectors of each node, repeated up to the number of the largest; of a node without
    any, all of its level's first ones."""
    sizes = np.bincount(node, minlength=nodes)
    largest, order = int(sizes.max()), np.argsort(node, kind="stable")
    starts = np.cumsum(sizes) - sizes
    places = starts[:, None] + np.arange(largest) % np.maximum(sizes, 1)[:, None]
    return vectors[order[np.minimum(places, len(order) - 1)]].astype(np.float32)


def _distances(vectors: np.ndarray, level: State, node: np.ndarray) -> np.ndarray:
    """Squared distances [n, clusters] to the centroids of each vector's node, less the prices."""
    centroids = np.asarray(level["centroids"])[node]
    return np.square(vectors[:, None] - centroids).sum(axis=-1) - np.asarray(level["prices"])[node]


def _nearest(vectors: np.ndarray, level: State, node: np.ndarray) -> np.ndarray:
    parts = range(0, len(vectors), 1024)  # a part at a time, so that few differences exist at once
    return np.concatenate([_distances(vectors[p : p + 1024], level, node[p : p + 1024]).argmin(axis=1) for p in parts])
