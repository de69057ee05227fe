"""A small dataset with repeats, cold targets and an awkward number of users, and models made of two tables."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from recjax.data.building import build
from recjax.data.dataset import Dataset
from recjax.data.importers import RawLogs
from recjax.data.item_table import item_table
from recjax.data.splits import LeaveOneOut, Split
from recjax.data.views import Queries, Shifted
from recjax.ops.topk import masked_rank, masked_topk

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
class TwoTables:
    """A user is the sum of the `inputs` rows of the window; an item's score is its product with `outputs`."""

    items: int
    catalog = None

    def init(self, key, batch):
        del key, batch
        rng = np.random.default_rng(1)
        return {"inputs": self._draw(rng), "outputs": self._draw(rng)}

    def _draw(self, rng):
        return rng.integers(-2, 3, (self.items + 3, 4)).astype(np.float32)  # small integers: exact, with many ties

    def users(self, params, queries: Queries):
        window = jnp.arange(queries.items.shape[1])[None] < queries.lengths[:, None]
        return jnp.sum(jnp.asarray(params["inputs"])[queries.items] * window[..., None], axis=1)

    def loss(self, params, batch, key):
        pytest.fail("evaluation asked for the training loss")

    def rank(self, params, queries, k, candidates=None):
        users = self.users(params, queries)
        return masked_topk(users, params["outputs"], queries.seen, k, candidates=candidates, n_items=self.items)

    def target_rank(self, params, queries, targets, candidates=None):
        users = self.users(params, queries)
        return masked_rank(users, params["outputs"], targets, queries.seen, candidates=candidates, n_items=self.items)


class Prepared(TwoTables):
    """The same, its `outputs` read from the prepared catalog that queries carry."""

    def __init__(self, items: int):
        super().__init__(items)
        nothing = np.zeros((items + 3, 1), np.float32)
        object.__setattr__(self, "catalog", item_table(nothing, np.ones(items + 3, bool)))

    def prepare(self, params, catalog):
        return replace(catalog, represented=jnp.asarray(params["outputs"]))

    def rank(self, params, queries, k, candidates=None):
        return super().rank({**params, "outputs": queries.catalog.represented}, queries, k, candidates)

    def target_rank(self, params, queries, targets, candidates=None):
        return super().target_rank({**params, "outputs": queries.catalog.represented}, queries, targets, candidates)


def scores(params, history: np.ndarray) -> np.ndarray:
    """float64 [items + 1]: what `TwoTables` gives every item after a history."""
    inputs, outputs = (np.asarray(params[name], np.float64) for name in ("inputs", "outputs"))
    values = outputs @ inputs[history[-VIEW.max_length :]].sum(axis=0)
    return values[: len(outputs) - 2]
