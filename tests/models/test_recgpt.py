"""RecGPT against slow references: the text anchor, the objective, packing, several catalogs in one table."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recjax.data.item_table import item_table, joined, on_devices
from recjax.data.views import Batch, Queries
from recjax.models.model import ItemStats
from recjax.models.recgpt import RecGPT, _columns
from recjax.typing import InputError

SIZES, WIDTH, LENGTH = (5, 4), 6, 8
CONFIG = RecGPT(width=8, layers=1, heads=2, dropout=0.0, memory=3, positions=LENGTH, chunk=16)


def table_of(items: int, seed: int):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items + 1, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = rng.random(items + 1) < 0.8
    known[0] = False
    vectors[~known] = 0
    codes = np.stack([rng.integers(0, size, items + 1) for size in SIZES], axis=1)
    codes[0] = 0
    return item_table(vectors, known, codes, rng.uniform(0.5, 1.5, items + 1))


ONE = table_of(30, 0)


def test_an_untrained_model_ranks_as_the_text_anchor():
    rng = np.random.default_rng(2)
    model = CONFIG.build(ItemStats(30, np.ones(31), ONE, SIZES))
    lengths = np.array([1, 2, 5, 8])
    items = np.where(np.arange(LENGTH) < lengths[:, None], rng.integers(1, 31, (4, LENGTH)), 0).astype(np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (4, 1))
    queries = Queries(items, positions, lengths.astype(np.int32), items, catalog=ONE)
    batch = Batch(items, (items > 0).astype(np.int32), positions, items, (items > 0).astype(np.float32), catalog=ONE)
    params = model.init(jax.random.key(0), batch)
    best, scores = model.rank(params, queries, 30)
    # float64 reference: decayed sum of the last three vectors, density ** -0.5
    vectors, density = np.asarray(ONE.vectors, np.float64), np.asarray(ONE.density, np.float64)
    for row, length in enumerate(lengths):
        history = items[row, :length]
        user = sum(0.5**age * vectors[item] for age, item in enumerate(history[::-1][:3]))
        expected = 12 * vectors @ user * density**-0.5
        open_items = np.setdiff1d(np.arange(1, 31), history)
        order = sorted(open_items, key=lambda item: (-round(expected[item], 5), item))
        found = np.asarray(best[row])[: len(order)]
        np.testing.assert_allclose(np.asarray(scores[row])[: len(order)], expected[order], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(expected[found], expected[order], rtol=1e-4, atol=1e-4)
        targets = np.full(4, order[3], np.int32)
        ranks, _ = model.target_rank(params, queries, targets)
        assert int(ranks[row]) == list(found).index(order[3]) + 1


def packed(items_of_catalog: int, table, seed: int = 3) -> Batch:
    """Two rows: two histories and padding in the first, one history in the second."""
    rng = np.random.default_rng(seed)
    items = rng.integers(1, items_of_catalog + 1, (2, LENGTH)).astype(np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 2, 0, 0], [1] * LENGTH], np.int32)
    items[segments == 0] = 0
    positions = np.array([[0, 1, 2, 0, 1, 2, 0, 0], list(range(LENGTH))], np.int32)
    weights = (segments > 0).astype(np.float32)
    targets = np.where(segments > 0, rng.integers(1, items_of_catalog + 1, items.shape), 0).astype(np.int32)
    targets[1, 4] = items[1, 2]  # a repeat: not ranked, so no target
    return Batch(items, segments, positions, targets, weights, catalog=table)


@pytest.fixture(scope="module")
def trained():
    """A model away from its start, so that every term matters."""
    model = CONFIG.build(ItemStats(30, np.ones(31), ONE, SIZES))
    params = model.init(jax.random.key(0), packed(30, ONE))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(tree, moved)


def test_loss_is_the_mixture_over_the_unseen_catalog(trained):
    model, params = trained
    batch = packed(30, ONE)
    loss, sums = jax.jit(lambda params, batch: model.loss(params, batch, None))(params, batch)
    states = model.module.apply({"params": params}, *model._inputs(batch, ONE), batch.segments, batch.positions)
    states = np.asarray(states, np.float64)
    represent = model.represent(model._used(params), _columns(ONE))
    items, embedding = np.asarray(represent, np.float64), np.asarray(params["codes"], np.float64)
    p, offset = 1 / (1 + np.exp(-float(params["background"]))), (0, SIZES[0])
    catalog = code = weight = 0.0
    for row, place in np.argwhere(batch.weights > 0):
        inside = batch.segments[row] == batch.segments[row, place]
        had = set(batch.items[row][inside & (np.arange(LENGTH) <= place)].tolist())
        target = int(batch.targets[row, place])
        if target in had:
            continue
        user, out = states[row, place][: items.shape[1]], states[row, place][items.shape[1] :].reshape(2, -1)
        scores = items[1:] @ user
        open_scores = [score for item, score in enumerate(scores, 1) if item not in had]
        share = np.exp(scores[target - 1] - np.logaddexp.reduce(open_scores))
        catalog -= np.log(p * share + (1 - p) / 30)
        for slot, size in enumerate(SIZES):
            logits = embedding[offset[slot] : offset[slot] + size] @ out[slot]
            code += (np.logaddexp.reduce(logits) - logits[ONE.codes[target, slot]]) / len(SIZES)
        weight += 1
    assert weight == float(sums["loss"][1]) < batch.weights.sum()
    np.testing.assert_allclose(float(sums["catalog_loss"][0]), catalog, rtol=1e-4)
    np.testing.assert_allclose(float(sums["code_loss"][0]), code, rtol=1e-4)
    np.testing.assert_allclose(float(loss), (catalog + CONFIG.code_weight * code) / weight, rtol=1e-4)


def test_drawn_negatives_estimate_the_normaliser(trained):
    """exp of the estimate is the sum over the catalog on average: draws are uniform, each stands for 29 / n others."""
    model, params = trained
    batch = packed(30, ONE)
    full = jax.jit(lambda params: model.loss(params, batch, None)[1]["catalog_loss"][0])
    config = replace(CONFIG, negatives=20_000, code_weight=0.0)
    drawn = config.build(ItemStats(30, np.ones(31), ONE, SIZES))
    few = replace(config, negatives=8).build(ItemStats(30, np.ones(31), ONE, SIZES))
    estimate = jax.jit(lambda params: drawn.loss(params, batch, None)[1]["catalog_loss"][0])
    np.testing.assert_allclose(estimate(params), full(params), rtol=5e-3)
    keys = jax.random.split(jax.random.key(5), 300)
    sums = jax.jit(jax.vmap(lambda key: few.loss(params, batch, key)[1]["catalog_loss"][0]))(keys)
    assert np.std(sums) > 0  # other items at every step
    assert np.mean(sums) < float(full(params)) + 3 * np.std(sums) / 300**0.5  # log of a mean: below on average


def test_own_vectors_start_at_nothing_and_tell_items_of_one_text_apart():
    table = replace(ONE, **{name: np.concatenate([getattr(ONE, name)[:29], getattr(ONE, name)[27:29]]) for name in ALL})
    plain, own = (replace(CONFIG, own_width=width).build(ItemStats(30, np.ones(31), table, SIZES)) for width in (0, 5))
    batch = packed(26, table)
    params = own.init(jax.random.key(0), batch)
    assert (
        set(params) - set(plain.init(jax.random.key(0), batch)) == set(own.own_arrays()) == {"own", "own_in", "own_out"}
    )
    without = {name: array for name, array in params.items() if name not in own.own_arrays()}
    (loss, _), grads = jax.jit(jax.value_and_grad(lambda p: own.loss(p, batch, None), has_aux=True))(params)
    np.testing.assert_allclose(loss, plain.loss(without, batch, None)[0], rtol=1e-6)
    assert np.abs(grads["own"][1:31]).max() > 0
    # Items 27 and 29 have one text and one tuple of codes; after a step the one that was a target stands first.
    queries = Queries(
        batch.items[:1, :3], batch.positions[:1, :3], np.array([3], np.int32), batch.items[:1, :3], catalog=table
    )
    told = replace(batch, targets=np.where(batch.weights > 0, 29, 0).astype(np.int32))
    grads = jax.grad(lambda p: own.loss(p, told, None)[0])(params)
    moved = {**params, "own": params["own"] - 0.1 * grads["own"]}
    items, scores = (np.asarray(array[0]).tolist() for array in own.rank(moved, queries, 30))
    assert items.index(29) < items.index(27)
    assert scores[items.index(29)] > scores[items.index(27)]


ALL = ("vectors", "codes", "known", "density")


def test_histories_of_a_row_do_not_see_each_other(trained):
    model, params = trained
    states = jax.jit(
        lambda batch: model.module.apply(
            {"params": params}, *model._inputs(batch, ONE), batch.segments, batch.positions
        )
    )
    batch = packed(30, ONE)
    changed = batch.items.copy()
    changed[0, 1] = changed[0, 1] % 30 + 1
    one, other = (np.asarray(states(replace(batch, items=items))) for items in (batch.items, changed))
    same = np.ones((2, LENGTH), bool)
    same[0, 1:3] = False  # what comes after the change in its own history
    np.testing.assert_array_equal(one[same], other[same])
    assert (one[0, 1:3] != other[0, 1:3]).any()


def test_catalogs_of_one_table_share_a_compilation(trained):
    model, params = trained
    two = table_of(20, 1)
    table, starts = joined([ONE, two])
    table = on_devices(table)
    traces = []

    @jax.jit
    def loss(params, batch):
        traces.append(None)
        return model.loss(params, batch, None)[0]

    for number, own in enumerate((ONE, two)):
        size = len(own.vectors) - 1
        here = replace(table, start=jnp.int32(starts[number]), size=jnp.int32(size))
        alone = model.loss(params, packed(size, own), None)[0]
        np.testing.assert_allclose(loss(params, packed(size, here)), alone, rtol=1e-5)
    assert len(traces) == 1


def test_a_few_steps_lower_the_loss():
    model = CONFIG.build(ItemStats(30, np.ones(31), ONE, SIZES))
    batch = jax.tree.map(jnp.asarray, packed(30, ONE))
    params, optimiser = model.init(jax.random.key(0), batch), optax.adam(3e-2)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state):
        (loss, _), grads = jax.value_and_grad(model.loss, has_aux=True)(params, batch, None)
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for _ in range(40):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_what_cannot_be_built():
    with pytest.raises(InputError, match="needs `text`"):
        CONFIG.build(ItemStats(30, np.ones(31)))
    with pytest.raises(InputError, match="tokenizer"):
        CONFIG.build(ItemStats(30, np.ones(31), ONE))
    with pytest.raises(InputError, match=r"model\.memory"):
        RecGPT(memory=0)
    with pytest.raises(InputError, match=r"model\.own_width is -1"):
        RecGPT(own_width=-1)
    with pytest.raises(InputError, match="nothing to read"):
        RecGPT(codes=False, aux=False)
    with pytest.raises(InputError, match="background"):
        RecGPT(background=0.0)
