"""Mender: what is wanted steers what is generated, preferences come from histories, and five axes are measured."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.histories import Histories
from recjax.data.batches.views import Batch, Queries, Shifted
from recjax.data.items import CODES, VECTORS, bare_items
from recjax.data.splits import Examples
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.steering import Steering, matched, partners
from recjax.models.mender import Mender
from recjax.models.model import ItemStats
from recjax.typing import InputError
from tests.descent import descent

KINDS, MEMBERS, ROWS, LENGTH = 4, 3, 64, 3
ITEMS, SIZES = KINDS * MEMBERS, (KINDS, MEMBERS)
KIND, MEMBER = np.divmod(np.arange(ITEMS), MEMBERS)
RANDOM = np.random.default_rng(0)


def column(rows: np.ndarray) -> jax.Array:
    return jnp.asarray(np.concatenate([rows[:1] * 0, rows]))


COLUMNS = {
    CODES: column(np.stack([KIND, MEMBER], axis=1).astype(np.int32)),
    "kinds": column(np.eye(KINDS, dtype=np.float32)[KIND]),
    VECTORS: column(RANDOM.normal(size=(ITEMS, 5)).astype(np.float32)),
}
CATALOG = bare_items(ITEMS, COLUMNS)
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {name: x.shape[1:] for name, x in COLUMNS.items()}, SIZES)
CONFIG = Mender(
    width=16, layers=1, heads=2, channels=8, inner=32, dropout=0.0, codes=4, beam=ITEMS, memory=2, unwanted=0.3
)
MODEL = CONFIG.build(STATS)


def walks(seed: int) -> Batch:
    """Any items, and then one of the kind of the last or of the one before, as nobody can know."""
    random = np.random.default_rng(seed)
    items = random.integers(1, ITEMS + 1, (ROWS, LENGTH)).astype(np.int32)
    like = np.take_along_axis(items, random.integers(1, LENGTH, (ROWS, 1)), axis=1)
    target = 1 + (like - 1) // MEMBERS * MEMBERS + random.integers(0, MEMBERS, (ROWS, 1))
    last = np.arange(LENGTH) == LENGTH - 1
    ones = np.ones_like(items)
    return Batch(items, ones, ones * 0, np.where(last, target, 0), (ones * last).astype(np.float32))  # pyright: ignore


@cache
def params() -> Any:
    """After 200 steps, compiled once."""
    batches = jax.tree.map(lambda *arrays: np.stack(arrays), *(walks(seed) for seed in range(200)))

    @jax.jit
    def trained() -> Any:
        start = MODEL.init(jax.random.key(0), walks(0), CATALOG)
        return descent(lambda params, batch, key: MODEL.loss(params, batch, CATALOG, key), start, batches)[0]

    return trained()


def examples() -> Examples:
    batch = walks(1000)
    starts = np.arange(ROWS) * LENGTH
    items = np.asarray(batch.items).reshape(-1)
    histories = Histories(
        items=items,
        starts=starts,
        stops=starts + LENGTH,
        users=np.arange(ROWS),
        timestamps=np.zeros(len(items), np.int64),
    )
    return Examples(histories, np.asarray(batch.targets)[:, -1], np.zeros(ROWS, np.int64))


def test_what_is_wanted_is_generated_and_what_is_not_is_not():
    queries = Queries(walks(7).items, walks(7).items * 0, np.full(ROWS, LENGTH), np.zeros((ROWS, 1), np.int32))  # pyright: ignore
    wanted = 1 + MEMBERS * RANDOM.integers(0, KINDS, (ROWS, 1))

    @jax.jit
    def listed(params: Any, preferences: Any) -> Any:
        return MODEL.steered(params, queries, CATALOG, preferences).topk(queries.seen, MEMBERS)[0]

    share = [
        float((KIND[np.asarray(listed(params(), sign * wanted)) - 1] == KIND[wanted - 1]).mean()) for sign in (1, -1)
    ]
    assert share[0] > 0.8 and share[1] < 0.15, share


def test_preferences_of_histories():
    rows = np.array([[1, 5, 7], [4, 0, 0], [0, 0, 0]], np.int32)
    batch = replace(walks(0), items=rows)
    assert np.asarray(MODEL.recent(batch)).tolist() == [[7, 5], [4, 0], [0, 0]]
    assert np.asarray(MODEL.stated(batch, "last")).tolist() == [[7, 0], [4, 0], [0, 0]]
    assert not np.asarray(MODEL.stated(batch, "none")).any()
    found = MODEL.matched(batch, jnp.array([6, 1, 1]), CATALOG)
    assert np.asarray(found).tolist() == [[0, 5], [4, 0], [0, 0]]
    assert matched(np.array([[7, 5]]), np.array([6]), np.asarray(COLUMNS["kinds"])).tolist() == [[5]]


def test_the_five_axes():
    asked = examples()
    split: Any = SimpleNamespace(test=asked, validation=asked, examples=lambda which: asked)
    facts = {"name": "d", "whole": "", "fingerprint": "f", "n_users": ROWS, "n_items": ITEMS, "left_out": 0}
    dataset: Any = SimpleNamespace(
        **facts, user_ids=np.arange(ROWS).astype(str), item_ids=np.arange(ITEMS + 1).astype(str)
    )
    data = EvaluationData(dataset, split, Shifted(LENGTH, align="left", targets=1), CATALOG)
    steering = Steering(memory=2, users=None, k=3, users_per_batch=ROWS, bootstrap=0)
    report = steering.evaluate(MODEL, params(), data, floors=False)
    found = {name: each.get("hr@5", 0.0) for name, each in report.metrics.items()}
    assert found["oracle"] > found["last"] + 0.05 and found["last"] > found["none"] - 0.05
    assert report.metrics["fine"]["raised"] >= 0.5 and report.metrics["coarse"]["raised"] > 0.7
    assert report.metrics["sentiment"]["success@3"] > 0.5
    blind = replace(data, items=replace(CATALOG, columns={**COLUMNS, "kinds": COLUMNS["kinds"] * 0}))
    found = steering.evaluate(MODEL, params(), blind, floors=False).metrics
    assert found["fine"]["raised"] == found["coarse"]["raised"] == 0.5
    near, far = partners(np.array([1, 2, 4]), np.asarray(COLUMNS["kinds"]))
    assert near.tolist()[:2] == [1, 0] and far.tolist()[0] == 2


def test_what_lacks_kinds_or_takes_no_preferences_says_so():
    with pytest.raises(InputError, match="Mender reads the vectors 'kinds'"):
        CONFIG.build(ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (2,), VECTORS: (5,)}, SIZES))
    data: Any = SimpleNamespace(items=None)
    with pytest.raises(InputError, match="compares items by the column 'kinds'"):
        Steering()._kinds(data)
