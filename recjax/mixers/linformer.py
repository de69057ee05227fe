"""Linformer: attention to a fixed number of learned mixtures of the row's events."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from recjax.limits import SIZE, divides, require
from recjax.mixers.mixer import Capabilities, SeqContext
from recjax.ops.attention.dense import attend_keys
from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Float, InputError


@dataclass(frozen=True)
class Linformer:
    """Bidirectional attention whose keys and values are projected along time, `length` to `rank` (Wang et al. 2020).

    Every mixture has a learned weight for every place of a row, so a model knows no rows longer than `length`, where a
    history stands in its row matters, and a mixture knows no past from future: it is never causal, and a row holds one
    history. Padding adds nothing to a mixture.

    Attributes:
        heads: number of heads; divides the width.
        length: most positions of a row.
        rank: mixtures.
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
        if causal:
            raise InputError("Linformer sees both sides; it cannot be causal")
        return LinformerMixer(self, width, dtype, name=name)

    def init_state(self, *, width: int, rows: int, max_length: int, dtype: Any) -> None:
        raise InputError("Linformer keeps no state: it sees both sides")


class LinformerMixer(nn.Module):
    """See `Linformer`."""

    config: Linformer
    width: int
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
        config, length = self.config, x.shape[1]
        if length > config.length:
            raise InputError(f"rows have {length} positions; this Linformer knows {config.length}")
        source = x if source is None else source
        asking = x if last is None else take_position(x, last)[:, None]
        query, key, value = (
            self._dense(name)(stream).reshape(x.shape[0], -1, config.heads, self.width // config.heads).swapaxes(1, 2)
            for name, stream in (("query", asking), ("key", source), ("value", source))
        )
        valid = context.valid[:, None, :, None]
        key, value = (
            jnp.einsum("lr,bhlc->bhrc", self._mixtures(name)[:length].astype(self.dtype), jnp.where(valid, part, 0))
            for name, part in (("key_mixtures", key), ("value_mixtures", value))
        )
        allowed = jnp.ones((x.shape[0], 1, config.rank), bool)
        mixed = attend_keys(query, (key,), (value,), allowed).swapaxes(1, 2).reshape(x.shape[0], -1, self.width)
        y = self._dense("output")(mixed)
        return y if last is None else y[:, 0]

    def _mixtures(self, name: str) -> Float[Array, "l r"]:
        return self.param(name, nn.initializers.xavier_uniform(), (self.config.length, self.config.rank))

    def _dense(self, name: str) -> nn.Dense:
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)
