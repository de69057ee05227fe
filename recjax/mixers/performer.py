"""Performer: softmax attention estimated by random features, in linear time and with a state of one size."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from recjax.limits import SEED, SIZE, divides, require
from recjax.mixers.mixer import Capabilities, Mixer, at_last, from_heads, to_heads
from recjax.mixers.parts.outer import empty, read
from recjax.typing import Array, Float


@dataclass(frozen=True)
class Performer:
    """Causal attention through positive orthogonal random features (FAVOR+, Choromanski et al. 2021).

    A query and a key weigh phi(q) phi(k) with phi(x) = exp(w x - |x|^2 / 2) over random directions w, whose mean over w
    is exp(q k): an unbiased estimate of softmax attention's weights, whose error falls with the root of the number of
    features and grows with the norms of queries and keys. The sums over the past are a state of one size.

    The directions are constants drawn from `seed`, the same for all heads; they are no parameters. The exponent of a
    key is at most |w|^2 / 2, so keys need no maximum subtracted, which would depend on the future.

    Attributes:
        heads: number of heads; divides the width.
        features: random directions.
        seed: random seed of the directions.
    """

    heads: int = 1
    features: int = 64
    seed: int = 0

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=True, separate_query=True, memory="constant", seq_sharded=True
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE, features=SIZE, seed=SEED)

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "PerformerMixer":
        divides(self, "heads", width, "the width")
        return PerformerMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> Float[Array, "b h f e"]:
        """Sums over the past of features times values, and of features: the last column."""
        return empty(rows, self.heads, self.features, width // self.heads + 1)


class PerformerMixer(Mixer):
    """See `Performer`."""

    config: Performer

    def mix(self, x, source, context, last, state):
        # Padding must not reach an exponential.
        valid = context.valid[:, None, :, None]
        query, key, value = (
            jnp.where(valid, to_heads(self.dense(name)(stream), self.config.heads), 0)
            for name, stream in (("query", x), ("key", source), ("value", source))
        )
        weights = directions(self.config.seed, self.config.features, query.shape[-1])
        query, key = _features(query, weights, peak=True), _features(key, weights, peak=False)
        counted = jnp.concatenate([value.astype(jnp.float32), jnp.ones((*value.shape[:3], 1))], axis=-1)
        sums, after = read(query, key, counted, None, context, state)
        mixed = (sums[..., :-1] / jnp.maximum(sums[..., -1:], 1e-12)).astype(self.dtype)
        return self.dense("output")(at_last(from_heads(mixed), last)), after


def _features(x: Float[Array, "b h l c"], weights: np.ndarray, *, peak: bool) -> Float[Array, "b h l f"]:
    """Positive features in float32; with `peak` divided by the largest of each vector, which cancels in a query."""
    x = x.astype(jnp.float32) * x.shape[-1] ** -0.25
    projected = jnp.einsum("bhlc,fc->bhlf", x, weights)
    if peak:
        projected -= jax.lax.stop_gradient(jnp.max(projected, axis=-1, keepdims=True))
    else:
        projected -= jnp.sum(jnp.square(x), axis=-1, keepdims=True) / 2
    return (jnp.exp(projected) + 1e-6) / math.sqrt(weights.shape[0])


@cache
def directions(seed: int, features: int, channels: int) -> np.ndarray:
    """float32 [features, channels]: Gaussian directions, orthogonal to each other within each `channels` of them."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(math.ceil(features / channels)):
        frame, triangle = np.linalg.qr(rng.standard_normal((channels, channels)))
        # Without the signs the frames would not be uniform (Mezzadri 2007), and the estimate biased.
        blocks.append((frame * np.sign(np.diag(triangle))).T)
    norms = np.linalg.norm(rng.standard_normal((features, channels)), axis=1, keepdims=True)
    return (np.concatenate(blocks)[:features] * norms).astype(np.float32)
