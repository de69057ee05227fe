"""Product quantisation: the parts of a rotated vector, each with the code of its centroid; no code refines another.

Jegou et al., Product Quantization for Nearest Neighbor Search, TPAMI 2011; its rotation: Ge et al., CVPR 2013.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import LENGTH, require, within
from recjax.ops.kmeans import HIGHEST, assign, kmeans, lloyd_round
from recjax.tokenizers.collisions import Policy, Tuple
from recjax.tokenizers.fsq import cheapest
from recjax.tokenizers.item_codes import State
from recjax.tokenizers.preparation import Preparation, check_enough, fit_preparation, prepared
from recjax.tokenizers.tokenizer import EqualSlots
from recjax.tokenizers.training import Trainer
from recjax.typing import Array, Float, InputError, Int


@dataclass(frozen=True)
class PQ(EqualSlots):
    """Vectors are rotated and cut into `slots` parts; k-means of each part gives a code. Codes have no order.

    Attributes:
        slots: parts; must divide the width of the vectors.
        clusters: centroids of each part.
        iterations: rounds of k-means, of each part.
        rotations: rounds in which the rotation is fitted to the centroids and these to it (OPQ), after a start that
            deals the principal directions out to the parts; 0 leaves the coordinates as they are.
        prepare: "standardise", "whiten" or "none"; see `recjax.tokenizers.preparation`.
        collisions: "none", "suffix", "nearest-free" or "random"; see `recjax.tokenizers.collisions`.
    """

    slots: int = 16
    clusters: int = 256
    iterations: int = 25
    rotations: int = 10
    prepare: Preparation = "none"
    collisions: Policy = "nearest-free"

    def __post_init__(self) -> None:
        bounds = within(0, 10_000)
        require(self, slots=within(1, 64), clusters=LENGTH, iterations=bounds, rotations=bounds)

    @property
    def ordered(self) -> bool:
        return False

    def fit(self, vectors: np.ndarray, known: np.ndarray, key: Array, trainer: Trainer | None = None) -> dict[str, Any]:
        """Learns the preparation, the rotation [d, d] and the centroids, float32 [slots, clusters, d / slots].

        Args:
            vectors: float32 [n + 1, d], row 0 padding.
            known: bool [n + 1], the items that have one; the others are not looked at.
            key: of the seeding.
            trainer: not needed.

        Raises:
            InputError: fewer items than clusters, or the slots do not divide the width.
        """
        del trainer
        check_enough(known, self.clusters)
        if (width := vectors.shape[1]) % self.slots:
            raise InputError(f"vectors of {width} coordinates cannot be cut into tokenizer.slots = {self.slots} parts")
        preparation = fit_preparation(vectors[known], self.prepare)
        ready = jnp.asarray(prepared(preparation, vectors, known)[known])
        rotation = jnp.asarray(_balanced(np.asarray(ready), self.slots) if self.rotations else np.eye(width))
        centroids = _seeded(_parts(ready @ rotation, self.slots), key, self.clusters, self.iterations)
        for _ in range(self.rotations):
            rotation = _fitted_rotation(ready, ready @ rotation, centroids)
            centroids = _moved(_parts(ready @ rotation, self.slots), centroids)
        return {"preparation": preparation, "rotation": np.asarray(rotation), "centroids": np.asarray(centroids)}

    def encode(self, state: State, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Codes int32 [n + 1, slots], row 0 zeros. An item without a vector gets those of a vector of zeros."""
        parts = self._rotated(state, vectors, known)
        codes = np.array(_nearest(parts, jnp.asarray(state["centroids"])).T, np.int32)
        codes[0] = 0
        return codes

    def candidates(self, state: State, vectors: np.ndarray) -> Sequence[Iterator[Tuple]]:
        """For each vector [m, d], all tuples, the nearest first: by the sum of squared distances of its parts."""
        parts = np.asarray(self._rotated(state, vectors, np.ones(len(vectors), bool)))
        return [nearest_tuples(own, np.asarray(state["centroids"])) for own in parts.swapaxes(0, 1)]

    def _rotated(self, state: State, vectors: np.ndarray, known: np.ndarray) -> Float[Array, "slots n p"]:
        return _parts(prepared(state["preparation"], vectors, known) @ state["rotation"], self.slots)


def nearest_tuples(parts: Float[np.ndarray, "slots p"], centroids: Float[np.ndarray, "slots k p"]) -> Iterator[Tuple]:
    """All tuples of a vector in parts, by the sum of squared distances to the centroids."""
    distances = np.square(parts[:, None] - centroids).sum(axis=-1, dtype=np.float64)
    order = np.argsort(distances, axis=1, kind="stable")
    costs = np.take_along_axis(distances, order, axis=1)
    each = zip(order.tolist(), (costs - costs[:, :1]).tolist(), strict=True)
    yield from cheapest([list(zip(own, codes, strict=True)) for codes, own in each])


def _balanced(vectors: Float[np.ndarray, "n d"], slots: int) -> Float[np.ndarray, "d d"]:
    """Principal directions, the largest first, each given to the part whose variances have the least product so far."""
    variances, directions = np.linalg.eigh(np.cov(vectors.T.astype(np.float64)))
    logs = np.log(np.maximum(variances, 1e-12 * variances.max() + 1e-30))
    logs -= logs.min()  # so that every further direction makes a product larger
    room, products, order = len(logs) // slots, np.zeros(slots), [list[int]() for _ in range(slots)]
    for place in np.argsort(-variances).tolist():
        part = min((part for part in range(slots) if len(order[part]) < room), key=products.__getitem__)
        order[part].append(place)
        products[part] += logs[place]
    return directions[:, np.concatenate(order)].astype(np.float32)


def _parts(vectors: Float[Array, "n d"], slots: int) -> Float[Array, "slots n p"]:
    return jnp.swapaxes(jnp.asarray(vectors).reshape(len(vectors), slots, -1), 0, 1)


@partial(jax.jit, static_argnames=("clusters", "iterations"))
def _seeded(parts: Float[Array, "slots n p"], key: Array, clusters: int, iterations: int) -> Float[Array, "slots k p"]:
    keys = jax.random.split(key, len(parts))
    return jax.lax.map(lambda own: kmeans(own[0], clusters, own[1], iterations=iterations), (parts, keys))


@jax.jit
def _moved(parts: Float[Array, "slots n p"], centroids: Float[Array, "slots k p"]) -> Float[Array, "slots k p"]:
    return jax.lax.map(lambda own: lloyd_round(*own), (parts, centroids))


@jax.jit
def _nearest(parts: Float[Array, "slots n p"], centroids: Float[Array, "slots k p"]) -> Int[Array, "slots n"]:
    return jax.lax.map(lambda own: assign(*own)[0], (parts, centroids))


@jax.jit
def _fitted_rotation(
    vectors: Float[Array, "n d"], rotated: Float[Array, "n d"], centroids: Float[Array, "slots k p"]
) -> Float[Array, "d d"]:
    """The rotation that brings vectors nearest to what their codes now stand for (Procrustes)."""
    codes = _nearest(_parts(rotated, len(centroids)), centroids)
    stood_for = jax.vmap(lambda own, codes: own[codes], out_axes=1)(centroids, codes)
    left, _, right = jnp.linalg.svd(jnp.matmul(vectors.T, stood_for.reshape(vectors.shape), precision=HIGHEST))
    return left @ right
