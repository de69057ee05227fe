"""A toy model with frozen parameters: a table of codes, integers among them, and a switch."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recjax.nn.groups import FROZEN
from tests.train.toy import ITEMS, WIDTH, ToyModel


@dataclass(frozen=True)
class FrozenToy(ToyModel):
    """The toy model, whose hidden units are shifted by a frozen vector of the item's group, times a frozen switch."""

    groups: int = 4

    def init(self, key, batch):
        frozen = {
            "centroids": 0.5 * jax.random.normal(jax.random.fold_in(key, 7), (self.groups, WIDTH)),
            "group": jnp.arange(ITEMS + 1, dtype=jnp.int32) % self.groups,
            "switch": jnp.ones(()),
        }
        return {**super().init(key, batch), FROZEN: frozen}

    def loss(self, params, batch, key):
        frozen = params[FROZEN]
        shift = frozen["switch"] * frozen["centroids"][frozen["group"]]
        return super().loss({**params, "items": params["items"] + shift}, batch, key)

    def sharding_rules(self) -> list[tuple[str, tuple[Any, ...]]]:
        return [(r"(^|/)items$", ("model", None)), (r".*", ())]
