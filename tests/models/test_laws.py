"""The laws that every system keeps, whatever its idea. A new system joins by a line in
`tests/models/systems.py`.

Each is trained on a planted dataset, in which every item has one successor, in a folder of its own; the laws are then
asked of what the folder holds.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import recjax
from recjax.config import from_json, to_json
from recjax.data.batches.loader import query_batches
from recjax.data.batches.views import Batch, Queries
from recjax.data.items import Items
from recjax.evaluate.recommend import recommend
from recjax.evaluate.stream import Stream
from recjax.models.alignment import Alignment
from recjax.models.model import Model
from recjax.models.parts.dot_product import DotProductModel
from recjax.nn.groups import filled, split_frozen
from recjax.parallel.mesh import MeshShape
from recjax.train.folder.run_folder import CHECKPOINTS
from recjax.train.loop import fit
from recjax.train.optimiser import Adam
from recjax.train.programs import Alike, programs_of
from recjax.train.run import Run, load_run, read_record
from recjax.train.state import TrainState, sharding_rules
from recjax.train.task import Task, open_task
from recjax.typing import InputError, Params
from tests.models.systems import CATALOG, CHUNK, ITEMS, KEY, LENGTH, STEPS, SYSTEMS, USERS, ids
from tests.tiny import on_one_device

STREAMING = ("sasrec", "next-item-lru")
"""Systems that are known to go on event by event."""

RESUMED = ("sasrec", "recgpt", "mender-text", "sracl", "lorec", "gateau", "recformer", "slmrec")
"""Of each kind of state: parameters alone, with codes and texts, what is refreshed, what is frozen. The loop is one."""

every = pytest.mark.parametrize("name", SYSTEMS)


@pytest.fixture(scope="module", autouse=True)
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The dataset: item i is followed by item i + 1, and the last by the first; every other user begins with item 0."""
    root, random = tmp_path_factory.mktemp("laws"), np.random.default_rng(0)
    folder = root / "data" / "planted"
    folder.mkdir(parents=True)
    starts, lengths = random.integers(0, ITEMS, USERS) * (np.arange(USERS) % 2), random.integers(6, 15, USERS)
    rows = [
        (f"u{user}", f"i{(start + time) % ITEMS}", time)
        for user, (start, length) in enumerate(zip(starts, lengths, strict=True))
        for time in range(length)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_csv(folder / "interactions.csv")
    titles = [f"{['red', 'green', 'blue'][item % 3]} thing number {item}" for item in range(ITEMS)]
    pl.DataFrame({"item_id": [f"i{item}" for item in range(ITEMS)], "title": titles}).write_csv(folder / "items.csv")
    compiled = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))  # no other test reads these programs
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(root / "data"))
        patch.setenv("RECJAX_CACHE", str(root / "cache"))
        patch.setenv("LAWS", str(root))
        on_one_device(patch)
        yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", compiled)


def folder_of(name: str) -> Path:
    return Path(os.environ["LAWS"]) / name


@cache
def trained(name: str) -> Run:
    """The system as its run folder has it."""
    fit(SYSTEMS[name], folder_of(name))
    first_step(name)  # by the program that has trained it, which is not kept for long
    return load_run(folder_of(name))


@cache
def first_step(name: str) -> tuple[Any, Params]:
    """Loss and gradients on one device, with dropout and draws, at the parameters of the run.

    They are the training step's: a first moment that was 0 becomes the gradient times 1 - b1.
    """
    config, run = SYSTEMS[name], load_run(folder_of(name))
    with jax.set_mesh(run.mesh):
        task = opened(name)
        programs = programs_of(Alike.of(config, task.model, STEPS, run.mesh))
        batch, items = task.loader.batch(0), task.items[task.loader.catalog(0)]
        target = programs.target(jax.random.key(0), batch, items, task.params)
        moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), target.opt_state)
        state = TrainState(np.int32(0), run.params, moments, None, jax.random.key_data(KEY))
        state = jax.tree.map(lambda leaf, place: jax.device_put(np.asarray(leaf), place.sharding), state, target)
        after, sums = programs.step(target)(state, batch, items)
    (moment,) = (part.mu for part in jax.tree.leaves(after.opt_state, is_leaf=has_moments) if has_moments(part))
    assert isinstance(config.optim, Adam)
    loss, weight = sums["loss"]
    return loss / weight, jax.tree.map(lambda leaf: np.asarray(leaf) / (1 - config.optim.b1), moment)


def has_moments(part: Any) -> bool:
    return hasattr(part, "mu")


@cache
def opened(name: str, shape: tuple[int, int, int] = (1, 1, 1)) -> Task:
    """Training data of the system, on a mesh that is to be current."""
    return open_task(replace(SYSTEMS[name], mesh=MeshShape(*shape)), folder_of(name))


def mesh_of(shape: tuple[int, int, int]) -> jax.sharding.Mesh:
    return MeshShape(*shape).build(jax.devices()[: int(np.prod(shape))])


def queries_of(name: str) -> Queries:
    """Eight of the test split's histories, on the mesh that is current."""
    run = trained(name)
    return next(query_batches(run.split.test, run.config.data.view, ITEMS, 8))[0]


@cache
def loss_of(name: str) -> Any:
    """Compiled: parameters, batch -> the loss without dropout, and its weight."""
    run = trained(name)

    def loss(params: Params, batch: Any) -> tuple[Any, Any]:
        found, sums = run.model.loss(params, batch, run.items, None)
        return found, sums["loss"][1]

    return jax.jit(loss)


@cache
def ranking_of(name: str) -> Any:
    """Compiled: parameters, items, queries, candidates, targets -> scores of all items, lists of all, ranks, and the
    scores with four more places of padding behind each history."""
    model = trained(name).model
    pad = lambda x: jnp.pad(x, [(0, 0), (0, 4)])  # noqa: E731

    @jax.jit
    def ranking(params: Params, items: Items, queries: Queries, candidates: Any, targets: Any) -> Any:
        ready = replace(items, prepared=model.prepare(params, items))
        scoring = model.scoring(params, queries, ready)
        names = [name for name in ("items", "positions", "timestamps") if getattr(queries, name) is not None]
        longer = model.scoring(params, replace(queries, **{name: pad(getattr(queries, name)) for name in names}), ready)
        lists = scoring.topk(queries.seen, ITEMS + 2, candidates)
        ranks = scoring.rank(targets, queries.seen, candidates)[0]
        return scoring.scores(CATALOG), lists, ranks, longer.scores(CATALOG)

    return lambda *arguments: jax.tree.map(np.asarray, ranking(*arguments))


def scores_of(name: str, longer: bool = False) -> np.ndarray:
    """Of all items for the eight histories, or for longer rows of them."""
    run, every = trained(name), np.ones(ITEMS + 1, bool)
    return ranking_of(name)(run.params, run.items, queries_of(name), every, np.ones(8, np.int32))[3 if longer else 0]


@every
def test_it_learns(name):
    trained(name)
    records = pl.read_ndjson(folder_of(name) / "metrics.jsonl").filter(pl.col("name") == "loss")["value"]
    assert len(records) == STEPS and records.is_finite().all()
    first, last = records[:3].mean(), records[-3:].mean()
    assert last < max(first - 0.1, first / 10)  # the second for a model that knows much before it learns


def packed_row(batch: Batch) -> int:
    """A row with several histories."""
    return int(np.flatnonzero(batch.segments.max(axis=1) > 1)[0])


@pytest.mark.parametrize("name", [name for name, config in SYSTEMS.items() if config.data.pack])
def test_neighbours_in_a_row_and_padding_change_nothing(name):
    run, loss = trained(name), loss_of(name)
    assert run.model.packing
    with jax.set_mesh(run.mesh):
        batch = opened(name).loader.host_batch(0)
    row = packed_row(batch)
    own = (batch.segments == 1) & (np.arange(len(batch.items)) == row)[:, None]
    counted = replace(batch, weights=np.where(own, batch.weights, 0))
    other = np.where(batch.items > 0, batch.items % ITEMS + 1, 0)
    neighbours = replace(counted, items=np.where(own, batch.items, other))
    alone = jax.tree.map(lambda x: np.where(own, x, np.zeros_like(x)), replace(counted, more={}))
    changed = replace(counted, items=np.where(own, other, batch.items))
    expected, *found = (float(loss(run.params, each)[0]) for each in (counted, neighbours, alone, changed))
    np.testing.assert_allclose(found[:2], expected, rtol=2e-6)
    assert abs(found[2] / expected - 1) > 2e-5


@every
def test_rows_that_may_be_taken_apart_do_not_see_each_other(name):
    run, loss = trained(name), loss_of(name)
    with jax.set_mesh(run.mesh):
        batch = opened(name).loader.host_batch(0)
    if run.model.row_bytes(batch) is None:
        pytest.skip("its batches are not taken in parts")
    first = np.arange(len(batch.items)) < len(batch.items) // 2

    def kept(rows: np.ndarray) -> Batch:
        return jax.tree.map(lambda x: np.where(rows.reshape(-1, *[1] * (x.ndim - 1)), x, np.zeros_like(x)), batch)

    parts = [loss(run.params, kept(rows)) for rows in (first, ~first)]
    mean = np.average([found for found, _ in parts], weights=[weight for _, weight in parts])
    np.testing.assert_allclose(mean, loss(run.params, batch)[0], rtol=1e-5)


@every
def test_padding_behind_a_history_changes_no_score(name):
    np.testing.assert_allclose(scores_of(name), scores_of(name, longer=True), rtol=1e-4, atol=1e-5)


def alike(run: Run) -> tuple[Params, Items]:
    """Parameters and items that cannot tell one item from another, so that all have the same score."""
    if not run.items.columns or run.model.per_item:  # by whose rows items are known
        return jax.tree.map(jnp.zeros_like, run.params), run.items
    columns = {name: jnp.broadcast_to(column[1], column.shape) for name, column in run.items.columns.items()}
    relations = jax.tree.map(jnp.zeros_like, run.items.relations)
    return run.params, replace(run.items, columns=columns, relations=relations)


@pytest.mark.parametrize("ties", [False, True])
@every
def test_it_lists_what_brute_force_lists_and_ranks_as_it_lists(name, ties):
    run, ranking, queries = trained(name), ranking_of(name), queries_of(name)
    params, items = alike(run) if ties else (run.params, run.items)
    candidates = np.arange(ITEMS + 1) % 5 > 0
    scores, (lists, values), _, _ = ranking(params, items, queries, candidates, np.ones(8, np.int32))
    assert np.isfinite(scores).all() and (np.ptp(scores, axis=1) == 0).all() == ties
    for query, seen in enumerate(np.asarray(queries.seen)):
        allowed = [item for item in range(1, ITEMS + 1) if candidates[item] and item not in seen]
        own = {item: scores[query, item - 1] for item in allowed}
        best = sorted(allowed, key=lambda item: (-own[item], item))
        listed, after = np.split(lists[query], [len(allowed)])
        assert sorted(listed) == allowed and not after.any()
        assert listed.tolist() == best or not ties
        for found in (values[query, : len(allowed)], [own[item] for item in listed]):
            np.testing.assert_allclose(found, [own[item] for item in best], rtol=1e-4, atol=1e-5)
    for place in (0, 3, 7):
        ranks = ranking(params, items, queries, candidates, lists[:, place])[2]
        np.testing.assert_array_equal(ranks, place + 1)


@pytest.mark.parametrize("name", RESUMED)
def test_it_resumes_bit_for_bit(name, tmp_path):
    """In a copy of the folder in which the checkpoint of half the steps is the last."""
    run, copy = trained(name), tmp_path / "copy"
    shutil.copytree(folder_of(name), copy)
    shutil.rmtree(copy / CHECKPOINTS / str(STEPS))
    assert read_record(copy)[0] == STEPS // 2
    assert fit(SYSTEMS[name], copy).step == STEPS
    resumed = load_run(copy)
    assert resumed.step == run.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, resumed.params, run.params)


LIKE_OTHERS = ("discrec", "mender", "recgpt")
"""Systems that have the layout and the loss of others here, ColaRec's and those of Mender's text form; RecGPT has files
of its own in tests/multi_device."""


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in LIKE_OTHERS])
def test_every_mesh_gives_the_same(name):
    """Loss and gradients, with dropout and draws, and scores and ranks."""
    run, mesh, targets = trained(name), mesh_of((4, 2, 1)), np.arange(1, 9, dtype=np.int32)
    start = jax.tree.map(np.asarray, run.params)
    with jax.set_mesh(mesh):
        task = opened(name, (4, 2, 1))
        model: Model = task.model
        params = jax.device_put(start, sharding_rules(model).shard(start, mesh))

        @jax.jit
        def function(params: Params, batch: Batch, queries: Queries, items: Any) -> Any:
            trained, frozen = split_frozen(params)

            def loss(trained: Params) -> Any:
                return model.loss(filled(trained, frozen), batch, items, jax.random.fold_in(KEY, 0))[0]

            ready = replace(items, prepared=model.prepare(params, items))
            return jax.value_and_grad(loss)(trained), model.scoring(params, queries, ready).rank(targets, queries.seen)

        found = jax.tree.map(np.asarray, function(params, task.loader.batch(0), queries_of(name), task.items[0]))
    scores, _, ranks, _ = ranking_of(name)(run.params, run.items, queries_of(name), np.ones(ITEMS + 1, bool), targets)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)  # noqa: E731
    jax.tree.map(close, (first_step(name), (ranks, np.diagonal(scores))), found)


@every
def test_it_survives_json(name):
    config = SYSTEMS[name]
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@every
def test_it_recommends_from_its_run_folder_alone(name, monkeypatch, tmp_path):
    """In a copy of the folder, where there is no dataset; the lists are those of the run with its dataset."""
    whole, copy, histories = trained(name), tmp_path / "copy", [["i1", "i2", "i3"], ["i7"], []]
    shutil.copytree(folder_of(name), copy)
    with jax.set_mesh(whole.mesh):
        given = (whole.model, whole.params, whole.dataset, whole.config.data.view, histories, whole.items)
        expected = recommend(*given, k=4).table
    monkeypatch.setenv("RECJAX_DATA", str(tmp_path))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path))
    found = recjax.load(copy).recommend(histories, k=4)
    assert found.equals(expected) and set(found.filter(pl.col("user_id") == "3")["fallback"]) == {"popularity"}
    found = found.filter(pl.col("user_id") != "3")
    assert found["rank"].to_list() == [1, 2, 3, 4] * 2 and found["fallback"].is_null().all()
    for user, history in zip(("1", "2"), histories, strict=False):
        rows = found.filter(pl.col("user_id") == user)
        assert set(rows["item_id"]).isdisjoint(history) and rows["score"].is_sorted(descending=True)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "recgpt"])
def test_its_exported_program_lists_what_it_lists(name, tmp_path):
    """By the page in the program's folder, which imports nothing of recjax."""
    trained(name)
    model = recjax.load(folder_of(name))
    histories = [["i1", "i2", "i3"], ["i7"], [f"i{item}" for item in range(LENGTH + 3)]]
    model.export_program(tmp_path, k=4, batch=2, seen=20)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    there: dict[str, Any] = {}
    exec(code.replace('Path(".")', f"Path({str(tmp_path)!r})"), there)
    stock = [f"i{item}" for item in range(10, ITEMS, 2)]
    for found, table in (
        (there["recommend"](histories), model.recommend(histories, k=4)),
        (there["recommend"](histories, candidates=stock), model.recommend(histories, k=4, candidates=stock)),
    ):
        assert [item for each in found for item, _ in each] == table["item_id"].to_list()
        scores = [score for each in found for _, score in each]
        np.testing.assert_allclose(scores, table["score"].to_numpy(), rtol=1e-4, atol=1e-5)


@every
def test_events_one_after_another_are_whole_histories(name):
    """One that cannot be advanced event by event says so: the class, or an encoder without a memory of one that can."""
    run, queries = trained(name), queries_of(name)
    model = run.model
    try:
        model.init_state(2, LENGTH)
    except InputError as error:
        assert "event by event" in str(error) and name not in STREAMING
        return
    assert model.streams

    @jax.jit
    def streamed(params: Params, queries: Queries, items: Any) -> Any:
        _, state = model.advance(params, model.init_state(8, LENGTH), queries.items[:, :CHUNK])
        states, _ = model.advance(params, state, queries.items[:, CHUNK:])
        return model.state_scoring(params, states, items).scores(CATALOG)

    assert int(queries.lengths.min()) > CHUNK
    found = streamed(run.params, queries, run.items)
    np.testing.assert_allclose(found, scores_of(name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", sorted(Model.STREAMED))
def test_a_subclass_that_scores_or_learns_otherwise_has_to_say_that_it_streams(method):
    run = trained("next-item-lru")
    assert run.model.streams and type("Same", (DotProductModel,), {"row_tables": ()}).streams
    changed = {method: getattr(DotProductModel, method)}
    assert type("Declared", (DotProductModel,), {**changed, "streams": True}).streams
    other = type("Other", (DotProductModel,), changed)(run.model.module, run.model.objective, run.model.stats)
    assert not other.streams
    with pytest.raises(InputError, match="cannot be advanced event by event"):
        Stream(other, run.params, run.config.data.view)


def test_what_ranks_nothing_says_so(tmp_path):
    twin = Path(__file__).parents[1] / "text" / "twins" / "bert"
    config = ids(Alignment(str(twin), layers=1))
    assert not config.model.ranks and from_json(json.loads(json.dumps(to_json(config)))) == config
    model = config.model.build(trained("sasrec").model.stats)
    with pytest.raises(InputError, match="AlignmentModel ranks no items"):
        model.scoring({}, queries_of("sasrec"), trained("sasrec").items)
    with pytest.raises(InputError, match="recjax align"):
        fit(config, tmp_path)
