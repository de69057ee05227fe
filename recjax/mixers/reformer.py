"""Reformer: attention among events that a random hash puts in one bucket."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from recjax.limits import LENGTH, SEED, SIZE, divides, refuse, require, within
from recjax.mixers.mixer import Capabilities, Mixer, at_last, from_heads, to_heads
from recjax.ops.attention.lsh import lsh_attention
from recjax.typing import InputError


@dataclass(frozen=True)
class Reformer:
    """Attention by locality sensitive hashing with shared queries and keys (Kitaev et al. 2020).

    An event sees the latest `window - 1` events of its history that hash into its bucket (the nearest on both sides
    where not causal), in each of `rounds` hashes. What is not exact: pairs that share no bucket, or are further apart
    in it, are left out; a pair that meets in several rounds counts as often; an event sees itself only where it
    sees nothing else. Sorting is by bucket and place, so what an event sees never depends on later events. In place of
    the paper's reversible layers, `Stack.remat` saves memory in training.

    Attributes:
        heads: number of heads; divides the width.
        buckets: of a hash; even.
        rounds: hashes.
        window: events of a bucket that an event sees to a side, itself among them.
        seed: random seed of the hashes' directions, which are constants.
    """

    heads: int = 1
    buckets: int = 8
    rounds: int = 2
    window: int = 32
    seed: int = 0

    capabilities: ClassVar[Capabilities] = Capabilities(causal=True, bidirectional=True)

    def __post_init__(self) -> None:
        require(self, heads=SIZE, buckets=LENGTH, rounds=within(1, 64), window=LENGTH, seed=SEED)
        if self.buckets % 2:
            refuse(self, "buckets", "an even number")

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "ReformerMixer":
        divides(self, "heads", width, "the width")
        return ReformerMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> None:
        raise InputError("Reformer keeps no state: its histories are read whole")


class ReformerMixer(Mixer):
    """See `Reformer`."""

    config: Reformer

    def mix(self, x, source, context, last, state):
        config = self.config
        # In float32: a rounding would move an event to another bucket.
        query = to_heads(self.dense("query", dtype=jnp.float32)(x), config.heads)
        value = to_heads(self.dense("value")(x), config.heads)
        rotations = _rotations(config.seed, config.rounds, self.width // config.heads, config.buckets // 2)
        mixed = lsh_attention(
            query, value, context.segments, jnp.asarray(rotations), window=config.window, causal=self.causal
        )
        return self.dense("output")(at_last(from_heads(mixed), last)), None


@cache
def _rotations(seed: int, rounds: int, channels: int, directions: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rounds, channels, directions), np.float32)
