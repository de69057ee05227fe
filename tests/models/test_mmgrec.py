"""MMGRec: histories without order, attention that knows the user, items alone at the ends of codes, several targets."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, bare_items
from recjax.models.mmgrec import MMGRec, RelatedBlock
from recjax.models.model import ItemStats
from recjax.models.parts.flat_codes import codes_of
from recjax.text.lm.t5 import Block, T5Config
from recjax.typing import InputError
from tests.drawn import drawn_for

ITEMS, SIZES, MASK = 12, (4, 3, 3), 13
RANDOM = np.random.default_rng(0)
TUPLES = np.stack(np.unravel_index(RANDOM.permutation(36)[: ITEMS + 1], SIZES), axis=1).astype(np.int32)
VECTORS = np.concatenate([np.zeros((1, 5)), RANDOM.normal(size=(ITEMS, 5))]).astype(np.float32)
CATALOG = bare_items(ITEMS, {CODES: jnp.asarray(TUPLES), "graph": jnp.asarray(VECTORS)})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (3,), "graph": (5,)}, SIZES)
CONFIG = MMGRec(width=8, layers=2, heads=2, channels=4, inner=16, dropout=0.0, codes=4, beam=None, targets=2)
MODEL = CONFIG.build(STATS)
ROWS = np.array([[1, 2, MASK, 4, MASK], [5, MASK, 7, 8, 0]], np.int32)
TARGETS = np.array([[0, 0, 3, 0, 9], [0, 6, 0, 0, 0]], np.int32)
BATCH = Batch(ROWS, (ROWS > 0).astype(np.int32), ROWS * 0, TARGETS, (TARGETS > 0).astype(np.float32))  # pyright: ignore[reportArgumentType]
EVERY = jnp.tile(jnp.arange(1, ITEMS + 1), (2, 1))


def queries(rows: Any) -> Queries:
    return Queries(rows, rows * 0, (rows > 0).sum(axis=1), rows[:, :0])  # pyright: ignore[reportArgumentType]


@cache
def params() -> Any:
    found = drawn_for(MODEL.init, jax.random.key(0), BATCH, CATALOG)
    return jax.tree.map(lambda x: x + 0.5 * np.random.default_rng(x.size).standard_normal(x.shape, np.float32), found)


@cache
def scores() -> Any:
    """Compiled: parameters, rows -> log-probabilities of all items."""
    return jax.jit(lambda params, rows: MODEL.scoring(params, queries(rows), CATALOG).scores(EVERY))


def test_the_order_of_a_history_says_nothing_and_masks_and_padding_are_not_read():
    found = scores()(params(), ROWS)
    np.testing.assert_allclose(scores()(params(), ROWS[:, [3, 2, 4, 1, 0]]), found, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores()(params(), np.where(ROWS == MASK, 0, ROWS)), found, rtol=1e-5, atol=1e-5)
    other = np.where(ROWS == 4, 10, ROWS)
    assert np.abs(scores()(params(), other)[0] - found[0]).max() > 1e-2


def reference(block: Any, x: np.ndarray, user: np.ndarray, held: np.ndarray, heads: int) -> np.ndarray:
    """One block by loops over heads, queries and keys; RMS norms have the default epsilon of T5."""

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale

    y, channels = norm(x, block["own_norm"]["scale"]), block["shared_0"]["kernel"].shape[1]
    q, k, v = (y @ block["own"][name]["kernel"] for name in ("query", "key", "value"))
    s = []
    for n in range(3):
        inner, outer = block[f"inner_{n}"], block[f"outer_{n}"]
        s.append(float((np.maximum(user @ inner["kernel"] + inner["bias"], 0) @ outer["kernel"] + outer["bias"])[0]))
    uq, uk, uv = (s[n] * (y @ block[f"shared_{n}"]["kernel"]) for n in range(3))
    mixed = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * channels, (head + 1) * channels)
        for i in range(len(x)):
            a = np.array([q[i, part] @ k[j, part] + uq[i] @ uk[j] if held[j] else -np.inf for j in range(len(x))])
            a = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
            mixed[i, part] = sum(a[j] * (v[j, part] + uv[j]) for j in range(len(x)))
    x = x + mixed @ block["own"]["output"]["kernel"]
    y = norm(x, block["feed_forward_norm"]["scale"])
    return x + np.maximum(y @ block["feed_forward"]["up"]["kernel"], 0) @ block["feed_forward"]["down"]["kernel"]


def test_relation_aware_attention_is_its_formula_and_plain_without_the_user():
    config = T5Config(4, width=8, heads=2, channels=4, inner=16, dropout=0.0)
    x, user = RANDOM.normal(size=(1, 4, 8)).astype(np.float32), RANDOM.normal(size=(1, 5)).astype(np.float32)
    held = np.array([True, True, False, True])
    bias = np.where(held, 0.0, -1e30).astype(np.float32)[None, None, None]
    block = params()["related_0"]

    def related(params: Any, user_term: bool = True) -> Any:
        module = RelatedBlock(config, False, user_term)
        return module.apply({"params": params}, x, bias, user, method=RelatedBlock.related)

    found, off = jax.jit(related)(block), jax.jit(lambda params: related(params, False))(block)
    expected = reference(block, x[0], user[0], held, heads=2)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)
    silent = {name: jax.tree.map(jnp.zeros_like, each) if "outer" in name else each for name, each in block.items()}
    plain = jax.jit(lambda params: Block(config, False).apply({"params": params}, x, bias))(block)
    np.testing.assert_allclose(off, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(related)(silent), plain, rtol=1e-5, atol=1e-5)
    assert np.abs(found - plain).max() > 1e-2


def test_a_user_is_the_mean_of_the_items_that_are_read():
    """Of a history of one item twice and one once the mean is another than of each once."""
    once, twice = np.array([[1, 2, 0]] * 2, np.int32), np.array([[1, 1, 2]] * 2, np.int32)
    silent = jax.tree.map_with_path(lambda path, x: x * 0 if "outer" in str(path) else x, params())
    moved = [np.abs(scores()(each, once) - scores()(each, twice)).max() for each in (params(), silent)]
    assert min(moved) > 1e-3 and abs(moved[0] - moved[1]) > 1e-3


def test_the_loss_is_that_of_each_target_by_itself():
    loss, sums = jax.jit(lambda params: MODEL.loss(params, BATCH, CATALOG, None))(params())
    rows, targets = ROWS[[0, 0, 1]], jnp.array([3, 9, 6])
    found = jax.jit(lambda params: MODEL.log_likelihood(params, queries(rows), targets, CATALOG))(params())
    np.testing.assert_allclose(loss, -np.mean(found), rtol=1e-5)
    assert float(sums["loss"][1]) == 3
    assert codes_of(CATALOG, targets).shape == (3, 3)
    fewer = replace(MODEL, config=replace(CONFIG, targets=1))
    loss, sums = jax.jit(lambda params: fewer.loss(params, BATCH, CATALOG, None))(params())
    np.testing.assert_allclose(loss, -np.mean(found[jnp.array([0, 2])]), rtol=1e-5)


def test_codes_of_no_item_are_never_generated():
    """All chances of a search over the trie are of items: three codes have 36 tuples, 12 of which are items."""
    found = np.asarray(scores()(params(), ROWS))
    narrow = replace(MODEL, config=replace(CONFIG, beam=4))
    items, values = jax.jit(
        lambda params: narrow.scoring(params, queries(ROWS), CATALOG).topk(jnp.zeros((2, 0), int), 4)
    )(params())
    items, values = np.asarray(items), np.asarray(values)
    assert np.isfinite(found).all() and ((items >= 0) & (items <= ITEMS)).all()
    for row in range(2):
        listed = items[row][items[row] > 0]
        assert len(set(listed.tolist())) == len(listed) > 0
        np.testing.assert_allclose(values[row][items[row] > 0], found[row, listed - 1], rtol=1e-4, atol=1e-4)


def test_a_catalog_without_vectors_is_refused():
    with pytest.raises(InputError, match="MMGRec reads 'graph'"):
        CONFIG.build(replace(STATS, columns={CODES: (3,)}))
