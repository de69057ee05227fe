"""A small dataset with repeats, cold targets and an awkward number of users, and models made of two tables."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from recjax.data.batches.views import Queries, Shifted
from recjax.data.dataset import Dataset
from recjax.data.importers import RawLogs
from recjax.data.prepare.build import build
from recjax.data.splits import LeaveOneOut, Split
from recjax.decode.scoring import DotProduct
from recjax.models.model import Model

USERS, ITEMS = 53, 30
VIEW = Shifted(max_length=6)


def dataset(users: int = USERS, items: int = ITEMS, seed: int = 0) -> Dataset:
    """Users with 3 to 15 events, every seventh target a repeat; the last item only ever is a target."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        events = rng.integers(0, items - 1, rng.integers(3, 16)) ** 2 // (items - 1)
        if user % 7 == 0:
            events[-1] = events[0]
        if user % 11 == 1:
            events[-1] = items - 1
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(events)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    words = ["red", "green", "blue", "round", "square", "lamp", "chair", "desk"]
    titles = [" ".join(rng.choice(words, 3)) if item % 5 else None for item in range(items)]
    catalog = pl.DataFrame({"item_id": [f"i{item}" for item in range(items)], "title": titles})
    return build(RawLogs("toy", events, catalog, {}))


def split(data: Dataset) -> Split:
    return LeaveOneOut().split(data)


@dataclass(frozen=True)
class TwoTables(Model):
    """A user is the sum of the `inputs` rows of the window; an item's score is its product with `outputs`."""

    size: int

    @property
    def n_items(self):
        return self.size

    def init(self, key, batch, items):
        del key, batch, items
        rng = np.random.default_rng(1)
        return {"inputs": self._draw(rng), "outputs": self._draw(rng)}

    def _draw(self, rng):
        return rng.integers(-2, 3, (self.size + 3, 4)).astype(np.float32)  # small integers: exact, with many ties

    def users(self, params, queries: Queries):
        window = jnp.arange(queries.items.shape[1])[None] < queries.lengths[:, None]
        return jnp.sum(jnp.asarray(params["inputs"])[queries.items] * window[..., None], axis=1)

    def loss(self, params, batch, items, key):
        pytest.fail("evaluation asked for the training loss")

    def scoring(self, params, queries, items):
        return DotProduct(self.users(params, queries), params["outputs"], self.size)


class Prepared(TwoTables):
    """The same, its `outputs` read from a column that it prepares."""

    def prepare(self, params, items):
        return {"outputs": jnp.asarray(params["outputs"])}

    def scoring(self, params, queries, items):
        return super().scoring({**params, "outputs": items.prepared["outputs"]}, queries, items)


def scores(params, history: np.ndarray) -> np.ndarray:
    """float64 [items + 1]: what `TwoTables` gives every item after a history."""
    inputs, outputs = (np.asarray(params[name], np.float64) for name in ("inputs", "outputs"))
    values = outputs @ inputs[history[-VIEW.max_length :]].sum(axis=0)
    return values[: len(outputs) - 2]
