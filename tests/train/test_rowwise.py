"""Adam by rows: the rows of the batch move as dense arithmetic says, the others do not move."""

import itertools
from functools import cache

import jax
import numpy as np
import pytest

from recjax.data.batches.views import Batch
from recjax.data.items import bare_items
from recjax.models.gsasrec import GSASRec
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import GBCE, FullSoftmax, SampledSoftmax
from recjax.models.sasrec import SASRec
from recjax.ops.items.row_gradients import joined_rows
from recjax.parallel.mesh import MeshShape
from recjax.train.optimiser import Adam
from recjax.train.state import abstract_start, initial_state, start_function
from recjax.train.step import make_train_step
from recjax.typing import InputError
from tests.drawn import drawn

ITEMS, ROWS, LENGTH = 500, 8, 6
BARE = bare_items(ITEMS)
SMALL = dict(width=8, layers=1, max_length=LENGTH, dropout=0.0)
# eps keeps gradients that are zero but for rounding (of key biases) from being blown up to steps of full size.
OPTIM = dict(learning_rate=0.1, clip=0.5, warmup_steps=2, eps=1e-3)


def batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    items = rng.integers(1, 40, (ROWS, LENGTH)).astype(np.int32)  # so that rows repeat, and most are never seen
    ones, places = np.ones_like(items), np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    return Batch(items, ones, places, np.roll(items, -1, axis=1), np.ones(items.shape, np.float32))  # pyright: ignore


CONFIGS = {
    "tied, by row": SASRec(**SMALL, loss=SampledSoftmax(4, share="row")),
    "tied, shared": SASRec(**SMALL, loss=SampledSoftmax(4, share="batch")),
    "two tables": GSASRec(**SMALL, loss=GBCE(4, share="position")),
}


BY_ROW, ALONE = "tied, by row", (1, 1, 1)


@cache
def compiled(name: str, sparse: bool, shape: tuple[int, int, int]):
    """A mesh, and on it: () -> state at the start, and the step."""
    model = CONFIGS[name].build(ItemStats(ITEMS, np.ones(ITEMS + 1)))
    mesh = MeshShape(*shape).build(jax.devices()[: int(np.prod(shape))])
    with jax.set_mesh(mesh):
        optimiser, key = Adam(**OPTIM, sparse=sparse).build(10, model.row_tables), jax.random.key(0)
        start = start_function(model, optimiser, ema=False)
        target = abstract_start(start, model, optimiser, batch(0), BARE, mesh, key=key)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
        begin = jax.jit(start, out_shardings=shardings)
        step = make_train_step(model, optimiser, shardings=(shardings, None))
        held = jax.device_put(drawn(target.params), shardings.params)
        return mesh, lambda: begin(key, batch(0), BARE, held), step


@cache
def run(name: str, sparse: bool = True, shape: tuple[int, int, int] = ALONE, poison: int | None = None):
    """Parameters before and after each of three steps, and the sums of each."""
    mesh, begin, step = compiled(name, sparse, shape)
    with jax.set_mesh(mesh):
        state = begin()
        found, sums = [jax.tree.map(np.asarray, state.params)], []
        for number in range(3):
            inputs = batch(number)
            if number == poison:
                inputs.weights[:] = np.nan  # pyright: ignore[reportIndexIssue]
            state, added = step(state, inputs, BARE)
            found.append(jax.tree.map(np.asarray, state.params))
            sums.append(jax.tree.map(np.asarray, added))
        return found, sums


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_step_is_that_of_dense_adam(name):
    """From moments of zero, dense Adam moves no row without a gradient either."""
    (rowwise, sums), (dense, expected) = run(name), run(name, sparse=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), rowwise[1], dense[1])
    np.testing.assert_allclose(sums[0]["grad_norm"][0], expected[0]["grad_norm"][0], rtol=1e-5)


def test_rows_keep_value_and_moments_until_they_are_seen_again():
    found, _ = run(BY_ROW)
    moved = [np.any(after["items"] != before["items"], axis=1) for before, after in itertools.pairwise(found)]
    for number, rows in enumerate(moved):
        seen = np.unique(batch(number).items)
        assert rows[seen].all()
        assert rows.sum() <= len(seen) + 4 * ROWS


def test_a_mesh_gives_the_same():
    expected, found = run(BY_ROW)[0][2], run(BY_ROW, shape=(4, 2, 1))[0][2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected)


def test_a_step_that_is_not_finite_changes_nothing():
    found, sums = run(BY_ROW, poison=1)
    assert sums[1]["finite"][0] == 0
    jax.tree.map(np.testing.assert_array_equal, found[2], found[1])


def test_repeated_rows_are_joined():
    ids = [np.array([[3, 1], [3, 0]]), np.array([1, 5])]
    values = [np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.full((2, 2), 10, np.float32)]
    found, sums = jax.device_get(jax.jit(joined_rows, static_argnums=2)(ids, values, 6))
    table = {int(row): total.tolist() for row, total in zip(found, sums, strict=True) if row < 6}
    assert table == {0: [6.0, 7.0], 1: [12.0, 13.0], 3: [4.0, 6.0], 5: [10.0, 10.0]}


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (SASRec(**SMALL, loss=FullSoftmax()), {}, "FullSoftmax looks at every item"),
        (CONFIGS["two tables"], {"accumulate": 2}, r"optim.sparse .*train.accumulate = 2"),
        (CONFIGS["two tables"], {"ema": 0.9}, r"optim.sparse .*train.ema"),
    ],
)
def test_what_it_cannot_serve_is_told(config, change, message):
    model = config.build(ItemStats(ITEMS, np.ones(ITEMS + 1)))
    optimiser = Adam(sparse=True).build(10, model.row_tables)
    state = jax.eval_shape(lambda key: initial_state(model, optimiser, batch(0), BARE, key, False), jax.random.key(0))
    with pytest.raises(InputError, match=message):
        make_train_step(model, optimiser, **change).lower(state, batch(0), BARE)  # pyright: ignore


def test_a_model_without_tables_is_refused():
    with pytest.raises(InputError, match=r"optim\.sparse"):
        Adam(sparse=True).build(10)
