"""DiscRec: TIGER whose inputs are of two branches, what a code means and what it is within its item.

Liu et al., DiscRec: Disentangled Semantic-Collaborative Modeling for Generative Recommendation, 2025.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch
from recjax.data.items import Items
from recjax.limits import COUNT, refuse, require
from recjax.models.model import ItemStats, WeightedSums
from recjax.models.tiger import TIGER, TIGERModel
from recjax.nn.dense import Dense
from recjax.nn.norm import LayerNorm
from recjax.text.lm.t5 import T5, FeedForward, T5Config
from recjax.typing import Array, Bool, Float, Int, Params


@dataclass(frozen=True)
class DiscRec(TIGER):
    """`TIGER` whose encoder and decoder read, in place of a token's vector E,

        a E + (1 - a) C,    (a, 1 - a) = softmax(E . w_s, C . w_c)

    C is what the codes of one item make of each other: attention among them alone, of E and a position within the item,
    and a feed-forward network. Encoder and decoder have branches of their own; the decoder's sees the codes before.

    Attributes:
        branch_heads: attention heads among the codes of an item; must divide the width.
        collaborative: False leaves a = 1: TIGER.
    """

    branch_heads: int = 2
    collaborative: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, branch_heads=COUNT)
        if self.width % self.branch_heads:
            refuse(self, "branch_heads", f"a divisor of the width, {self.width}")

    def build(self, stats: ItemStats) -> TIGERModel:
        if not self.collaborative:
            return super().build(stats)
        tokens = self.tokens(stats)
        module = DualT5(self.network(tokens), len(stats.code_sizes), self.branch_heads)
        return DiscRecModel(self, module, tokens, stats)


class Branches(nn.Module):
    """Vectors of the codes of one item, each beside a branch in which they see each other.

    Attributes:
        config: of the network whose inputs they are.
        places: rows of the table of positions within an item.
        heads: attention heads.
    """

    config: T5Config
    places: int
    heads: int

    @nn.compact
    def __call__(
        self, own: Float[Array, "*b t d"], places: Int[Array, " t"], visible: Bool[Array, "t t"]
    ) -> tuple[Float[Array, "*b t d"], Float[Array, "*b t d"], Float[Array, "*b t"]]:
        """The mixture that the network reads, the branch C, and a.

        Args:
            own: vectors of the tokens, E.
            places: position of each within the item, 0 for the start.
            visible: which sees which.
        """
        width, dtype, init = own.shape[-1], own.dtype, nn.initializers.normal
        table = self.param("places", init(0.02), (self.places, width))
        x = LayerNorm(dtype=dtype)(own + table[places].astype(dtype))
        q, k, v = (
            Dense(width, use_bias=False, dtype=dtype, kernel_init=init(width**-0.5), name=name)(x).reshape(
                *x.shape[:-1], self.heads, -1
            )
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("...lhc,...mhc->...hlm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(scores, axis=-1, where=visible).astype(dtype)
        x = LayerNorm(dtype=dtype)(x + jnp.einsum("...hlm,...mhc->...lhc", weights, v).reshape(x.shape))
        branch = FeedForward(self.config)(x)
        pair = [
            jnp.einsum("...d,d->...", each.astype(jnp.float32), self.param(name, init(0.02), (width,)))
            for name, each in (("semantic", own), ("collaborative", branch))
        ]
        share = jax.nn.sigmoid(pair[0] - pair[1])
        mixed = share[..., None].astype(dtype)
        return mixed * own + (1 - mixed) * branch, branch, share


class DualT5(T5):
    """The encoder-decoder with two branches before encoder and decoder.

    Attributes:
        slots: codes of an item.
        branch_heads: see `DiscRec`.
    """

    slots: int = 1
    branch_heads: int = 2

    def setup(self) -> None:
        super().setup()
        self.read_branches, self.written_branches = (
            Branches(self.config, 1 + self.slots, self.branch_heads) for _ in range(2)
        )

    def __call__(self, tokens: Array, mask: Array, targets: Array) -> Array:
        states = self.encode(self.read(tokens)[0], mask)
        return self.logits(self.decode(self.written(targets), states, mask))

    def read(self, tokens: Int[Array, "b m"]) -> tuple[Array, Array, Array]:
        """Inputs of the encoder [b, m, d], the branch C, and a; padding is items of its own."""
        own = self.embed(tokens)
        each = own.reshape(len(own), -1, self.slots, own.shape[-1])
        everywhere = jnp.ones((self.slots, self.slots), bool)
        found = self.read_branches(each, 1 + jnp.arange(self.slots), everywhere)
        return found[0].reshape(own.shape), found[1].reshape(own.shape), found[2].reshape(own.shape[:-1])

    def written(self, tokens: Int[Array, "*b t"]) -> Float[Array, "*b t d"]:
        """Inputs of the decoder: the start and the codes of one item."""
        places = jnp.arange(tokens.shape[-1])
        return self.written_branches(self.embed(tokens), places, places[:, None] >= places)[0]


@dataclass(frozen=True)
class DiscRecModel(TIGERModel):
    """`DiscRec` built for a catalog; it logs `semantic`, the mean of a over the codes of the histories."""

    config: DiscRec
    module: DualT5

    def read(self, t5: Any, tokens: Int[Array, "b m"]) -> Float[Array, "b m d"]:
        return t5.read(tokens)[0]

    def written(self, t5: Any, tokens: Int[Array, "*b t"]) -> Float[Array, "*b t d"]:
        return t5.written(tokens)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        loss, sums = super().loss(params, batch, items, key)
        tokens, mask = self.tokens.history(batch, items)
        share = self._run(jax.lax.stop_gradient(params), lambda t5: t5.read(tokens)[2])
        return loss, {**sums, "semantic": (jnp.sum(jnp.where(mask, share, 0.0)), jnp.sum(mask.astype(jnp.float32)))}
