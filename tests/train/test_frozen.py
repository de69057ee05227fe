"""Frozen parameters: no gradient, no moments, no decay, no average; saved, restored and laid out as any parameter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from recjax.nn.groups import FROZEN, filled, is_frozen, split_frozen
from recjax.parallel.mesh import MeshShape
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.loop import fit
from recjax.train.optimiser import Adam, AdamW
from recjax.train.state import abstract_start, initial_state, start_function
from recjax.train.step import make_train_step
from recjax.typing import InputError
from tests.train.frozen import FrozenToy
from tests.train.toy import NO_COLUMNS, OneDevice, ToyLoader, ToyModel, interrupt_at, toy_config, toy_task

OPTIM = AdamW(0.02, weight_decay=0.5, clip=1.0, no_decay=())


def run(model, freeze=(), steps=3, ema=0.9, **step):
    optimiser = OPTIM.build(steps)
    state = initial_state(model, optimiser, ToyLoader().batch(0), NO_COLUMNS, jax.random.key(0), True, freeze)
    first = jax.device_get(state)
    train_step = make_train_step(model, optimiser, ema=ema, freeze=freeze, **step)
    for number in range(steps):
        state, sums = train_step(state, ToyLoader().batch(number), NO_COLUMNS)
    return first, state, sums


def floats(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if leaf.ndim)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_parts_of_a_tree_and_back():
    tree = {"a": {"frozen": {"x": 1, "y": 2}, "b": 3}, "frozen_not": 4, "c": 5}
    trained, frozen = split_frozen(tree, ("^c$",))
    assert jax.tree.leaves(trained) == [3, 4] and jax.tree.leaves(frozen) == [1, 2, 5]
    assert filled(trained, frozen) == filled(frozen, trained) == tree
    assert is_frozen("a/frozen/x") and not is_frozen("a/frozen_not/x") and is_frozen("a/b", ("b$",))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_frozen_parameters_stay_and_have_no_moments(accumulate):
    first, state, _ = run(FrozenToy(), accumulate=accumulate)
    same(first.params[FROZEN], jax.device_get(state.params[FROZEN]))
    assert state.params[FROZEN]["group"].dtype == jnp.int32
    assert np.abs(first.params["items"] - state.params["items"]).max() > 0
    assert jax.tree.leaves(state.ema[FROZEN]) == []
    same(state.evaluated[FROZEN], first.params[FROZEN])
    trained = floats(split_frozen(state.params)[0])
    whole = jax.eval_shape(ToyModel().init, jax.random.key(0), None, NO_COLUMNS)
    assert floats(state.opt_state) == 2 * trained == 2 * floats(whole)


def test_the_trained_part_moves_as_if_the_rest_were_constants():
    """The same step by hand: gradient of the trained part, its own norm, Adam, decay."""
    model, optimiser = FrozenToy(noise=0.0), OPTIM.build(1)
    first, state, sums = run(model, steps=1)
    (trained, frozen), batch = split_frozen(first.params), ToyLoader().batch(0)

    @jax.jit
    def step(trained):
        grads = jax.grad(lambda part: model.loss(filled(part, frozen), batch, NO_COLUMNS, None)[0])(trained)
        updates, _ = optimiser.update(grads, optimiser.init(trained), trained)
        return grads, optax.apply_updates(trained, updates)

    grads, expected = jax.device_get(step(trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), expected, split_frozen(state.params)[0])
    np.testing.assert_allclose(sums["grad_norm"][0], optax.tree.norm(grads), rtol=1e-5)


def test_patterns_freeze_what_a_model_trains():
    first, state, _ = run(ToyModel(), freeze=("^dense/",))
    same(first.params["dense"], jax.device_get(state.params["dense"]))
    assert (first.params["items"] != np.asarray(state.params["items"])).any()
    assert floats(state.opt_state) == 2 * state.params["items"].size


def test_no_gradient_is_computed_of_frozen_parameters():
    def products(freeze):
        optimiser, batch = optax.sgd(0.1), ToyLoader().batch(0)
        state = initial_state(ToyModel(), optimiser, batch, NO_COLUMNS, jax.random.key(0), False, freeze)
        step = make_train_step(ToyModel(), optimiser, freeze=freeze)
        return step.lower(state, batch, NO_COLUMNS).as_text().count("dot_general")

    assert products(("dense/kernel",)) == products(()) - 1  # the kernel's


@pytest.fixture(scope="module")
def alone():
    """The state after three steps on one device."""
    return run(FrozenToy(), freeze=("^dense/bias$",))[1]


@pytest.mark.parametrize("shard", ["none", "optimiser", "all"])
def test_four_devices_give_the_same(shard, alone):
    model, optimiser, freeze = FrozenToy(), OPTIM.build(3), ("^dense/bias$",)
    with jax.set_mesh(mesh := MeshShape(model=2).build(jax.devices()[:4])):
        start, key = start_function(model, optimiser, ema=True, freeze=freeze), jax.random.key(0)
        batch = ToyLoader().batch(0)
        target = abstract_start(start, model, optimiser, batch, NO_COLUMNS, mesh, key=key, shard=shard)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
        state = jax.jit(start, out_shardings=shardings)(key, batch, NO_COLUMNS, None)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        step = make_train_step(model, optimiser, ema=0.9, shardings=(shardings, replicated), shard=shard, freeze=freeze)
        for number in range(3):
            before = state
            state, _ = step(state, ToyLoader().batch(number), NO_COLUMNS)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        assert step._cache_size() == 1
    for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def config(**train):
    return toy_config(optim=OPTIM, ema=0.9, **train)


def held(folder, averaged=True, step=12):
    with Checkpoints(folder / "checkpoints", writes=False) as checkpoints, jax.set_mesh(mesh := OneDevice().build()):
        params = jax.eval_shape(FrozenToy().init, jax.random.key(0), None, NO_COLUMNS)
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), params)
        return jax.device_get(checkpoints.restore_params(step, target, averaged)), checkpoints.shapes(step, averaged)


def test_a_run_is_saved_resumed_and_started_from(tmp_path):
    task = toy_task(model=FrozenToy())
    fit(config(), tmp_path / "unbroken", task)
    fit(config(), tmp_path / "broken", dataclasses.replace(task, loader=ToyLoader(on_step=interrupt_at(4))))
    fit(config(), tmp_path / "broken", task)
    (average, shapes), (plain, others) = (held(tmp_path / "unbroken", averaged) for averaged in (True, False))
    same(average, held(tmp_path / "broken")[0])
    same(average[FROZEN], plain[FROZEN])
    assert (average["items"] != plain["items"]).any()
    assert shapes.keys() == others.keys() and shapes["frozen/centroids"] == (4, 8)
    start = str(tmp_path / "unbroken")
    fit(config(start_from=start, steps=1, freeze=("items|dense/k",)), tmp_path / "next", task)
    following = held(tmp_path / "next", step=1)[0]
    same(following[FROZEN], average[FROZEN])


def test_parameters_that_come_with_the_task_stand_beside_those_of_the_model(tmp_path):
    params = {FROZEN: {"weights": np.arange(5.0, dtype=np.float32), "switch": np.zeros((), np.float32)}}
    fit(config(steps=2), tmp_path, toy_task(model=FrozenToy(), params=params))
    with Checkpoints(tmp_path / "checkpoints", writes=False) as checkpoints:
        assert checkpoints.shapes(2, True)["frozen/weights"] == (5,)
    assert held(tmp_path, step=2)[0][FROZEN]["switch"] == 0


@pytest.mark.parametrize(
    ("model", "freeze", "optim", "message"),
    [
        (ToyModel(), ("dnse",), Adam(), "train.freeze has 'dnse', which is in no parameter's path: dense/bias"),
        (ToyModel(), (".",), Adam(), "nothing is left to train: all 3 parameters"),
        (FrozenToy(), (), Adam(sparse=True), "optim.sparse does not serve frozen parameters, but frozen/centroids"),
    ],
)
def test_what_cannot_be_frozen(model, freeze, optim, message):
    optimiser = optim.build(1, ("items",))
    with pytest.raises(InputError, match=message):
        initial_state(model, optimiser, ToyLoader().batch(0), NO_COLUMNS, jax.random.key(0), False, freeze)


def test_a_pattern_that_is_none():
    with pytest.raises(InputError, match=r"Train\.freeze has '\(', which is no regular expression"):
        config(freeze=("(",))
