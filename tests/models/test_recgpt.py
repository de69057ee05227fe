"""RecGPT against slow references: the text anchor, the objective, packing, several catalogs in one table."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.data.batches.views import Batch, Queries
from recjax.data.items import CODES, DENSITY, VECTORS, Items, joined, on_devices, text_items
from recjax.models.model import ItemStats
from recjax.models.recgpt import REPRESENTED, RecGPT, _columns
from recjax.typing import InputError

ITEMS, SIZES, WIDTH, LENGTH = 30, (5, 4), 6, 8
CONFIG = RecGPT(width=8, layers=1, heads=2, dropout=0.0, memory=3, positions=LENGTH, chunk=16)


def table_of(seed: int, items: int = ITEMS) -> Items:
    """A table of `ITEMS` rows, of which `items` are items."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(ITEMS + 1, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = rng.random(ITEMS + 1) < 0.8
    known[0] = False
    vectors[~known] = 0
    codes = np.stack([rng.integers(0, size, ITEMS + 1) for size in SIZES], axis=1)
    codes[0] = 0
    found = text_items(vectors, known, codes, rng.uniform(0.5, 1.5, ITEMS + 1))
    return replace(found, size=np.int32(items))


ONE = table_of(0)
# The model itself, and one whose items have vectors of their own; what tests ask of them is compiled once.
UNTRAINED = 30
COUNTS = np.where(np.arange(ITEMS + 1) == UNTRAINED, 0, 1)
PLAIN, OWN = (
    replace(CONFIG, own_width=width).build(ItemStats(ITEMS, COUNTS, ONE.row_shapes, SIZES)) for width in (0, 5)
)


@jax.jit
def loss_of(params, batch, table=ONE):
    return PLAIN.loss(params, batch, table, None)


@jax.jit
def states_of(params, batch):
    """States of all events, and representations of all items."""
    inputs = *PLAIN._inputs(batch, ONE), batch.segments, batch.positions
    items = PLAIN.represent(PLAIN._scoring_weights(params), _columns(ONE))
    return PLAIN.module.apply({"params": params}, *inputs), items


@jax.jit
def own_ranked(params, queries, targets, table=ONE):
    scoring = OWN.scoring(params, queries, table)
    return scoring.topk(queries.seen, ITEMS), scoring.rank(targets, queries.seen)[0]


@jax.jit
def own_gradient(params, batch, table=ONE):
    return jax.value_and_grad(lambda params: OWN.loss(params, batch, table, None)[0])(params)


def queries_of(items: np.ndarray, lengths) -> Queries:
    items = np.where(np.arange(LENGTH) < np.asarray(lengths)[:, None], items, 0).astype(np.int32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (len(items), 1))
    return Queries(items, positions, np.asarray(lengths, np.int32), items)


def packed(table: Items, seed: int = 3) -> Batch:
    """Two rows: two histories and padding in the first, one history in the second."""
    rng, size = np.random.default_rng(seed), int(table.size)
    items = rng.integers(1, size + 1, (2, LENGTH)).astype(np.int32)
    segments = np.array([[1, 1, 1, 2, 2, 2, 0, 0], [1] * LENGTH], np.int32)
    items[segments == 0] = 0
    positions = np.array([[0, 1, 2, 0, 1, 2, 0, 0], list(range(LENGTH))], np.int32)
    weights = (segments > 0).astype(np.float32)
    targets = np.where(segments > 0, rng.integers(1, size + 1, items.shape), 0).astype(np.int32)
    targets[1, 4] = items[1, 2]  # a repeat: not ranked, so no target
    return Batch(items, segments, positions, targets, weights)


@pytest.fixture(scope="module")
def own():
    """A fresh model with vectors of its own for each item."""
    return jax.jit(OWN.init)(jax.random.key(0), packed(ONE), ONE)


def without_own(params):
    return {name: array for name, array in params.items() if name not in OWN.per_item}


@pytest.fixture(scope="module")
def trained(own):
    """Parameters away from their start, so that every term matters."""
    leaves, tree = jax.tree.flatten(without_own(own))
    rng = np.random.default_rng(1)
    moved = [leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, moved)


def test_an_untrained_model_ranks_as_the_text_anchor(own):
    lengths = np.array([1, 2, 5, 8])
    queries = queries_of(np.random.default_rng(2).integers(1, 31, (4, LENGTH)), lengths)
    # float64 reference: decayed sum of the last three vectors, density ** -0.5
    vectors, density = np.asarray(ONE[VECTORS], np.float64), np.asarray(ONE[DENSITY], np.float64)
    expected, orders = np.zeros((4, 31)), []
    for row, length in enumerate(lengths):
        history = np.asarray(queries.items)[row, :length]
        user = sum(0.5**age * vectors[item] for age, item in enumerate(history[::-1][:3]))
        scores = expected[row] = 12 * vectors @ user * density**-0.5
        open_items = np.setdiff1d(np.arange(1, 31), history)
        orders.append(sorted(open_items, key=lambda item, scores=scores: (-round(scores[item], 5), item)))
    (best, scores), ranks = own_ranked(own, queries, np.array([order[3] for order in orders], np.int32))
    for row, order in enumerate(orders):
        found = np.asarray(best[row])[: len(order)]
        np.testing.assert_allclose(np.asarray(scores[row])[: len(order)], expected[row][order], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(expected[row][found], expected[row][order], rtol=1e-4, atol=1e-4)
        assert int(ranks[row]) == list(found).index(order[3]) + 1


def test_a_prepared_catalog_ranks_as_one_that_is_not(own):
    rng = np.random.default_rng(4)
    params = {**own, "own": rng.normal(size=own["own"].shape).astype(np.float32), "code_share": np.float32(0.5)}
    params["vector"] = {**own["vector"], "kernel": rng.normal(size=own["vector"]["kernel"].shape).astype(np.float32)}
    queries, targets = queries_of(rng.integers(1, 31, (4, LENGTH)), [8, 3, 5, 1]), rng.integers(1, 31, 4)
    prepared = replace(ONE, prepared=jax.jit(OWN.prepare)(params, ONE))
    expected = own_ranked(params, queries, targets)
    found = own_ranked(params, queries, targets, prepared)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    turned = replace(ONE, prepared={REPRESENTED: -prepared.prepared[REPRESENTED]})
    other = own_ranked(params, queries, targets, turned)
    assert (np.asarray(other[1]) != np.asarray(found[1])).any()  # it is what is ranked by


def test_events_asked_for_alone_are_as_among_all(trained):
    """States at some events of each row, in any order: what is left out changes nothing."""
    batch, at = packed(ONE), np.array([[5, 0, 4], [7, 3, 3]])
    inputs = *PLAIN._inputs(batch, ONE), batch.segments, batch.positions
    some = jax.jit(PLAIN.module.apply)({"params": trained}, *inputs, at)
    every = np.asarray(states_of(trained, batch)[0])
    np.testing.assert_allclose(some, np.take_along_axis(every, at[..., None], axis=1), atol=2e-5)


def test_loss_is_the_mixture_over_the_unseen_catalog(trained):
    batch = packed(ONE)
    loss, sums = loss_of(trained, batch)
    states, items = (np.asarray(array, np.float64) for array in states_of(trained, batch))
    embedding = np.asarray(trained["codes"], np.float64)
    p, offset = 1 / (1 + np.exp(-float(trained["background"]))), (0, SIZES[0])
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
        catalog -= np.log(p * share + (1 - p) / ITEMS)
        for slot, size in enumerate(SIZES):
            logits = embedding[offset[slot] : offset[slot] + size] @ out[slot]
            code += (np.logaddexp.reduce(logits) - logits[ONE[CODES][target, slot]]) / len(SIZES)
        weight += 1
    assert weight == float(sums["loss"][1]) < batch.weights.sum()
    np.testing.assert_allclose(float(sums["catalog_loss"][0]), catalog, rtol=1e-4)
    np.testing.assert_allclose(float(sums["code_loss"][0]), code, rtol=1e-4)
    np.testing.assert_allclose(float(loss), (catalog + CONFIG.code_weight * code) / weight, rtol=1e-4)


def test_drawn_negatives_estimate_the_normaliser(trained):
    """exp of the estimate is the sum over the catalog on average."""
    draws, keys = 8, jax.random.split(jax.random.key(5), 4_000)
    model = replace(CONFIG, negatives=draws).build(PLAIN.stats)
    items = np.asarray(states_of(trained, packed(ONE))[1])
    rng = np.random.default_rng(5)
    state, targets = rng.normal(size=(2, items.shape[1])).astype(np.float32), np.array([7, 30])
    had = np.array([[3, 0, 4, 4], [0, 29, 1, 3]])
    score = np.sum(state * items[targets], axis=-1)
    used = model._scoring_weights(trained)
    estimates = jax.jit(
        jax.vmap(lambda used, key: model._sampled_normaliser(used, ONE, key, state, score, targets, had), (None, 0))
    )(used, keys)
    sums = np.exp(np.asarray(estimates, np.float64))
    competes = np.arange(1, 31) != had[:, :, None]
    expected = np.sum(np.exp(state @ items[1:].T) * competes.all(axis=1), axis=1)
    assert (np.std(sums, axis=0) > 0).all()  # other items at every step
    np.testing.assert_array_less(np.abs(sums.mean(axis=0) - expected), 4 * sums.std(axis=0) / len(keys) ** 0.5)
    assert (sums.std(axis=0) / len(keys) ** 0.5 < 0.05 * expected).all()  # the mean is known well enough to tell


def test_own_vectors_start_at_nothing_and_tell_items_of_one_text_apart(own):
    table = ONE.adding({name: np.concatenate([column[:29], column[27:29]]) for name, column in ONE.columns.items()})
    batch = packed(replace(table, size=np.int32(26)))
    without = without_own(own)
    assert set(own) - set(without) == set(OWN.per_item) == {"own", "own_in", "own_out"}
    assert jax.tree.structure(without) == jax.tree.structure(jax.eval_shape(PLAIN.init, jax.random.key(0), batch, ONE))
    loss, grads = own_gradient(own, batch, table)
    np.testing.assert_allclose(loss, loss_of(without, batch, table)[0], rtol=1e-6)
    assert np.abs(grads["own"][1:31]).max() > 0
    # Items 27 and 29 have one text and one tuple of codes; after a step the one that was a target stands first.
    told = replace(batch, targets=np.where(batch.weights > 0, 29, 0).astype(np.int32))
    moved = {**own, "own": own["own"] - 0.1 * own_gradient(own, told, table)[1]["own"]}
    queries = queries_of(np.tile(batch.items[:1], (4, 1)), [3, 3, 3, 3])
    (items, scores), _ = own_ranked(moved, queries, np.ones(4, np.int32), table)
    items, scores = np.asarray(items[0]).tolist(), np.asarray(scores[0])
    assert items.index(29) < items.index(27)
    assert scores[items.index(29)] > scores[items.index(27)]


def test_an_item_without_training_events_is_known_by_its_text_alone(own):
    """Its own vector has no gradient, though it is a negative of every target, and does not count in its score."""
    _, grads = own_gradient(own, packed(ONE))
    moved = np.abs(grads["own"]).max(axis=1) > 0
    assert moved[1:UNTRAINED].all() and not moved[UNTRAINED]
    represented = jax.jit(lambda params: OWN.represent(OWN._scoring_weights(params), _columns(ONE)))
    filled = (np.full_like(own["own"], number) for number in (0, 1))
    items = [np.asarray(represented({**own, "own": vectors})) for vectors in filled]
    np.testing.assert_array_equal(items[0][UNTRAINED], items[1][UNTRAINED])
    assert (items[0][:UNTRAINED, -5:] != items[1][:UNTRAINED, -5:]).all()


def test_histories_of_a_row_do_not_see_each_other(trained):
    batch = packed(ONE)
    changed = batch.items.copy()
    changed[0, 1] = changed[0, 1] % ITEMS + 1
    one, other = (np.asarray(states_of(trained, replace(batch, items=items))[0]) for items in (batch.items, changed))
    same = np.ones((2, LENGTH), bool)
    same[0, 1:3] = False  # what comes after the change in its own history
    np.testing.assert_array_equal(one[same], other[same])
    assert (one[0, 1:3] != other[0, 1:3]).any()


def test_catalogs_of_one_table_share_a_compilation(trained):
    two = table_of(1, items=20)
    table, starts = joined([ONE, two])
    table = on_devices(table)
    traces = []

    @jax.jit
    def loss(params, batch, items):
        traces.append(None)
        return PLAIN.loss(params, batch, items, None)[0]

    for number, alone in enumerate((ONE, two)):
        here = replace(table, start=jnp.int32(starts[number]), size=jnp.int32(alone.size))
        batch = packed(alone)
        np.testing.assert_allclose(loss(trained, batch, here), loss_of(trained, batch, alone)[0], rtol=1e-5)
    assert len(traces) == 1


def test_a_few_steps_lower_the_loss(own):
    batch, params, losses = packed(ONE), own, []
    for _ in range(30):
        loss, grads = own_gradient(params, batch)
        params = jax.tree.map(lambda param, grad: param - np.float32(0.3) * np.asarray(grad), params, grads)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]


def test_what_cannot_be_built():
    with pytest.raises(InputError, match="needs `text`"):
        CONFIG.build(ItemStats(ITEMS, np.ones(31)))
    with pytest.raises(InputError, match="tokenizer"):
        CONFIG.build(ItemStats(ITEMS, np.ones(31), ONE.row_shapes))
    with pytest.raises(InputError, match=r"RecGPT\.memory is 0"):
        RecGPT(memory=0)
    with pytest.raises(InputError, match=r"RecGPT\.own_width is -1"):
        RecGPT(own_width=-1)
    with pytest.raises(InputError, match="nothing to read"):
        RecGPT(codes=False, aux=False)
    with pytest.raises(InputError, match="background"):
        RecGPT(background=0.0)
