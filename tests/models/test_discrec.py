"""DiscRec: items' codes see each other in the second branch alone, the first is TIGER's input, and beams are exact."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, bare_items
from recjax.models.discrec import DiscRec, DualT5
from recjax.models.model import ItemStats
from recjax.models.tiger import TIGERModel
from recjax.typing import InputError
from tests.drawn import drawn_for

ITEMS, SIZES = 12, (3, 4, 2)
TUPLES = np.stack(np.unravel_index(np.random.default_rng(0).permutation(24)[: ITEMS + 1], SIZES), axis=1)
CATALOG = bare_items(ITEMS, {CODES: jnp.asarray(TUPLES.astype(np.int32))})
STATS = ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (3,)}, SIZES)
CONFIG = DiscRec(width=8, layers=1, heads=2, channels=4, inner=16, dropout=0.0, codes=4, beam=ITEMS)
MODEL = CONFIG.build(STATS)
ROWS = np.array([[1, 2, 3, 0], [4, 5, 0, 0]], np.int32)
HELD = (ROWS > 0).astype(np.int32)
LAST = np.arange(4) == HELD.sum(1)[:, None] - 1
BATCH = Batch(ROWS, HELD, ROWS * 0, np.where(LAST, [[6], [7]], 0), LAST.astype(np.float32))  # pyright: ignore[reportArgumentType]


@cache
def params():
    found = drawn_for(MODEL.init, jax.random.key(0), BATCH, CATALOG)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), found)


@jax.jit
def read(params, tokens):
    """Inputs of the encoder, the branch of each code, and a."""
    return MODEL.module.apply({"params": params}, tokens, method=DualT5.read)


def test_a_code_changes_the_branch_of_its_own_item_alone_and_all_of_it():
    tokens = jnp.arange(1, 10)[None]
    before, after = read(params(), tokens)[1][0], read(params(), tokens.at[0, 4].set(11))[1][0]
    changed = np.abs(after - before).max(axis=1)
    assert (changed[3:6] > 1e-4).all() and not np.delete(changed, [3, 4, 5]).any()


def test_a_gate_that_is_open_reads_what_tiger_reads():
    gate = params()["read_branches"]
    own = params()["tokens"][1:4][None]
    away = {**gate, "collaborative": gate["collaborative"] * 0, "semantic": jnp.linalg.pinv(own[0]) @ jnp.full(3, 1e3)}
    mixed, _, share = read({**params(), "read_branches": away}, jnp.arange(1, 4)[None])
    np.testing.assert_allclose(mixed, own, atol=1e-5)
    np.testing.assert_allclose(share, 1.0)
    assert np.abs(read(params(), jnp.arange(1, 4)[None])[0] - own).max() > 1e-2


def test_searches_agree_with_teacher_forcing():
    queries = Queries(ROWS, ROWS * 0, HELD.sum(1), ROWS[:, :0])  # pyright: ignore[reportArgumentType]
    exact = replace(MODEL, config=replace(CONFIG, beam=None))

    @jax.jit
    def found(params):
        every = jnp.tile(jnp.arange(1, ITEMS + 1), (2, 1))
        lists = MODEL.scoring(params, queries, CATALOG).topk(queries.seen, ITEMS)
        forced = jax.vmap(lambda item: MODEL.log_likelihood(params, BATCH, jnp.full(2, item), CATALOG))(every[0])
        return (
            lists,
            exact.scoring(params, queries, CATALOG).scores(every),
            forced.T,
            MODEL.loss(params, BATCH, CATALOG, None),
        )

    (items, scores), exactly, forced, (loss, sums) = found(params())
    np.testing.assert_allclose(exactly, forced, atol=1e-5)
    np.testing.assert_allclose(scores, np.take_along_axis(np.asarray(forced), items - 1, axis=1), atol=1e-5)
    np.testing.assert_allclose(loss, -(forced[0, 5] + forced[1, 6]) / 2, rtol=1e-5)
    assert 0 < float(sums["semantic"][0] / sums["semantic"][1]) < 1


def test_without_its_branch_it_is_tiger():
    assert type(replace(CONFIG, collaborative=False).build(STATS)) is TIGERModel
    with pytest.raises(InputError, match=r"DiscRec\.branch_heads is 3, expected a divisor"):
        replace(CONFIG, branch_heads=3)
    with pytest.raises(InputError, match="DiscRec reads codes"):
        CONFIG.build(ItemStats(ITEMS, np.ones(ITEMS + 1)))
