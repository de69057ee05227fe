"""ICSRec: what its terms compare, what they leave alone, and that a run goes on exactly across a refresh."""

import dataclasses
import shutil
from functools import cache
from typing import Any

import jax
import numpy as np
import optax
import pytest

from recjax.config import RunConfig
from recjax.data.batches.derived import Prefixes
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Data, Loader
from recjax.data.batches.partners import Partnered, SameTarget
from recjax.data.batches.views import Shifted
from recjax.data.items import bare_items
from recjax.evaluate.protocol import Evaluate
from recjax.models.icsrec import ICSRec
from recjax.models.model import ItemStats
from recjax.models.next_item import NextItem
from recjax.nn.groups import FROZEN
from recjax.parallel.mesh import MeshShape
from recjax.train.folder.run_folder import CHECKPOINTS
from recjax.train.loop import Train, fit
from recjax.train.optimiser import Adam
from recjax.train.run import load_run, read_record
from recjax.typing import InputError
from tests.drawn import drawn_for
from tests.tiny import on_one_device
from tests.train.real import write_datasets

LENGTH, ITEMS, CLUSTERS, WIDTH = 6, 12, 5, 8
BARE, STATS = bare_items(ITEMS), ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64))
SIZE: dict[str, Any] = dict(width=WIDTH, layers=1, heads=2, max_length=LENGTH, dropout=0.1)
PREFIXES = Partnered(Prefixes(Shifted(LENGTH, targets=1), least=4), SameTarget())
SLOTS = Partnered(Shifted(LENGTH), SameTarget(slots=True))


@cache
def batch(view):
    """The first rows of thirty-two histories, many of which share their targets."""
    items = np.random.default_rng(0).integers(1, ITEMS + 1, 192).astype(np.int32)
    histories = Histories.concatenated(np.full(32, 6), items, np.arange(192), np.arange(32))
    return Loader(histories, view, 16, None, 0, ITEMS, packed=False).host_batch(0)


@cache
def built():
    """The model with both terms; its parameters, with centroids that differ; and the jitted sums of its terms."""
    model = ICSRec(**SIZE, clusters=CLUSTERS).build(STATS)
    params = drawn_for(model.init, jax.random.key(0), batch(SLOTS), BARE)
    params[FROZEN]["centroids"] = np.random.default_rng(1).normal(size=(CLUSTERS, WIDTH)).astype(np.float32)

    @jax.jit
    def summed(params, rows, states):
        return {name: term[1] for name, term in model.terms(params, rows, BARE, states, None).items()}

    return model, params, summed


def hidden(seed=2):
    return np.random.default_rng(seed).normal(size=(16, LENGTH, WIDTH)).astype(np.float32)


def same(a, b, rtol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol), a, b)


def test_training_pulls_the_states_of_one_target_together():
    """Of two models that differ in the coarse term alone, the one with it tells partners from other samples."""
    rows = batch(PREFIXES)
    size = {**SIZE, "dropout": 0.0}
    contrasted, alone = (ICSRec(**size, coarse=coarse, fine=0.0).build(STATS) for coarse in (1.0, 0.0))
    start = drawn_for(contrasted.init, jax.random.key(0), rows, BARE)
    optimiser = optax.adam(3e-3)
    moments = jax.jit(optimiser.init)(start)

    measured = jax.jit(lambda params: contrasted.loss(params, rows, BARE, None)[1]["coarse"])

    def coarse(params):
        total, weight = map(float, measured(params))
        return total / weight

    def trained(model):
        @jax.jit
        def step(params, state):
            updates, state = optimiser.update(jax.grad(lambda p: model.loss(p, rows, BARE, None)[0])(params), state)
            return optax.apply_updates(params, updates), state

        params, state = start, moments
        for _ in range(60):
            params, state = step(params, state)
        return coarse(params)

    assert trained(contrasted) < 0.5 * min(coarse(start), trained(alone))


def test_without_its_terms_it_is_the_model_of_prefixes_bit_for_bit():
    base = NextItem(**SIZE, norm="post", input_norm=True, scale=False).build(STATS)
    model = ICSRec(**SIZE, coarse=0.0, fine=0.0).build(STATS)
    assert model.refresh_every is None

    def graded(model):
        params = jax.jit(model.init)(jax.random.key(0), batch(PREFIXES), BARE)
        loss = jax.value_and_grad(lambda p, key: model.loss(p, batch(PREFIXES), BARE, key), has_aux=True)
        return params, jax.jit(loss)(params, jax.random.key(3))

    same(graded(model), graded(base))


def test_prefixes_of_one_target_are_no_negatives_of_each_other():
    _, params, summed = built()
    rows = batch(SLOTS)
    alike = dataclasses.replace(rows, targets=np.full_like(rows.targets, 4))
    assert summed(params, alike, hidden())["coarse"] == 0 < summed(params, rows, hidden())["coarse"]


def test_labels_of_clusters_mean_nothing():
    _, params, summed = built()
    found = jax.device_get(summed(params, batch(SLOTS), hidden()))
    centroids = params[FROZEN]["centroids"]
    for others, equal in ((centroids[[3, 0, 4, 1, 2]], True), (-centroids, False)):
        again = jax.device_get(summed({**params, FROZEN: {"centroids": others}}, batch(SLOTS), hidden()))
        assert again["coarse"] == found["coarse"]
        for name in ("fine", "fine_partner"):
            assert (abs(again[name] - found[name]) < 1e-4) == equal


def test_a_sample_without_partner_stands_alone():
    _, params, summed = built()
    rows = batch(SLOTS)
    weights = np.arange(16, dtype=np.float32).clip(0, 1)

    def with_first(items):
        changed = rows.more["partner_items"].copy()
        changed[0] = items
        more = rows.more | {"partner_weights": weights, "partner_items": changed}
        return summed(params, dataclasses.replace(rows, more=more), hidden())

    same(with_first(1), with_first(2))


def test_slots_are_compared_where_they_were_drawn():
    _, params, summed = built()
    at = np.arange(LENGTH) == batch(SLOTS).more["partner_places"][:, None]
    elsewhere = np.where(at[..., None], hidden(), hidden(5))
    same(summed(params, batch(SLOTS), hidden()), summed(params, batch(SLOTS), elsewhere))


def test_a_view_without_partners_is_refused():
    model, params, _ = built()
    with pytest.raises(InputError, match=r"data\.view has to be a Partnered view"):
        model.terms(params, dataclasses.replace(batch(SLOTS), more={}), BARE, hidden(), None)


def test_a_run_stopped_at_a_refresh_is_the_unbroken_one(tmp_path, monkeypatch):
    for name, value in write_datasets(tmp_path).items():
        monkeypatch.setenv(name, value)
    on_one_device(monkeypatch)
    config = RunConfig(
        name="small",
        data=Data("small", view=Partnered(Shifted(12), SameTarget(slots=True)), rows=16, pack=False),
        model=ICSRec(width=WIDTH, layers=1, max_length=12, clusters=CLUSTERS, rounds=2),
        optim=Adam(learning_rate=0.01),
        mesh=MeshShape(),
        train=Train(steps=7, evaluate_every=0, save_every=5),
        evaluate=Evaluate(),
    )
    fit(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / CHECKPOINTS / "7")
    assert read_record(tmp_path / "parts")[0] == 5  # the refresh of the second epoch is due
    assert fit(config, tmp_path / "parts").step == 7
    whole, parts = (load_run(tmp_path / name).params for name in ("whole", "parts"))
    same(whole, parts)
    assert np.ptp(whole[FROZEN]["centroids"]) > 0
