"""ColaRec: sets without an order, heads of each slot, negatives that the user has not, and what each part is worth."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, bare_items
from recjax.models.colarec import ColaRec
from recjax.models.model import ItemStats
from recjax.tokenizers.hierarchical import HierarchicalKMeans
from recjax.tokenizers.tokenizer import tokenize
from recjax.typing import InputError
from tests.drawn import drawn_for

ITEMS, SIZES = 18, (3, 3, 4)
RANDOM = np.random.default_rng(0)
VECTORS = np.concatenate([np.zeros((1, 4)), RANDOM.normal(size=(ITEMS, 4))]).astype(np.float32)
KNOWN = np.arange(ITEMS + 1) > 0
TUPLES = (
    np.array(
        [
            "000",
            "220",
            "100",
            "210",
            "211",
            "110",
            "010",
            "200",
            "201",
            "020",
            "101",
            "021",
            "120",
            "000",
            "011",
            "001",
            "221",
            "121",
            "111",
        ],
        "U3",
    )
    .view("U1")
    .reshape(-1, 3)
    .astype(np.int32)
)
"""Codes of the items, see `found`."""
COLUMNS = {
    CODES: jnp.asarray(TUPLES),
    "behaviour": jnp.asarray(VECTORS),
    "words": jnp.asarray(RANDOM.integers(0, 9, (ITEMS + 1, 2)).astype(np.int32)),
}
CATALOG = bare_items(ITEMS, COLUMNS)
STATS = ItemStats(
    ITEMS, np.ones(ITEMS + 1), {name: x.shape[1:] for name, x in COLUMNS.items()}, SIZES, {"words": (9, 9)}
)
CONFIG = ColaRec(width=8, layers=1, heads=2, channels=4, inner=16, dropout=0.0, codes=8, beam=ITEMS)
MODEL = CONFIG.build(STATS)
MASK = ITEMS + 1
ROWS = np.array([[1, 2, MASK, 4], [5, MASK, 7, 0]], np.int32)
AT = ROWS == MASK
BATCH = Batch(ROWS, (ROWS > 0).astype(np.int32), ROWS * 0, np.where(AT, 3, 0), AT.astype(np.float32))  # pyright: ignore[reportArgumentType]


@cache
def found() -> Any:
    """The tokenizer's codes of the items' vectors."""
    return tokenize(HierarchicalKMeans(slots=2, clusters=3), VECTORS, KNOWN, jax.random.key(0))


@cache
def params() -> Any:
    found = drawn_for(MODEL.init, jax.random.key(0), BATCH, CATALOG)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), found)


@cache
def losses(atomic: bool) -> Any:
    model = replace(MODEL, config=replace(CONFIG, atomic=atomic))
    found = jax.jit(lambda params, key: model.loss(params, BATCH, CATALOG, key))
    return lambda key: found(params(), key)


def test_codes_split_clusters_evenly_and_are_of_one_item_each():
    codes = found().codes.codes[1:]
    np.testing.assert_array_equal(found().codes.codes, TUPLES)
    assert found().codes.sizes == SIZES
    assert len({tuple(row) for row in codes.tolist()}) == ITEMS
    sizes = np.bincount(codes[:, 0], minlength=3)
    assert sizes.min() >= 4 and sizes.max() <= 8
    again = tokenize(found().tokenizer, VECTORS, KNOWN, state=found().state)
    np.testing.assert_array_equal(again.codes.codes, TUPLES)
    first = next(found().tokenizer.candidates(found().state, VECTORS[3:4])[0])
    assert first == tuple(TUPLES[3, :2].tolist())


def test_an_item_that_is_drawn_is_none_of_the_users_and_one_that_is_alike_shares_a_leaf():
    draw = jax.jit(lambda key: MODEL.drawn(BATCH, jnp.array([3, 3]), CATALOG, key))
    leaves = TUPLES[:, :2]
    for number in range(20):
        negative, alike, known = map(np.asarray, draw(jax.random.key(number)))
        assert negative[0] not in (1, 2, 3, 4) and negative[1] not in (3, 5, 7)
        assert ((negative >= 1) & (negative <= ITEMS)).all()
        assert (alike != 3).all() and ((leaves[alike] == leaves[3]).all(axis=1) | ~known).all()


def test_parts_of_the_loss():
    loss, sums = losses(True)(None)
    mean = {name: float(total / weight) for name, (total, weight) in sums.items()}
    expected = 0.08 * (mean["generated"] + mean["index"]) + mean["ranking"] + 0.1 * mean["contrast"]
    np.testing.assert_allclose([loss, mean["loss"]], expected, rtol=1e-5)
    without = losses(False)(None)[1]
    assert abs(float(without["generated"][0] / sums["generated"][0]) - 1) > 1e-5
    first, second = (losses(True)(jax.random.key(number))[0] for number in (1, 2))
    assert abs(first - second) > 1e-5  # another order and another negative


def test_masks_and_padding_are_not_read_and_heads_are_of_a_slot_each():
    queries = Queries(ROWS, ROWS * 0, np.array([4, 3]), ROWS[:, :0])  # pyright: ignore[reportArgumentType]
    longer = replace(queries, items=np.pad(ROWS, [(0, 0), (0, 2)]))
    every = jnp.tile(jnp.arange(1, ITEMS + 1), (2, 1))
    exact = replace(MODEL, config=replace(CONFIG, beam=None))

    @jax.jit
    def scores(params: Any) -> Any:
        return [exact.scoring(params, each, CATALOG).scores(every) for each in (queries, longer)]

    found, padded = scores(params())
    np.testing.assert_allclose(found, padded, rtol=1e-4, atol=1e-4)
    head = params()["head"]
    assert head.shape == params()["tokens"].shape  # input tables and heads apart
    start, stop = MODEL.tokens.span(2)
    assert stop - start == SIZES[2]
    other = {**params(), "head": head.at[start:stop].multiply(-1.0)}
    assert np.abs(scores(other)[0] - found).max() > 1e-2


def test_a_catalog_without_words_is_refused():
    with pytest.raises(InputError, match="ColaRec reads 'words'"):
        CONFIG.build(replace(STATS, columns={CODES: (3,)}))
