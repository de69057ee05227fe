"""Static mixing: attention whose weights depend on less than learned queries and keys, for ablations."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from recjax.limits import RATE, SEED, SIZE, divides, require
from recjax.mixers.attention import Attention, AttentionMixer
from recjax.mixers.mixer import Capabilities, to_heads
from recjax.mixers.parts.cache import Cache
from recjax.typing import Array

Weights = Literal["uniform", "position", "random"]


@dataclass(frozen=True)
class StaticMixing:
    """Attention whose queries and keys are not learned; values and output are as in `Attention`.

    * `uniform`: all visible events weigh the same;
    * `position`: the weight depends on the gap in events alone, by a learned bias;
    * `random`: queries and keys are random projections of the stream that are never trained, drawn from `seed`.

    Of 500 million parameters trained on text, uniform stacks of such mixers fail and stacks in which every other layer
    is standard attention hardly lose: compare pattern "static_mixing" with "static_mixing, attention".

    Attributes:
        weights: source of the weights, see above.
        heads: number of heads; divides the width.
        dropout: rate on the weights.
        window: events that an event sees, as in `Attention`.
        seed: random seed of the projections; layers get different ones by a longer pattern.
    """

    weights: Weights = "uniform"
    heads: int = 1
    dropout: float = 0.0
    window: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, heads=SIZE, dropout=RATE, window=SIZE, seed=SEED)

    @property
    def attention(self) -> Attention:
        """The attention that shares everything but queries and keys."""
        relative = "events" if self.weights == "position" else "none"
        return Attention(self.heads, self.dropout, window=self.window, relative=relative)

    @property
    def capabilities(self) -> Capabilities:
        return self.attention.capabilities

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "StaticMixer":
        divides(self, "heads", width, "the width")
        return StaticMixer(self.attention, width, causal, dtype, self.weights, self.seed, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> tuple[Cache, ...]:
        channels = width // self.heads
        compared = channels if self.weights == "random" else 1
        return self.attention.caches((compared, channels), rows, max_length, dtype)


class StaticMixer(AttentionMixer):
    """See `StaticMixing`."""

    weights: Weights = "uniform"
    seed: int = 0

    def compared(self, queries: Array, source: Array) -> tuple[Array, Array]:
        heads = self.config.heads
        if self.weights != "random":
            # One channel of ones: all products are equal, and the softmax ignores a common term.
            return tuple(jnp.ones((x.shape[0], heads, x.shape[1], 1), self.dtype) for x in (queries, source))  # pyright: ignore

        def project(x: Array, part: int) -> Array:
            kernel = _projections(self.seed, self.width)[part].astype(self.dtype)
            return to_heads(x.astype(self.dtype) @ kernel, heads)

        return project(queries, 0), project(source, 1)


@cache
def _projections(seed: int, width: int) -> np.ndarray:
    """float32 [2, width, width]: for queries and for keys, of variance 1 / width."""
    return np.random.default_rng(seed).standard_normal((2, width, width), np.float32) / np.float32(width**0.5)
