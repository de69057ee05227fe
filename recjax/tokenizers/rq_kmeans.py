"""Residual k-means: each slot is the nearest centroid of what the slots before it left over."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import LENGTH, require, within
from recjax.ops.kmeans import assign, kmeans
from recjax.tokenizers.collisions import Policy, Tuple
from recjax.tokenizers.item_codes import State
from recjax.tokenizers.preparation import Preparation, check_enough, fit_preparation, prepared
from recjax.tokenizers.tokenizer import EqualSlots
from recjax.tokenizers.training import Trainer
from recjax.typing import Array, Float, Int


@dataclass(frozen=True)
class RQKMeans(EqualSlots):
    """k-means of the vectors, then k-means of the residuals, and so on: codes from coarse to fine.

    Attributes:
        slots: levels.
        clusters: centroids of each level.
        iterations: of k-means, at each level.
        prepare: "standardise", "whiten" or "none"; see `recjax.tokenizers.preparation`.
        collisions: "none", "suffix", "nearest-free" or "random"; see `recjax.tokenizers.collisions`.
    """

    slots: int = 4
    clusters: int = 256
    iterations: int = 25
    prepare: Preparation = "none"
    collisions: Policy = "suffix"

    def __post_init__(self) -> None:
        require(self, slots=within(1, 64), clusters=LENGTH, iterations=within(0, 10_000))

    @property
    def ordered(self) -> bool:
        return True

    def fit(self, vectors: np.ndarray, known: np.ndarray, key: Array, trainer: Trainer | None = None) -> dict[str, Any]:
        """Learns the preparation and the centroids, float32 [slots, clusters, d].

        Args:
            vectors: float32 [n + 1, d], row 0 padding.
            known: bool [n + 1], the items that have one; the others are not looked at.
            key: of the seeding.
            trainer: not needed.
        """
        del trainer
        check_enough(known, self.clusters)
        preparation = fit_preparation(vectors[known], self.prepare)
        residuals = jnp.asarray(prepared(preparation, vectors, known)[known])
        centroids = []
        for level in range(self.slots):
            found = kmeans(residuals, self.clusters, jax.random.fold_in(key, level), iterations=self.iterations)
            _, residuals = _level(residuals, found)
            centroids.append(np.asarray(found))
        return {"preparation": preparation, "centroids": np.stack(centroids)}

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots], row 0 zeros. An item without a vector gets those of a vector of zeros."""
        residuals = jnp.asarray(prepared(state["preparation"], vectors, known))
        columns = []
        for centroids in state["centroids"]:
            nearest, residuals = _level(residuals, centroids)
            columns.append(np.asarray(nearest))
        codes = np.stack(columns, axis=1).astype(np.int32)
        codes[0] = 0
        return codes

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], all tuples: first those that differ in the last level, by distance, then those that
        differ in the level before, with the levels after it nearest first again, and so on."""
        ready = prepared(state["preparation"], vectors, np.ones(len(vectors), bool))
        return [residual_tuples(row, state["centroids"]) for row in ready]


@jax.jit
def _level(
    residuals: Float[Array, "n d"], centroids: Float[Array, "k d"]
) -> tuple[Int[Array, " n"], Float[Array, "n d"]]:
    """Nearest centroid of each vector, and what it leaves over."""
    nearest, _ = assign(residuals, centroids)
    return nearest, residuals - centroids[nearest]


def residual_tuples(
    residual: Float[np.ndarray, " d"],
    centroids: Float[np.ndarray, "slots k d"],
    prices: Float[np.ndarray, " k"] | float = 0.0,
) -> Iterator[Tuple]:
    """All tuples of a vector, the nearest first, the last level changing fastest; `prices` are taken off its distances
    in the last level."""
    distances = np.square(centroids[0] - residual).sum(axis=-1)
    last = len(centroids) == 1
    for code in np.argsort(distances - prices if last else distances, kind="stable").tolist():
        if last:
            yield (code,)
        else:
            rest = residual_tuples(residual - centroids[0][code], centroids[1:], prices)
            yield from ((code, *codes) for codes in rest)
