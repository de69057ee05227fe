"""A toy model with frozen parameters: a table of codes, integers among them, and a switch."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from recjax.nn.groups import FROZEN
from tests.train.toy import ITEMS, WIDTH, ToyModel


@dataclass(frozen=True)
class FrozenToy(ToyModel):
    """The toy model, whose hidden units are shifted by a frozen vector of the item's group, times a frozen switch."""

    groups: int = 4

    def init(self, key, batch, items):
        frozen = {
            "centroids": 0.5 * jax.random.normal(jax.random.fold_in(key, 7), (self.groups, WIDTH)),
            "group": jnp.arange(ITEMS + 1, dtype=jnp.int32) % self.groups,
            "switch": jnp.ones(()),
        }
        return {**super().init(key, batch, items), FROZEN: frozen}

    def loss(self, params, batch, items, key):
        frozen = params[FROZEN]
        shift = frozen["switch"] * frozen["centroids"][frozen["group"]]
        return super().loss({**params, "items": params["items"] + shift}, batch, items, key)


@dataclass(frozen=True)
class Refreshed(FrozenToy):
    """The same with centroids of the last states of samples, from noise at first, and a switch for the second epoch.

    Attributes:
        every: what is declared.
        touches: a trained parameter that a refresh wrongly changes, or "".
    """

    every: int | Literal["epoch"] | None = "epoch"
    touches: str = ""

    @property
    def refresh_every(self):
        return self.every

    def states(self, params, batch, items):
        del items
        hidden = jnp.tanh(params["items"][batch.items] @ params["dense"]["kernel"] + params["dense"]["bias"])
        return {"state": hidden, "item": batch.items}

    def refresh(self, params, items, sweep):
        found = sweep(self.states)
        group = np.arange(len(found["item"])) % self.groups
        centroids = np.stack([found["state"][group == number].mean(axis=0) for number in range(self.groups)])
        noise = 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(1), sweep.step), centroids.shape)
        frozen = {**params[FROZEN], "centroids": centroids + noise, "switch": jnp.float32(sweep.epoch > 0)}
        return {**params, FROZEN: frozen, **({self.touches: params[self.touches] + 1} if self.touches else {})}
