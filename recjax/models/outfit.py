"""OutfitTransformer: sets of items, whether they go together and what completes them.

Sarkar et al., OutfitTransformer: Learning Outfit Representations for Fashion Recommendation, WACV 2023.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.decode.scoring import DotProduct
from recjax.limits import COUNT, at_least, require
from recjax.mixers.attention import Attention
from recjax.mixers.stack import Stack
from recjax.models.model import ItemStats, Model, Rules, WeightedSums
from recjax.models.parts.encoder_config import EncoderConfig
from recjax.models.parts.objectives import Negatives
from recjax.models.parts.set_encoder import Pool, SetEncoder
from recjax.ops.focal import focal
from recjax.ops.items.embedding import lookup, table_rows
from recjax.typing import Array, Float, Int, Params


@dataclass(frozen=True)
class OutfitTransformer(EncoderConfig):
    """A set encoder: attention without positions over a set's items and a token that says what is asked of it.

    The state of the target token finds the missing item, by the objective; that of the outfit token says whether the
    set is a real one, by a focal loss against sets whose items are all drawn anew by popularity. Here items are known
    by ids alone, both tasks are trained at once, and the missing item by an objective of the library; the paper has
    images and texts, compatibility first, and a hinge loss of distances.

    The view is `Cloze`, whose masked items are the missing ones; data.pack is false.

    Attributes, beside those of `EncoderConfig`:
        pool: "attention", or "process" for the read-process blocks of Vinyals et al., or "mean", which leaves out what
            items say together: the control.
        steps: reads of "process".
        compatibility: factor of the focal loss; 0 leaves it out.
        focus: its gamma.
    """

    norm: Literal["pre"] = "pre"
    heads: int = 4
    dropout: float = 0.3
    pool: Pool = "attention"
    steps: int = 5
    compatibility: float = 1.0
    focus: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, steps=COUNT, compatibility=at_least(0), focus=at_least(0))

    @property
    def longest(self) -> int | None:
        return None

    def stack(self) -> Stack:
        mixers = (Attention(heads=self.heads, dropout=self.dropout),)
        return self.blocks(mixers, 2 * self.width, causal=False, activation="gelu")

    def build(self, stats: ItemStats) -> "OutfitModel":
        return OutfitModel(self, SetEncoder(self.stack(), self.pool, self.steps), stats)


@dataclass(frozen=True)
class OutfitModel(Model):
    """The built model; `asked` are the target token and the outfit token, `judge` reads the latter."""

    config: OutfitTransformer
    module: SetEncoder
    stats: ItemStats

    @property
    def packing(self) -> bool:
        return False

    def init(self, key: Array, batch: Batch, items: Items) -> Params:
        width, keys = self.config.width, jax.random.split(key, 3)
        rows = {"items": table_rows(self.n_items + 1), "asked": 2}
        drawn = {
            name: 0.02 * jax.random.normal(k, (n, width)) for (name, n), k in zip(rows.items(), keys, strict=False)
        }
        network: Any = self.module.init(
            keys[2], jnp.zeros((1, width)), jnp.zeros((1, 2, width)), jnp.ones((1, 2), bool)
        )
        return {**drawn, "judge": jnp.zeros(width), "level": jnp.zeros(()), **network.get("params", {})}

    def states(self, params: Params, token: int, sets: Int[Array, "n l"], key: Array | None) -> Float[Array, "n d"]:
        """States of sets of items, 0 where there is none, for the target token (0) or the outfit token (1)."""
        network = {name: params[name] for name in ("encoder", "process") if name in params}
        members = lookup(params["items"], sets) * self.config.width**0.5
        asked = jnp.broadcast_to(params["asked"][token], (len(sets), self.config.width))
        rngs = None if key is None else {"dropout": key}
        found: Any = self.module.apply({"params": network}, asked, members, sets > 0, rngs=rngs)
        return found

    def compatible(self, params: Params, sets: Int[Array, "n l"], key: Array | None = None) -> Float[Array, " n"]:
        """Logits of whether sets are real ones."""
        return self.states(params, 1, sets, key) @ params["judge"] + params["level"]

    def given(self, rows: Batch | Queries) -> Int[Array, "b l"]:
        """The items of each set that are not missing."""
        return jnp.where(rows.items <= self.n_items, rows.items, 0)

    def loss(self, params: Params, batch: Batch, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        drawn, *keys = jax.random.split(jax.random.key(0) if key is None else key, 5)
        drops: Any = keys if key is not None else [None] * 4
        state = self.states(params, 0, self.given(batch), drops[0])
        hidden = jnp.broadcast_to(state[:, None], (*batch.items.shape, state.shape[-1]))
        total = self.config.loss(hidden, params["items"], None, batch, keys[3], self.stats)
        weight = jnp.sum(batch.weights)
        loss, sums = total / jnp.maximum(weight, 1.0), {"objective": (total, weight)}
        if self.config.compatibility:
            real = jnp.where(batch.targets > 0, batch.targets, self.given(batch))
            made = jnp.where(real > 0, Negatives(1, "popularity").draw(batch, drawn, self.stats)[..., 0], 0)
            logits = self.compatible(params, real, drops[1]), -self.compatible(params, made, drops[2])
            there = jnp.any(real > 0, axis=1).astype(jnp.float32)
            part, count = sum(jnp.sum(there * focal(x, self.config.focus)) for x in logits), 2 * jnp.sum(there)
            sums["compatibility"] = (jnp.asarray(part), count)
            loss += self.config.compatibility * part / jnp.maximum(count, 1.0)
        return loss, {"loss": (loss * weight, weight), **sums}

    def scoring(self, params: Params, queries: Queries, items: Items) -> DotProduct:
        return DotProduct(self.states(params, 0, self.given(queries), None), params["items"], self.n_items)

    def sharding_rules(self) -> Rules:
        return [("^items$", ("model", None)), (".*", ())]
