"""The FSQ autoencoder: trained by the plain loop, and by the training loop through a task."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax.config import RunConfig
from recjax.data.items import Items
from recjax.models.model import ItemStats, Model
from recjax.parallel.mesh import MeshShape
from recjax.tokenizers.fsq import FSQ
from recjax.tokenizers.preparation import prepared
from recjax.tokenizers.tokenizer import tokenize
from recjax.tokenizers.training import VectorBatch, VectorBatches, train_plainly
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.loop import Train, fit
from recjax.train.optimiser import Adam
from recjax.train.state import abstract_state, initial_state
from recjax.train.task import Task

ITEMS, WIDTH = 90, 12
TINY = FSQ(slots=2, levels=(5, 4), layers=1, heads=2, dropout=0.1, steps=60, batch=16, learning_rate=0.01)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Stands for settings that a tokenizer does not have."""


@dataclasses.dataclass(frozen=True)
class Learner(Model):
    """A tokenizer's network as a system that the training loop trains."""

    network: Any
    stats: ItemStats

    def init(self, key, batch, items):
        del items
        return self.network.init(key, batch)

    def loss(self, params, batch, items, key):
        del items
        return self.network.loss(params, batch, key)


@dataclasses.dataclass(frozen=True)
class OneDevice:
    shard_state: str = "none"

    def build(self):
        return MeshShape().build(jax.devices()[:1])


def table():
    rng = np.random.default_rng(0)
    low = rng.normal(size=(ITEMS + 1, 3)) @ rng.normal(size=(3, WIDTH))
    known = np.arange(ITEMS + 1) > 0
    return low.astype(np.float32) * known[:, None], known


@jax.jit
def loss(params, batch):
    return TINY.model(WIDTH).loss(params, batch, None)[0]


def loss_of(state):
    vectors: Any = prepared(state["preparation"], *table())[1:]
    return float(loss(state["params"], VectorBatch(np.arange(ITEMS), vectors)))  # pyright: ignore[reportArgumentType]


@cache
def error_before():
    return loss_of(dataclasses.replace(TINY, steps=0).fit(*table(), jax.random.key(0)))


@cache
def plainly():
    return tokenize(TINY, *table(), jax.random.key(0), trainer=train_plainly)


def test_batches_use_every_item_once_an_epoch_and_depend_on_the_step_alone():
    vectors, known = table()
    known[[4, 9]] = False
    batches = VectorBatches(vectors, known, 8, seed=3)
    assert (batches.steps(1), batches.steps(2)) == (11, 22)
    first = [batches.batch(step) for step in range(11)]
    items = np.concatenate([batch.items for batch in first])
    np.testing.assert_array_equal(np.sort(items), np.flatnonzero(known))
    np.testing.assert_array_equal(first[5].vectors, vectors[np.asarray(first[5].items)])
    for step, batch in enumerate(batches.iterate(3, 6), start=3):
        np.testing.assert_array_equal(batch.items, first[step].items)
    assert not np.array_equal(batches.batch(11).items, first[0].items)
    other = VectorBatches(vectors, known, 8, seed=4)
    assert not np.array_equal(other.batch(0).items, first[0].items)


def test_gradients_reach_the_projection_through_the_rounding():
    vectors, known = table()
    model = TINY.model(WIDTH)
    batch = VectorBatches(vectors, known, 16).batch(0)
    params = jax.jit(model.init)(jax.random.key(0), batch)
    grads = jax.jit(jax.grad(lambda params: model.loss(params, batch, None)[0]))(params)
    assert np.abs(grads["project"]["kernel"]).max() > 1e-4
    assert params["project"]["kernel"].shape == (WIDTH // 2, 2)


def through_the_loop(folder):
    """A trainer that drives `recjax.train.loop.fit` in `folder`."""

    def trainer(model, batches, key):
        nothing, optim = Nothing(), Adam(model.learning_rate, schedule="cosine")
        train = Train(steps=model.steps, log_every=20, save_every=40, accumulate=2)
        config = RunConfig("tokenizer", nothing, TINY, optim, OneDevice(), train, nothing, seed=int(key[1]))
        learner = Learner(model, ItemStats(ITEMS, np.zeros(ITEMS + 1)))
        items = Items(jnp.int32(0), jnp.int32(ITEMS))
        task = Task("tiny", "f00d", learner, batches, (items,), None)
        result = fit(config, folder, task)
        assert result.step == model.steps and not result.preempted

        mesh, optimiser = OneDevice().build(), optim.build(model.steps)
        with Checkpoints(folder / "checkpoints", writes=False) as checkpoints, jax.set_mesh(mesh):
            shapes = jax.eval_shape(
                lambda key, batch: initial_state(learner, optimiser, batch, items, key, False),
                jax.random.key(0),
                batches.batch(0),
            )
            return checkpoints.restore(result.step, abstract_state(shapes, mesh, learner)).params

    return lambda model, batches, key: trainer(model, batches, jax.random.key_data(key) % 1000)


@pytest.mark.parametrize("by", ["plain", "loop"])
def test_training_lowers_the_reconstruction_error(by, tmp_path):
    trainer = through_the_loop(tmp_path)
    found = plainly() if by == "plain" else tokenize(TINY, *table(), jax.random.key(0), trainer=trainer)
    assert loss_of(found.state) < 0.6 * error_before()
    assert found.after.colliding == 0
    if by == "loop":
        assert (tmp_path / "metrics.jsonl").exists()


def test_the_same_key_trains_the_same_tokenizer():
    again = TINY.fit(*table(), jax.random.key(0))
    for one, other in zip(*map(jax.tree.leaves, (plainly().state, again)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_published_decoder_reads_the_last_slot_only():
    vectors, known = table()
    batch = VectorBatches(vectors, known, 4).batch(0)
    for published in (False, True):
        model = dataclasses.replace(TINY, published=published).model(WIDTH)
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
        assert shapes["hidden"]["kernel"].shape == (WIDTH // 2 if published else WIDTH, WIDTH)
