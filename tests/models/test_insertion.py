"""Insertion: what is missing in a history and where, against plain sums; sequences completed within their bounds."""

from dataclasses import replace
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
import pytest

import recjax
from recjax.config import RunConfig
from recjax.data.batches.histories import Histories
from recjax.data.batches.insertions import Insertions
from recjax.data.batches.loader import Data, Loader
from recjax.data.batches.views import Queries, Shifted
from recjax.data.gapped import gapped
from recjax.data.items import bare_items
from recjax.data.splits import ByUser, LeaveOneOut
from recjax.decode.insertion import insert
from recjax.evaluate.filling import asked_gaps, fill
from recjax.evaluate.infilling import Infilling
from recjax.evaluate.infilling_floors import counted
from recjax.evaluate.protocol import Evaluate
from recjax.models.insertion import Insertion
from recjax.models.model import ItemStats
from recjax.models.parts.objectives import BCE, FullSoftmax
from recjax.models.sasrec import SASRec
from recjax.ops.items.log_normalisers import log_normalisers
from recjax.parallel.mesh import MeshShape
from recjax.settings import SettingError
from recjax.train.loop import fit
from recjax.train.optimiser import Adam
from recjax.train.schedule import Train
from recjax.typing import InputError
from tests.drawn import drawn_for
from tests.tiny import on_one_device, tiny_datasets

ITEMS, LENGTH = 9, 8
STATS, KNOWN = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)), bare_items(ITEMS)
SIZE: dict[str, Any] = dict(width=16, layers=1, inner=16, dropout=0.0, max_length=LENGTH + 1)
CLASS = ITEMS + 1


def histories(lengths: list[int], seed: int = 0) -> Histories:
    items = np.random.default_rng(seed).integers(1, ITEMS + 1, sum(lengths)).astype(np.int32)
    return Histories.concatenated(np.array(lengths), items, np.arange(len(items)), np.arange(len(lengths)))


def batch_of(source: Histories, view: Insertions, rows: int, step: int = 0, packed: bool = True) -> Any:
    return Loader(source, view, rows, None, 0, ITEMS, packed).host_batch(step)


def samples(batch: Any) -> Any:
    """(row, first place, places) of each sample."""
    for row in range(len(batch.items)):
        for segment in range(1, batch.segments[row].max() + 1):
            places = np.flatnonzero(batch.segments[row] == segment)
            yield row, places[0], places


def restored(batch: Any, row: int, places: np.ndarray) -> list[int]:
    """The window of a sample, its dropped events put back."""
    kept = [int(x) for x in batch.items[row, places][1:] if x > 0]
    gaps: dict[int, list[int]] = {gap: [] for gap in range(len(kept) + 1)}
    for place in places[len(kept) + 1 :]:
        gaps[int(batch.positions[row, place])].append(int(batch.targets[row, place]))
    return list(chain.from_iterable([*gaps[gap], *kept[gap : gap + 1]] for gap in gaps))


@pytest.mark.parametrize("windows", ["last", "random"])
def test_a_sample_is_a_window_in_two_parts_and_the_loss_has_its_shares(windows):
    """Put together again, they are a stretch of the history; what was dropped stands nowhere among the inputs."""
    source, view = histories([8, 5, 3, 12, 1, 9]), Insertions(LENGTH + 1, windows)
    counts = []
    for step in range(40):
        batch = batch_of(source, view, 3, step)
        every = [tuple(source.history(row)) for row in range(6)]
        for row, first, places in samples(batch):
            events = len(places) - 1
            window = tuple(restored(batch, row, places))
            ends = [h[-events:] for h in every] if windows == "last" else None
            found = ends if ends else [h[at : at + events] for h in every for at in range(len(h) - events + 1)]
            assert window in found and events >= 2
            weights, missing = batch.weights[row, places], batch.items[row, places] == 0
            assert batch.items[row, first] == CLASS and weights[0] == 1
            assert (batch.targets[row, first] == CLASS) == (not missing.any())
            assert not missing.any() or np.isclose(weights[missing].sum(), 1)
            assert not batch.weights[row, places][1:][~missing[1:]].any()
            counts += [missing.sum() / events]
    assert 0.4 < np.mean(counts) < 0.6 and {0.0, 1.0} <= set(counts)
    again = batch_of(source, view, 3, 7)
    jax.tree.map(np.testing.assert_array_equal, again, batch_of(source, view, 3, 7))


def brute_force(model: Any, params: Any, batch: Any, stop: float) -> float:
    """Sample after sample: logits of all gaps and items, their softmax, and the targets' shares; and the stop."""
    table, bias = np.asarray(params["items"], np.float64), np.asarray(params["bias"], np.float64)
    total, count = 0.0, 0
    for row, _, places in samples(batch):
        kept = int((batch.items[row, places] > 0).sum())
        alone = np.zeros((1, LENGTH + 1), np.int32)
        alone[0, :kept] = batch.items[row, places[:kept]]
        (states, levels), hidden, *_ = model.gaps(params, jnp.asarray(alone), jnp.asarray(alone > 0, jnp.int32))
        logits = np.asarray(states, np.float64)[0, :kept] @ table[1 : ITEMS + 1].T + bias[1 : ITEMS + 1]
        logits += np.asarray(levels, np.float64)[0, :kept, None]
        target = np.zeros_like(logits)
        dropped = places[kept:]
        for place in dropped:
            target[batch.positions[row, place], batch.targets[row, place] - 1] += 1 / len(dropped)
        total -= np.sum(target * (logits - np.log(np.exp(logits).sum())))
        said = float(model.stops(params, hidden[0, 0]))
        total += stop * (np.log1p(np.exp(said)) - said * (len(dropped) == 0))
        count += 1
    return total / count


def some_params(model: Any, batch: Any, seed: int = 0) -> Any:
    params = drawn_for(model.init, jax.random.key(seed), batch, KNOWN)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return tree.unflatten([x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@pytest.mark.parametrize("sides", ["both", "left"])
def test_the_loss_is_the_sum_over_all_gaps_and_items(sides):
    source = histories([4, 4, 4, 4, 3])
    batch = batch_of(source, Insertions(LENGTH + 1, "last"), 3)
    assert batch.segments.max() > 1
    model = Insertion(**SIZE, stop=0.7, sides=sides).build(STATS)
    params = some_params(model, batch)
    loss = jax.jit(lambda p, b: model.loss(p, b, KNOWN, None)[0])
    np.testing.assert_allclose(float(loss(params, batch)), brute_force(model, params, batch, 0.7), rtol=1e-5)


def test_what_was_dropped_is_not_visible():
    """Other events in their place change neither the states of the gaps nor whether something is missing."""
    batch = batch_of(histories([8, 5, 7]), Insertions(LENGTH + 1, "last"), 3)
    model = Insertion(**SIZE).build(STATS)
    params = some_params(model, batch)
    other = np.where(batch.items == 0, batch.targets % ITEMS + 1, batch.targets)
    assert (other != batch.targets).any()
    found = [model.loss(params, replace(batch, targets=x), KNOWN, None)[1] for x in (batch.targets, other)]
    assert found[0]["stop"] == found[1]["stop"] and found[0]["insertion"] != found[1]["insertion"]
    states = [model.gaps(params, batch.items, x)[0][0] for x in (batch.segments, batch.segments * (batch.items > 0))]
    there = batch.items > 0
    np.testing.assert_allclose(states[0][there], states[1][there], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [4, 2**20])
def test_normalisers_and_their_gradients_are_those_of_whole_logits(chunk):
    """With cotangents of both signs, and by chunks of rows."""
    random = np.random.default_rng(0)
    hidden, table, bias, cotangent = (
        jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((2, 5, 4), (384, 4), (384,), (2, 5))
    )
    items = 300

    def ours(*given):
        return jnp.sum(cotangent * log_normalisers(*given, items=items, chunk_elements=chunk))

    def plain(hidden, table, bias):
        logits = hidden @ table[1 : items + 1].T + bias[1 : items + 1]
        return jnp.sum(cotangent * jax.nn.logsumexp(logits, axis=-1))

    for one, other in zip(
        *(jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(hidden, table, bias) for f in (ours, plain)), strict=True
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), one, other)


def test_gaps_and_items_never_stand_in_memory_together():
    """The room of a step beside its arguments grows less than that of a score of each gap and item."""
    view, chunk = Insertions(LENGTH + 1, "last"), FullSoftmax(chunk_elements=2**12)
    batch = batch_of(histories([LENGTH] * 32), view, 32)

    def room(items: int) -> int:
        model = Insertion(**SIZE, loss=chunk).build(ItemStats(items, np.ones(items + 1, np.int64)))
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch, KNOWN)
        step = jax.jit(jax.grad(lambda p, b: model.loss(p, b, KNOWN, None)[0]))
        return step.lower(shapes, batch).compile().memory_analysis().temp_size_in_bytes

    few, many = 1023, 8191
    tables = 4 * 16 * (many - few)
    assert room(many) - room(few) < 6 * tables < 4 * batch.items.size * (many - few) / 2


def trained(model: Any, source: Histories, view: Insertions, steps: int, rate: float = 0.01) -> Any:
    loader = Loader(source, view, 16, None, 0, model.n_items)
    batches = jax.tree.map(lambda *x: np.stack(x), *[loader.host_batch(step) for step in range(steps)])
    known, optimiser = bare_items(model.n_items), optax.adam(rate)

    @jax.jit
    def run(params):
        def step(carried, given):
            params, state = carried
            updates, state = optimiser.update(jax.grad(lambda p: model.loss(p, given, known, None)[0])(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimiser.init(params)), batches)[0][0]

    return run(drawn_for(model.init, jax.random.key(0), loader.host_batch(0), known))


BOUNDED: dict[str, Any] = dict(width=32, layers=1, inner=32, dropout=0.0, max_length=LENGTH + 1)


def test_both_sides_find_what_the_left_alone_cannot():
    """The middle of three is one of four, by which of two items stands left of it and which of two others right."""
    left, right = np.arange(64) % 2, np.arange(64) // 2 % 2
    rows = np.stack([1 + left, 5 + 2 * left + right, 3 + right], axis=1).astype(np.int32)
    source = Histories.concatenated(np.full(64, 3), rows.ravel(), np.arange(192), np.arange(64))
    task, view, hits = gapped(source, 3, 0.2, 0), Insertions(LENGTH + 1, "last"), {}
    np.testing.assert_array_equal(task.targets, rows[:, 1])
    for sides in ("both", "left"):
        model = Insertion(**BOUNDED, sides=sides).build(STATS)
        params = trained(model, source, view, 250)
        found = asked_gaps(model, params, task, view, items=None, users_per_batch=64)
        hits[sides] = (found.ranks == 1).mean()
    assert hits["both"] > 0.9 and hits["left"] < 0.6


def test_generation_completes_a_set_of_unknown_size_and_stops():
    """Chains of items from 1 on, as long as the first item after them says: from any part, and from nothing."""
    chains = [np.array([1, 2, 3, 8], np.int32), np.array([1, 2, 3, 4, 5, 6, 9], np.int32)] * 16
    sizes = np.array([len(chain) for chain in chains])
    source = Histories.concatenated(sizes, np.concatenate(chains), np.arange(sizes.sum()), np.arange(len(chains)))
    model, view = Insertion(**BOUNDED).build(STATS), Insertions(LENGTH + 1, "last")
    params = trained(model, source, view, 500)
    parts = [[2, 8], [9], [1, 4], [1, 2, 3, 8], []]
    sizes = np.array([len(part) for part in parts])
    given = Histories.concatenated(
        sizes, np.array(list(chain.from_iterable(parts)), np.int32), np.zeros(sizes.sum()), np.arange(5)
    )
    found, order = fill(model, params, given, view)
    filled = [found.history(row).tolist() for row in range(5)]
    short, long = chains[0].tolist(), chains[1].tolist()
    assert filled[:4] == [short, long, long, short] and filled[4] in (short, long)
    first = order[: len(short)]
    assert np.array(short)[first == 0].tolist() == [2, 8] and sorted(first[first > 0]) == [1, 2]
    one = fill(model, params, given, view, most=1)[0].lengths
    assert (one - sizes).tolist() == [1, 1, 1, 0, 1]


@pytest.mark.parametrize("repeats", [False, True])
def test_generation_never_exceeds_the_catalog_or_the_room(repeats):
    """Of a model that never stops: it goes on until the room is full, or all items are there."""
    for items in (5, 30):
        known = ItemStats(items, np.ones(items + 1, np.int64))
        model, view = Insertion(**SIZE).build(known), Insertions(LENGTH + 1)
        batch = Loader(histories([5, 4]), view, 2, None, 0, items).host_batch(0)
        params = some_params(model, batch)
        params["stop"] = {"kernel": jnp.zeros(16), "bias": jnp.float32(-9.0)}
        given = Histories.concatenated(
            np.array([2, 0, 8]), np.array([3, 1] + [2] * 8, np.int32), np.zeros(10), np.arange(3)
        )
        found, order = fill(model, params, given, view, repeats=repeats)
        assert found.items.min() >= 1 and found.items.max() <= items
        most = LENGTH if repeats else min(items, LENGTH)
        assert found.lengths.tolist() == [most, most, 8] and not order[-8:].any()
        assert repeats or len(set(found.history(0))) == most
        kept = found.items[: found.lengths[0]][order[: found.lengths[0]] == 0]
        assert kept.tolist() == [3, 1]


def test_an_insertion_goes_where_its_logit_is_largest_among_the_gaps_that_there_are():
    best = jnp.array([[7, 8, 9, 6, 5], [7, 8, 9, 6, 5]])
    logits = jnp.array([[0.0, 2.0, 1.0, 9.0, 9.0], [0.0, 1.0, 2.0, 9.0, 9.0]])
    ask = lambda items, lengths: (best, logits, jnp.array([0.0, 0.95]))  # noqa: E731
    start = (jnp.array([[1, 2, 0, 0], [1, 2, 0, 0]]), jnp.array([2, 2]))
    items, lengths, order = insert(ask, *start, stop=0.9, most=1)
    assert items.tolist() == [[1, 8, 2, 0], [1, 2, 0, 0]] and lengths.tolist() == [3, 2]
    assert order.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_sets_have_no_order():
    batch = batch_of(histories([8, 5, 7]), Insertions(LENGTH + 1, "last"), 3)
    model = Insertion(**SIZE, ordered=False).build(STATS)
    params = some_params(model, batch)
    assert "positions" not in params
    rows = jnp.array([[CLASS, 1, 2, 3], [CLASS, 3, 1, 2], [CLASS, 3, 1, 4]])
    asked = Queries(rows, jnp.zeros_like(rows), jnp.full(3, 4), jnp.zeros((3, 1), jnp.int32))
    found = model.scoring(params, asked, KNOWN).scores(jnp.tile(jnp.arange(1, ITEMS + 1), (3, 1)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3
    same = model.loss(params, replace(batch, positions=batch.positions * 0), KNOWN, None)[0]
    np.testing.assert_allclose(same, model.loss(params, batch, KNOWN, None)[0], rtol=1e-6)


def test_the_task_leaves_out_middles_alone_and_asks_the_left_for_the_left():
    source = histories([2, 3, 9, 20, 40], seed=3)
    task = gapped(source, 15, 0.2, 1)
    assert task.rows.tolist() == [1, 2, 3, 4] and (task.kept.lengths == task.whole.lengths).all()
    for window in range(4):
        history = source.history(task.rows[window]).tolist()
        mine = task.owner == window
        kept = task.kept.history(window).tolist()
        parts = ([*task.targets[mine & (task.gaps == gap)], *kept[gap : gap + 1]] for gap in range(len(kept) + 1))
        whole = list(chain.from_iterable(parts))
        assert whole == history[-len(whole) :] and mine.sum() == max(1, round(0.2 * len(whole)))
        assert (task.gaps[mine] > 0).all() and (task.gaps[mine] < len(kept)).all()
        assert task.whole.history(window).tolist() == history[-len(kept) :]
        assert task.missing[window].nonzero()[0].tolist() == sorted(set(task.gaps[mine]))


def rows_of(*rows: list[int]) -> Histories:
    sizes = np.array([len(row) for row in rows])
    items = np.array(list(chain.from_iterable(rows)), np.int32)
    return Histories.concatenated(sizes, items, np.arange(len(items)), np.arange(len(rows)))


def test_counts_from_both_sides_know_what_those_from_the_left_do_not():
    """After 1 mostly 8 follows, but before 3 always 2; a window is complete whose neighbours are known."""
    task = gapped(rows_of(*[[1, 2, 3]] * 4), 3, 0.2, 0)
    found = counted(task, rows_of(*[[1, 2, 3], [1, 8, 9], [1, 8, 9]] * 5), 9)
    assert (found["transition_both"].ranks == 1).all() and (found["transition_left"].ranks > 1).all()
    task = gapped(rows_of(*[[1, 2, 3, 6]] * 8), 4, 0.2, 0)
    found = counted(task, rows_of(*[[1, 2, 3, 6], [4, 2, 5, 7]] * 20), 9)
    for name in ("transition_left", "transition_both"):
        assert task.missing[np.arange(8), found[name].gap].all()
        gaps, whole = found[name].complete
        assert (gaps <= whole).all() and (gaps < whole).any()


def test_infilling_from_a_run_and_histories_filled(tmp_path, monkeypatch):
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    folder = str(tiny_datasets(tmp_path / "data", ["shop"]) / "shop")
    base = RunConfig(
        name="gaps",
        data=Data(folder, view=Insertions(12), split=ByUser(), rows=8),
        model=Insertion(**{**SIZE, "max_length": 12}),
        optim=Adam(learning_rate=0.01),
        mesh=MeshShape(),
        train=Train(steps=2, evaluate_every=2),
        evaluate=(Infilling(bootstrap=20), Evaluate(bootstrap=0)),
    )
    fit(base, tmp_path / "run")
    model = recjax.load(tmp_path / "run")
    report = model.evaluate()
    assert set(report.metrics) == {"all", "left"} and set(report.floors) >= {"transition_left", "transition_both"}
    assert {"gap_accuracy", "stop_error", "hr@10"} <= set(report.metrics["left"]) and report.counts["targets"] > 10
    ids = model.items["item_id"].to_list()[:4]
    table = model.filled([ids, [ids[2]], []], most=2)
    assert table.filter(pl.col("inserted").is_null())["item_id"].to_list() == [*ids, ids[2]]
    assert table["inserted"].max() <= 2 and table.group_by("user_id").len()["len"].max() <= 6
    with pytest.raises(InputError, match="give a part"):
        model.filled([ids * 3])
    with pytest.raises(InputError, match="a probability"):
        model.filled([ids], stop=2.0)
    plain = replace(
        base,
        data=replace(base.data, view=Shifted(11)),
        model=SASRec(width=8, layers=1, max_length=11),
    )
    fit(plain, tmp_path / "plain")
    other = recjax.load(tmp_path / "plain")
    assert set(other.evaluate(floors=False).metrics) == {"all"}
    with pytest.raises(InputError, match="does not fill gaps"):
        other.filled([ids])
    with pytest.raises(InputError, match="does not fill gaps"):
        other.run.model.insertions({}, None, None, None)
    with pytest.raises(InputError, match="that nobody has trained on"):
        fit(replace(base, data=replace(base.data, split=LeaveOneOut())), tmp_path / "wrong")


def test_what_cannot_be_says_so():
    wrongs: tuple[dict[str, Any], ...] = ({"loss": BCE()}, {"stop": -1.0}, {"sides": "left", "ordered": False})
    for wrong in wrongs:
        with pytest.raises(SettingError):
            Insertion(**wrong)
