from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recjax.parallel.mesh import MeshShape
from recjax.train.state import abstract_state, initial_state
from recjax.train.step import make_train_step
from recjax.typing import InputError
from tests.train.toy import NO_COLUMNS, ToyLoader, ToyModel


def start(model, optimiser, ema=False, seed=0):
    return initial_state(model, optimiser, ToyLoader().batch(0), NO_COLUMNS, jax.random.key(seed), ema)


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_accumulation_gives_the_gradient_of_the_whole_batch(parts):
    model, optimiser = ToyModel(noise=0.0), optax.sgd(1.0)
    batch = ToyLoader().batch(3)
    weights = np.array(batch.weights)
    weights[:8] = 0  # parts of very different weight, some of them without any
    batch = type(batch)(batch.items, batch.segments, batch.positions, batch.targets, jnp.asarray(weights))
    whole, sums = make_train_step(model, optimiser)(start(model, optimiser), batch, NO_COLUMNS)
    split, split_sums = make_train_step(model, optimiser, accumulate=parts)(start(model, optimiser), batch, NO_COLUMNS)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(split.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(sums[name], split_sums[name], rtol=1e-5)


def test_arrays_by_name_are_split_with_their_rows():
    class Scaled(ToyModel):
        def loss(self, params, batch, *rest):
            scale = batch.more["scale"] * (batch.more["items"] == batch.items).all(axis=1)
            return super().loss(params, replace(batch, weights=batch.weights * scale[:, None]), *rest)

    model, optimiser, batch = Scaled(noise=0.0), optax.sgd(1.0), ToyLoader().batch(3)
    batch = replace(batch, more={"scale": jnp.arange(16.0), "items": batch.items})
    whole, _ = make_train_step(model, optimiser)(start(model, optimiser), batch, NO_COLUMNS)
    split, _ = make_train_step(model, optimiser, accumulate=4)(start(model, optimiser), batch, NO_COLUMNS)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(split.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_parts_of_a_batch_draw_different_randomness():
    model, optimiser = ToyModel(noise=0.5), optax.sgd(1.0)
    batch = ToyLoader().batch(0)
    rows = jax.tree.map(lambda x: jnp.repeat(x[:1], 16, axis=0), batch)
    _, one = make_train_step(model, optimiser, accumulate=2)(start(model, optimiser), rows, NO_COLUMNS)
    half = jax.tree.map(lambda x: x[:8], rows)
    state = start(model, optimiser)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(state.key), 0), 0)
    _, sums = model.loss(state.params, half, NO_COLUMNS, key)
    assert abs(float(one["loss"][0]) - 2 * float(sums["loss"][0])) > 1e-3


def test_accumulation_keeps_rows_on_their_devices():
    """Each part takes its rows from every device's own block: no collective moves the batch."""
    with jax.set_mesh(MeshShape().build()):
        model, optimiser = ToyModel(noise=0.0), optax.sgd(1.0)
        step = make_train_step(model, optimiser, accumulate=2)
        text = step.lower(start(model, optimiser), ToyLoader().batch(0), NO_COLUMNS).compile().as_text()
        assert "all-reduce" in text
        assert "all-to-all" not in text and "collective-permute" not in text and "all-gather" not in text


@pytest.fixture(scope="module")
def alone():
    """The state after four steps on one device."""
    model, optimiser = ToyModel(), optax.adam(1e-2)
    step, state = make_train_step(model, optimiser, ema=0.9), start(model, optimiser, ema=True)
    for number in range(4):
        state, _ = step(state, ToyLoader().batch(number), NO_COLUMNS)
    return state


@pytest.mark.parametrize("shard", ["none", "optimiser", "all"])
def test_state_is_donated_and_the_step_compiles_once(shard, alone):
    model, optimiser = ToyModel(), optax.adam(1e-2)
    with jax.set_mesh(mesh := MeshShape(model=2).build()):
        begin = partial(initial_state, model, optimiser, ema=True)
        arguments = {"batch": ToyLoader().batch(0), "items": NO_COLUMNS, "key": jax.random.key(0)}
        abstract = abstract_state(jax.eval_shape(begin, **arguments), mesh, model, shard)
        shardings = jax.tree.map(lambda x: x.sharding, abstract)
        state = jax.jit(begin, out_shardings=shardings)(**arguments)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        step = make_train_step(model, optimiser, ema=0.9, shardings=(shardings, replicated), shard=shard)
        for number in range(4):
            before = state
            state, _ = step(state, ToyLoader().batch(number), NO_COLUMNS)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        assert step._cache_size() == 1
        assert jax.tree.map(lambda x: x.sharding, state) == shardings
        memory = step.lower(state, ToyLoader().batch(0), NO_COLUMNS).compile().memory_analysis()
        size = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves((state.params, state.opt_state)))
        assert memory.alias_size_in_bytes >= size  # the new state is written over the old one
    for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_step_number(accumulate):
    model, optimiser = ToyModel(), optax.adam(1e-2)
    step = make_train_step(model, optimiser, ema=0.9, accumulate=accumulate)
    state, sums = step(start(model, optimiser, ema=True), ToyLoader(poison=1).batch(0), NO_COLUMNS)
    assert sums["finite"] == (1.0, 1.0)
    kept = jax.device_get((state.params, state.opt_state, state.ema))
    state, sums = step(state, ToyLoader(poison=1).batch(1), NO_COLUMNS)
    assert sums["finite"] == (0.0, 1.0)
    jax.tree.map(np.testing.assert_array_equal, kept, jax.device_get((state.params, state.opt_state, state.ema)))
    assert state.step == 2


def test_average_of_parameters():
    model, optimiser = ToyModel(), optax.adam(1e-2)
    step = make_train_step(model, optimiser, ema=0.75)
    state = start(model, optimiser, ema=True)
    expected = jax.device_get(state.ema)
    for number in range(3):
        state, _ = step(state, ToyLoader().batch(number), NO_COLUMNS)
        expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * np.asarray(p), expected, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), expected, state.evaluated)


def test_randomness_depends_on_the_step_and_nothing_else():
    model, optimiser = ToyModel(noise=0.5), optax.sgd(0.0)
    step = make_train_step(model, optimiser)
    state = start(model, optimiser)
    losses = []
    for _ in range(3):
        state, sums = step(state, ToyLoader().batch(0), NO_COLUMNS)
        losses.append(float(sums["loss"][0]))
    assert len(set(losses)) == 3
    _, sums = step(start(model, optimiser), ToyLoader().batch(0), NO_COLUMNS)
    assert float(sums["loss"][0]) == losses[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda mean, sums: mean, "gives no pair, expected"),
        (lambda mean, sums: (mean[None], sums), r"a mean of shape \(1,\)"),
        (lambda mean, sums: (mean, {"bpr": sums["loss"]}), "sums of bpr, expected one called 'loss'"),
        (lambda mean, sums: (mean, sums | {"gap": mean}), "'gap' is not a pair"),
    ],
)
def test_a_loss_that_gives_something_else_is_refused(change, said):
    class Wrong(ToyModel):
        def loss(self, *args):
            return change(*super().loss(*args))

    model, optimiser = Wrong(noise=0.0), optax.sgd(1.0)
    with pytest.raises(InputError, match=f"loss of Wrong .*{said}"):
        make_train_step(model, optimiser)(start(model, optimiser), ToyLoader().batch(0), NO_COLUMNS)
