import gzip
import itertools
import threading

import jax
import numpy as np
import pytest

from recjax.data.batches import loader as module
from recjax.data.batches.loader import Data, Loader, open_data, query_batches
from recjax.data.batches.views import Cloze, Shifted
from recjax.data.splits import Examples
from recjax.typing import InputError
from tests.data.handmade import histories, samples

LENGTHS = np.random.default_rng(0).integers(1, 40, 300)
N_ITEMS = int(LENGTHS.sum())
VIEW = Shifted(20)


def make(rows=8, row_length=None, seed=0, view=VIEW, lengths=LENGTHS):
    return Loader(histories(lengths), view, rows, row_length, seed, int(np.sum(lengths)))


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("view", [VIEW, Cloze(20)])
def test_a_batch_is_a_function_of_seed_and_step(view):
    forward = [make(view=view).host_batch(step) for step in range(5)]
    other = make(view=view)
    for step in (400, 4, 0, 2):  # another order, and caches filled by far epochs
        batch = other.host_batch(step)
        if step < 5:
            equal(batch, forward[step])
    assert (make(view=view, seed=1).host_batch(0).items != forward[0].items).any()


@pytest.mark.parametrize("rows", [1, 8, 64])
def test_every_history_is_used_exactly_once_in_every_epoch(rows):
    loader = make(rows)
    rows_an_epoch, epochs = loader.packing.rows, 3
    assert rows == 1 or rows_an_epoch % rows, "the epochs should straddle batches"
    stream = []
    for step in range(loader.steps(epochs)):
        batch = loader.host_batch(step)
        stream += [[int(items[0]) for items, *_ in samples(_row(batch, row))] for row in range(rows)]
    starts = histories(LENGTHS).stops - 1 - np.minimum(LENGTHS - 1, 20)
    expected = sorted(int(start) + 1 for start, length in zip(starts, LENGTHS, strict=True) if length > 1)
    for epoch in range(epochs):
        used = itertools.chain.from_iterable(stream[epoch * rows_an_epoch : (epoch + 1) * rows_an_epoch])
        assert sorted(used) == expected


def _row(batch, row):
    return jax.tree.map(lambda array: array[row : row + 1], batch)


def test_rows_do_not_change_the_stream():
    narrow, wide = make(4), make(12)
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *(narrow.host_batch(step) for step in range(6)))
    equal(joined, jax.tree.map(lambda *parts: np.concatenate(parts), wide.host_batch(0), wide.host_batch(1)))


def test_padding_weighs_nothing():
    batch = make(row_length=50, lengths=[5, 3, 30]).host_batch(0)
    empty = batch.segments == 0
    assert empty.any()
    for array in (batch.items, batch.positions, batch.targets, batch.weights):
        assert (np.asarray(array)[empty] == 0).all()


def test_counts():
    loader = make(8)
    assert loader.skipped == int((LENGTHS == 1).sum()) > 0
    assert loader.steps_per_epoch == -(-loader.packing.rows // 8)
    assert loader.steps(2.5) == -(-loader.packing.rows * 5 // 16)
    real = sum(int((make(1).host_batch(step).segments > 0).sum()) for step in range(loader.packing.rows))
    assert loader.padding == pytest.approx(1 - real / (loader.packing.rows * 20))


def test_data_smaller_than_a_batch():
    loader = make(16, lengths=[5, 3, 1])
    batch = loader.host_batch(0)
    assert loader.steps_per_epoch == 1
    assert batch.items.shape == (16, 20)
    assert len(samples(batch)) == 32  # sixteen epochs of one row, two samples each


def test_long_rows_hold_several_long_histories():
    loader = make(2, row_length=80)
    assert loader.host_batch(0).items.shape == (2, 80)
    assert loader.host_batch(0).segments.max() >= 4


def test_two_plans_are_kept(monkeypatch):
    loader = make(8)
    made = []
    plan = loader.packing.plan
    monkeypatch.setattr(module.Packing, "plan", lambda self, seed, epoch: made.append(epoch) or plan(seed, epoch))
    for step in range(3 * loader.steps_per_epoch):
        loader.host_batch(step)
    assert made == [0, 1, 2, 3][: len(made)] and len(made) >= 3


def test_batch_is_the_host_batch_on_the_device():
    batch = make().batch(3)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batch))
    assert (batch.items.dtype, batch.weights.dtype) == (np.int32, np.float32)
    equal(batch, make().host_batch(3))


def test_iterate_gives_the_batches_in_order_made_ahead_by_threads(monkeypatch):
    loader = make()
    makers, fill = set(), Loader._fill
    monkeypatch.setattr(Loader, "_fill", lambda *args: makers.add(threading.current_thread().name) or fill(*args))
    steps = list(loader.iterate(5, 17))
    assert len(steps) == 12
    assert threading.current_thread().name not in makers
    for step, batch in enumerate(steps, 5):
        equal(batch, make().host_batch(step))


def test_iterate_can_be_left_early_and_goes_on_anywhere():
    iterator = make().iterate(0, 10**9)
    next(iterator)
    iterator.close()
    equal(next(make().iterate(10**6, 10**9)), make().host_batch(10**6))


def test_iterate_raises_what_a_maker_raises(monkeypatch):
    loader = make()
    monkeypatch.setattr(Loader, "_fill", lambda *args: (_ for _ in ()).throw(InputError("broken")))
    with pytest.raises(InputError, match="broken"):
        next(loader.iterate(0, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows is 0, expected at least 1"),
        ({"row_length": 19}, "row_length is 19, less than the view's max_length = 20"),
        ({"lengths": [1, 1]}, "none of the 2 training histories has two events or more"),
    ],
)
def test_impossible_loaders_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make(**arguments)


def test_negative_steps_are_refused():
    with pytest.raises(InputError, match="step is -1"):
        make().host_batch(-1)


def test_open_data_finds_and_splits(tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    folder.mkdir()
    with gzip.open(folder / "interactions.csv.gz", "wt") as lines:
        lines.write("user_id,item_id,timestamp\n")
        lines.writelines(f"u{user},i{(user + step) % 9},{step}\n" for user in range(6) for step in range(5))
    with gzip.open(folder / "items.csv.gz", "wt") as lines:
        lines.write("item_id,title\n")
        lines.writelines(f"i{item},Item {item}\n" for item in range(9))
    monkeypatch.setenv("RECJAX_DATA", str(tmp_path))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    data = Data("tiny", view=Shifted(4), rows=2)
    dataset, split = open_data(data)
    assert (dataset.n_users, dataset.n_items) == (6, 9)
    assert split.train.lengths.tolist() == [3] * 6
    loader = Loader(split.train, data.view, data.rows, data.row_length, 0, dataset.n_items)
    assert loader.host_batch(0).items.shape == (2, 4)


# Evaluation queries

QUERY_LENGTHS = np.random.default_rng(1).permutation(np.r_[np.arange(1, 61), np.full(40, 3)])


def ask(view=VIEW, lengths=QUERY_LENGTHS, users_per_batch=16, **options):
    source = histories(lengths)
    examples = Examples(source, np.ones(len(source), np.int32), np.zeros(len(source), np.int64))
    return source, list(query_batches(examples, view, int(source.items.max()), users_per_batch, **options))


@pytest.mark.parametrize("view", [VIEW, Shifted(20, align="left", times=True), Cloze(20, times=True)])
def test_every_user_is_asked_once_with_the_right_query(view):
    source, batches = ask(view)
    rows = np.concatenate([rows for _, rows in batches])
    assert sorted(rows[rows >= 0]) == list(range(100))
    assert (rows == -1).sum() == len(batches) * 16 - 100 < 16
    for queries, rows in batches:
        length = queries.items.shape[1]
        for place, row in enumerate(rows):
            mine = jax.tree.map(lambda array, place=place: np.asarray(array[place]), queries)
            if row < 0:
                assert not any(leaf.any() for leaf in jax.tree.leaves(mine))
                continue
            expected = view.queries(source.take(np.array([row])), length, int(source.items.max()))
            for name in ("items", "positions", "lengths", "timestamps"):
                value = getattr(expected, name)
                if value is not None:
                    np.testing.assert_array_equal(getattr(mine, name), value[0])
            assert mine.seen[: source.lengths[row]].tolist() == source.history(row).tolist()
            assert (mine.seen[source.lengths[row] :] == 0).all()


@pytest.mark.parametrize("shapes", [1, 2, 5])
def test_queries_come_in_few_shapes_with_little_padding(shapes):
    _, batches = ask(shapes=shapes, users_per_batch=8)
    found = {(queries.items.shape, queries.seen.shape) for queries, _ in batches}
    assert len(found) <= shapes
    if shapes == 5:
        tokens = sum(int(np.sum(queries.lengths)) for queries, _ in batches)
        assert 1 - tokens / sum(queries.items.size for queries, _ in batches) < 0.3


def test_the_groups_of_shapes_are_the_cheapest():
    longest = np.sort(np.random.default_rng(2).integers(1, 90, 12))[::-1]
    needs = module._widths(VIEW, longest, True, 12)
    price = [width + module.SEEN_COST * seen for width, seen in needs]
    for shapes in (1, 2, 3):
        cheapest = min(
            sum(price[max(start for start in starts if start <= batch)] for batch in range(12))
            for starts in itertools.combinations(range(12), shapes)
            if starts[0] == 0
        )
        chosen = module._widths(VIEW, longest, True, shapes)
        assert sum(width + module.SEEN_COST * seen for width, seen in chosen) == pytest.approx(cheapest)
        assert all(
            width >= min(length, 20) and seen >= length for (width, seen), length in zip(chosen, longest, strict=True)
        )


def test_nothing_is_seen_where_nothing_is_masked():
    _, batches = ask(mask_seen="none")
    assert all(queries.seen.shape == (16, 1) and not np.any(queries.seen) for queries, _ in batches)


def test_fewer_users_than_a_batch():
    _, batches = ask(lengths=[4, 2, 9], users_per_batch=256)
    ((queries, rows),) = batches
    assert queries.items.shape[0] == 3
    assert rows.tolist() == [2, 0, 1]


def test_histories_without_targets_are_asked_too():
    assert len(list(query_batches(histories([4, 2]), VIEW, 6))) == 1
    assert list(query_batches(histories([]), VIEW, 6)) == []


def test_impossible_queries_are_refused():
    with pytest.raises(InputError, match="1 histories are empty, first of user number 8"):
        query_batches(histories([4, 0]), VIEW, 6)
    with pytest.raises(InputError, match="mask_seen='all'"):
        query_batches(histories([4]), VIEW, 6, mask_seen="all")  # pyright: ignore[reportArgumentType]
