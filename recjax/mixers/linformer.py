"""Linformer: attention to a fixed number of learned mixtures of the row's events."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from recjax.limits import SIZE, divides, require
from recjax.mixers.mixer import Capabilities, Mixer, at_last, from_heads, to_heads
from recjax.ops.attention.dense import attend_keys
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class Linformer:
    """Bidirectional attention whose keys and values are projected along time, `length` to `rank` (Wang et al. 2020).

    Every mixture has a learned weight for every place of a row: rows are at most `length` long, and a history's place
    in its row matters. Past and future mix, so it is never causal and a row holds one history. Padding adds nothing to
    a mixture.

    Attributes:
        heads: number of heads; divides the width.
        length: largest number of positions of a row.
        rank: number of mixtures.
    """

    heads: int = 1
    length: int = 200
    rank: int = 32

    capabilities: ClassVar[Capabilities] = Capabilities(
        causal=False, bidirectional=True, packing=False, separate_query=True, positional=True
    )

    def __post_init__(self) -> None:
        require(self, heads=SIZE, length=SIZE, rank=SIZE)

    def build(self, *, width: int, causal: bool, dtype: Any, name: str) -> "LinformerMixer":
        divides(self, "heads", width, "the width")
        return LinformerMixer(self, width, causal, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> None:
        raise InputError("Linformer keeps no state: it sees both sides")


class LinformerMixer(Mixer):
    """See `Linformer`."""

    config: Linformer

    def mix(self, x, source, context, last, state):
        config, (rows, length, _) = self.config, x.shape
        if length > config.length:
            raise InputError(f"rows have {length} positions; this Linformer knows {config.length}")
        query, key, value = (
            to_heads(self.dense(name)(stream), config.heads)
            for name, stream in (("query", at_last(x, last)), ("key", source), ("value", source))
        )
        valid = context.valid[:, None, :, None]
        key, value = (
            jnp.einsum("lr,bhlc->bhrc", self._mixtures(name)[:length].astype(self.dtype), jnp.where(valid, part, 0))
            for name, part in (("key_mixtures", key), ("value_mixtures", value))
        )
        mixed = attend_keys(query, (key,), (value,), jnp.ones((rows, 1, config.rank), bool))
        return self.dense("output")(from_heads(mixed)), None

    def _mixtures(self, name: str) -> Float[Array, "l r"]:
        return self.param(name, nn.initializers.xavier_uniform(), (self.config.length, self.config.rank))
