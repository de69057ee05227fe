"""TIGER: codes that mean something help, beams agree with teacher forcing, and runs from their folders."""

import json
from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recjax.config import RunConfig, from_json, to_json
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Batch, Queries, Shifted
from recjax.data.items import CODES, Items, bare_items, by_catalog, joined
from recjax.evaluate.protocol import Evaluate, evaluate
from recjax.evaluate.recommend import recommend
from recjax.models.colarec import ColaRec
from recjax.models.mender import Mender
from recjax.models.mmgrec import MMGRec
from recjax.models.model import ItemStats
from recjax.models.tiger import TIGER
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.train.loop import Train, fit
from recjax.train.optimiser import AdamW
from recjax.train.run import load_run
from recjax.typing import InputError
from tests.tiny import on_one_device
from tests.train.real import write_datasets

GROUPS, MEMBERS, LENGTH, ROWS = 6, 8, 4, 64
ITEMS, SIZES = GROUPS * MEMBERS, (GROUPS, MEMBERS)
SMALL = TIGER(width=16, layers=1, heads=2, channels=8, inner=32, dropout=0.1, codes=10, beam=ITEMS)
MODEL = SMALL.build(ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (2,)}, SIZES))
EXACT = replace(MODEL, config=replace(SMALL, beam=None))
CAUSAL = replace(MODEL, config=replace(SMALL, causal=True))


def catalog(order: np.ndarray) -> Items:
    """Items whose codes are (group, member); by `order`, items that have each other's."""
    codes = np.stack(np.divmod(order, MEMBERS), axis=1)
    return bare_items(ITEMS, {CODES: np.concatenate([np.zeros((1, 2)), codes]).astype(np.int32)})


MEANT, MEANINGLESS = catalog(np.arange(ITEMS)), catalog(np.random.default_rng(5).permutation(ITEMS))


def walks(seed: int, rows: int = ROWS) -> Batch:
    """Users go round the groups and take any member: the next group is known, the member is not."""
    rng = np.random.default_rng(seed)
    groups = (rng.integers(0, GROUPS, (rows, 1)) + np.arange(LENGTH + 1)) % GROUPS
    items = (1 + groups * MEMBERS + rng.integers(0, MEMBERS, groups.shape)).astype(np.int32)
    lengths = rng.integers(1, LENGTH + 1, (rows, 1))
    held, last = np.arange(LENGTH) < lengths, np.arange(LENGTH) == lengths - 1
    inputs, segments = np.where(held, items[:, :-1], 0), held.astype(np.int32)
    return Batch(inputs, segments, segments, np.where(held, items[:, 1:], 0), last.astype(np.float32))  # pyright: ignore


def queries_of(batch: Batch) -> Queries:
    return Queries(batch.items, batch.positions, batch.segments.sum(1), batch.items)


def targets_of(batch: Batch) -> np.ndarray:
    return np.max(np.where(batch.weights > 0, batch.targets, 0), axis=1)


@jax.jit
def loss_of(params, batch, items):
    return MODEL.loss(params, batch, items, None)[0]


@pytest.fixture(scope="module")
def train():
    """A compiled training of 60 steps: items -> parameters before and after."""
    batches = jax.tree.map(lambda *arrays: np.stack(arrays), *(walks(seed) for seed in range(60)))
    optimiser = optax.adam(0.01)

    @jax.jit
    def trained(items):
        params = MODEL.init(jax.random.key(0), walks(0), items)

        def step(state, numbered):
            params, moments = state
            number, batch = numbered
            key = jax.random.fold_in(jax.random.key(1), number)
            grads = jax.grad(lambda params: MODEL.loss(params, batch, items, key)[0])(params)
            updates, moments = optimiser.update(grads, moments)
            return (optax.apply_updates(params, updates), moments), None

        (after, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), (jnp.arange(60), batches))
        return params, after

    return trained


@pytest.fixture(scope="module")
def params(train):
    return train(MEANT)[1]


def test_codes_that_mean_nothing_are_worse(train):
    held_out = walks(1000, 256)
    (fresh, meant), (_, meaningless) = train(MEANT), train(MEANINGLESS)
    before, good, bad = (
        float(loss_of(params, held_out, items))
        for params, items in ((fresh, MEANT), (meant, MEANT), (meaningless, MEANINGLESS))
    )
    # The member alone is unknown: log(8) nats. Items by their numbers take longer to learn than 60 steps.
    assert good < np.log(MEMBERS) + 0.5 < bad - 0.3
    assert good < before - 1


def test_one_causal_pass_gives_what_every_prefix_of_packed_histories_gives(params):
    rng = np.random.default_rng(3)
    lengths, items = (3, 1, 2), rng.integers(1, ITEMS + 1, (1, 8), dtype=np.int32)
    segments = np.array([[1, 1, 1, 2, 3, 3, 0, 0]], np.int32)
    targets = np.where(segments > 0, rng.integers(1, ITEMS + 1, (1, 8), dtype=np.int32), 0)
    packed = Batch(np.where(segments > 0, items, 0), segments, segments, targets, (segments > 0).astype(np.float32))  # pyright: ignore
    found = np.asarray(jax.jit(CAUSAL.log_likelihoods, static_argnums=3)(params, packed, MEANT, None))[0]

    prefixes = [
        items[0, start : start + size]
        for start, whole in zip((0, 3, 4), lengths, strict=True)
        for size in range(1, whole + 1)
    ]
    rows = np.stack([np.pad(prefix, (0, LENGTH - len(prefix))) for prefix in prefixes])
    held = (rows > 0).astype(np.int32)
    queries = Queries(rows, held, held.sum(1), rows)  # pyright: ignore
    for model, alike in ((CAUSAL, True), (MODEL, False)):  # MODEL: with all of a history seen
        expected = jax.jit(model.log_likelihood)(params, queries, targets[0, : len(rows)], MEANT)
        assert np.allclose(found[: len(rows)], expected, atol=1e-5) == alike
    loss, sums = jax.jit(CAUSAL.loss, static_argnums=3)(params, packed, MEANT, None)
    np.testing.assert_allclose([loss, sums["loss"][1]], [-found[: len(rows)].mean(), len(rows)], rtol=1e-5)


@pytest.mark.parametrize("system", [ColaRec, Mender, MMGRec])
def test_systems_that_read_more_than_items_in_their_order_are_not_causal(system):
    with pytest.raises(InputError, match="causal is True, expected False, since its inputs"):
        system(causal=True)


def lists(params, queries: Queries, items: Items) -> list[tuple[np.ndarray, np.ndarray]]:
    """Items and scores by a wide beam, and exact."""

    @jax.jit
    def run(params, queries, items):
        return [model.scoring(params, queries, items).topk(queries.seen, ITEMS) for model in (MODEL, EXACT)]

    return jax.device_get(run(params, queries, items))


def test_a_wide_beam_is_exact_and_scores_are_log_likelihoods(params):
    batch = walks(7, 8)
    queries, targets = queries_of(batch), targets_of(batch)
    (wide, scores), (exact, _) = lists(params, queries, MEANT)
    np.testing.assert_array_equal(wide, exact)

    every = np.tile(np.arange(1, ITEMS + 1), (8, 1))
    repeated = jax.tree.map(lambda x: np.repeat(x, ITEMS, axis=0), batch)
    forced = np.asarray(jax.jit(MODEL.log_likelihood)(params, repeated, every.reshape(-1), MEANT)).reshape(8, ITEMS)
    for row, listed in enumerate(wide):
        assert set(listed[listed > 0]) == set(range(1, ITEMS + 1)) - set(queries.seen[row])
        np.testing.assert_allclose(scores[row][listed > 0], forced[row, listed[listed > 0] - 1], atol=1e-5)
    mean = np.mean(forced[np.arange(8), targets - 1])
    np.testing.assert_allclose(loss_of(params, batch, MEANT), -mean, rtol=1e-5)


def test_padding_changes_nothing(params):
    batch = walks(8, 8)
    wide = jax.tree.map(lambda x: np.pad(x, [(0, 0), (0, 3)]), batch)
    wide = replace(wide, targets=np.where(wide.items > 0, wide.targets, 5))
    np.testing.assert_allclose(loss_of(params, wide, MEANT), loss_of(params, batch, MEANT), rtol=1e-6)


def test_a_catalog_never_seen_is_ranked_beside_another(params):
    """Of two catalogs in one table, the second has fewer items: its trie, and no other items in the lists."""
    other = bare_items(5, {CODES: np.array([[0, 0], [3, 3], [3, 3], [1, 0], [5, 7], [0, 2]], np.int32)})
    both, starts = joined([MEANT, other])
    second = by_catalog(both, starts.tolist(), (ITEMS, 5))[1]
    queries = Queries(*(np.array([[1, 4]]),) * 2, np.array([2]), np.array([[4, 0]]))  # pyright: ignore
    for items, scores in lists(params, queries, second):
        assert sorted(items[0, :4].tolist()) == [1, 2, 3, 5] and not items[0, 4:].any()
        place = items[0].tolist()
        assert place.index(2) == place.index(1) + 1 and scores[0, place.index(1)] == scores[0, place.index(2)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in write_datasets(tmp_path_factory.mktemp("data")).items():
            patch.setenv(name, value)
        on_one_device(patch)
        yield RunConfig(
            name="small",
            data=Data("small", view=Prefixes(Shifted(max_length=6, targets=1)), rows=16, pack=False),
            text=Hashed(16),
            tokenizer=RQKMeans(slots=2, clusters=8, iterations=2),
            model=replace(SMALL, codes=64, beam=3),
            optim=AdamW(learning_rate=0.01),
            mesh=MeshShape(),
            train=Train(steps=4, evaluate_every=0),
            evaluate=Evaluate(users_per_batch=80, bootstrap=20),
        )


def test_a_run_evaluates_and_recommends(config, tmp_path):
    fit(config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    with jax.set_mesh(run.mesh):
        view = run.config.data.view
        report = evaluate(
            run.model, run.params, run.dataset, run.split, view, run.config.evaluate, run.items, floors=False
        )
        table = recommend(run.model, run.params, run.dataset, view, [run.dataset.item_ids[1:4]], run.items, k=3).table
    assert report.notes["beam"] == 3 and 0 <= report.notes["targets found"] < 1
    assert report.users is not None
    missed = report.users["rank"].null_count() / len(report.users)
    assert missed >= 1 - report.notes["targets found"] - 1e-4 > 0
    assert set(table["item_id"]) <= set(run.dataset.item_ids[4:]) and len(table) == 3
    with pytest.raises(InputError, match=r"data\.pack=false"):
        fit(replace(config, data=replace(config.data, pack=True)), tmp_path / "packed")


def test_configurations(config):
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    with pytest.raises(InputError, match="needs `text` and a `tokenizer`"):
        SMALL.build(ItemStats(ITEMS, np.ones(ITEMS + 1)))
    with pytest.raises(InputError, match=r"11 codes, but model\.codes is 10"):
        SMALL.build(ItemStats(ITEMS, np.ones(ITEMS + 1), {CODES: (1,)}, (11,)))
    with pytest.raises(InputError, match=r"TIGER\.beam is 0"):
        replace(SMALL, beam=0)
