"""Reformer: attention among events that a random hash puts in one bucket."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from recjax.limits import LENGTH, SEED, SIZE, divides, refuse, require, within
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.ops.attention.lsh import lsh_attention
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class Reformer:
    """Attention by locality sensitive hashing with shared queries and keys (Kitaev et al. 2020).

    An event sees the latest `window - 1` events of its history that hash into its bucket (the nearest on both sides
    where not causal), in each of `rounds` hashes. What is not exact: pairs that share no bucket, or are further apart
    in it, are left out; a pair that meets in several rounds counts as often; an event sees itself only where nothing
    else is. Sorting is by bucket and place, so what an event sees never depends on later events. The paper's reversible
    layers, which save memory in training, are left to `Stack.remat`.

    Attributes:
        heads: number of heads; divides the width.
        buckets: of a hash; even.
        rounds: hashes.
        window: events of a bucket that an event sees to a side, itself among them.
        seed: of the hashes' random directions, which are constants.
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


class ReformerMixer(nn.Module):
    """See `Reformer`."""

    config: Reformer
    width: int
    causal: bool
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l d"],
        context: SeqContext,
        *,
        source: Array | None = None,
        last: Array | None = None,
        state: None = None,
    ) -> Array:
        if source is not None:
            raise InputError("Reformer takes queries, keys and values from one stream")
        config = self.config
        # In float32: a rounding would move an event to another bucket.
        query = self._dense("query", jnp.dtype("float32"))(x)
        value = self._dense("value", self.dtype)(x)
        query, value = (part.reshape(*x.shape[:2], config.heads, -1).swapaxes(1, 2) for part in (query, value))
        rotations = _rotations(config.seed, config.rounds, self.width // config.heads, config.buckets // 2)
        mixed = lsh_attention(
            query, value, context.segments, jnp.asarray(rotations), window=config.window, causal=self.causal
        )
        mixed = mixed.swapaxes(1, 2).reshape(x.shape)
        return self._dense("output", self.dtype)(mixed if last is None else take_position(mixed, last))

    def _dense(self, name: str, dtype: Any) -> nn.Dense:
        return nn.Dense(self.width, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)


@cache
def _rotations(seed: int, rounds: int, channels: int, directions: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rounds, channels, directions), np.float32)
