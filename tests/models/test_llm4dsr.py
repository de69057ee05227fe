"""LLM4DSR: events that were replaced, found and put right, and the dataset that is made of that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import polars as pl
import pytest

import recjax
from recjax.config import RunConfig
from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Data, Loader
from recjax.data.batches.views import Cloze, Shifted
from recjax.data.items import bare_items
from recjax.data.noise import Noisy, training_places
from recjax.data.prepare.preparation import Preparation
from recjax.data.splits import LeaveOneOut
from recjax.data.store.prepared import find
from recjax.data.target_sets import RandomSplit
from recjax.evaluate.corrections import Corrections, corrections, replaced
from recjax.evaluate.denoising import Denoising, auc, counted_doubts
from recjax.evaluate.evaluator import EvaluationData
from recjax.evaluate.protocol import Evaluate
from recjax.models.llm4dsr import LLM4DSR
from recjax.models.model import ItemStats
from recjax.models.sasrec import SASRec
from recjax.parallel.mesh import MeshShape
from recjax.settings import SettingError
from recjax.train.loop import fit
from recjax.train.optimiser import Adam
from recjax.train.schedule import Train
from recjax.typing import InputError
from tests.drawn import drawn_for
from tests.evaluate import toy
from tests.tiny import on_one_device, tiny_datasets

KINDS, EACH, ROWS, LENGTH = 4, 10, 64, 8
ITEMS = KINDS * EACH
STATS, KNOWN = ItemStats(ITEMS, np.ones(ITEMS + 1, np.int64)), bare_items(ITEMS)
VIEW = Cloze(LENGTH + 1, align="left", mask_prob=0.4, last_copy=False)
SIZE: dict[str, Any] = dict(width=16, layers=1, inner=16, norm="pre", dropout=0.0, max_length=LENGTH + 1)


def histories(seed: int) -> Histories:
    """Each user has items of one kind."""
    random = np.random.default_rng(seed)
    kinds = np.arange(ROWS)[:, None] % KINDS
    items = (1 + kinds * EACH + random.integers(0, EACH, (ROWS, LENGTH))).astype(np.int32)
    return Histories.concatenated(np.full(ROWS, LENGTH), items.ravel(), np.arange(items.size), np.arange(ROWS))


def test_the_head_that_judges_finds_what_was_replaced_and_the_other_puts_it_right():
    """In histories that it has not seen; without training of the head, `detection=0`, all doubts are alike."""
    model, optimiser, steps = LLM4DSR(**SIZE).build(STATS), optax.adam(0.01), 150
    loader = Loader(histories(0), VIEW, ROWS, None, 0, ITEMS)
    batches = jax.tree.map(lambda *x: np.stack(x), *[loader.host_batch(step) for step in range(steps)])

    @jax.jit
    def trained(params):
        def step(carried, given):
            params, state = carried
            batch, key = given
            updates, state = optimiser.update(jax.grad(lambda p: model.loss(p, batch, KNOWN, key)[0])(params), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, (params, optimiser.init(params)), (batches, keys))[0][0]

    params = trained(drawn_for(model.init, jax.random.key(0), loader.host_batch(0), KNOWN))
    clean, random = histories(1), np.random.default_rng(2)
    wrong = random.random(len(clean.items)) < 0.1
    noisy = np.where(wrong, (clean.items - 1 + EACH * random.integers(1, KINDS, len(wrong))) % ITEMS + 1, clean.items)
    found = corrections(model, params, replace(clean, items=noisy.astype(np.int32)), VIEW, KNOWN)
    right = (found.items - 1) // EACH == (clean.items - 1) // EACH
    assert auc(wrong, found.doubts) > 0.95 and right[wrong].mean() > 0.7  # chance 0.25


@pytest.mark.parametrize("alike", [None, "title"])
def test_noise_is_of_training_events_alone(alike):
    data = toy.dataset()
    plain, found, again = LeaveOneOut().split(data), *(Noisy(share=0.3, alike=alike).split(data) for _ in range(2))
    np.testing.assert_array_equal(found.train.items, again.train.items)
    np.testing.assert_array_equal(training_places(data, found), training_places(data, plain))
    wrong = found.train.items != plain.train.items
    assert wrong.sum() == found.notes["replaced_events"] and "0.3 of the training events" in found.name
    titles = np.array(["", *data.catalog["title"].fill_null("")])
    same = titles[found.train.items] == titles[plain.train.items]
    assert 0.15 < wrong.mean() < 0.35 if alike is None else same.all() and wrong.any()
    for part in ("validation", "test"):
        own, noisy = plain.examples(part), found.examples(part)
        np.testing.assert_array_equal(own.targets, noisy.targets)
        assert 0 < (own.histories.items != noisy.histories.items).mean() < 0.35
    with pytest.raises(InputError, match="not the beginnings"):
        Noisy(base=RandomSplit()).split(data)
    with pytest.raises(InputError, match="no catalog column 'colour'"):
        Noisy(alike="colour").split(data)


def test_the_most_doubted_events_are_replaced_and_no_item_goes():
    items, window = np.array([1, 2, 3, 1, 4, 1]), np.array([0, 0, 0, 1, 1, 1])
    found = Corrections(np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0]), np.array([9, 8, 7, 6, 5, 4]), window)
    assert replaced(items, found, 0.0, 2).tolist() == items.tolist()
    assert replaced(items, found, 0.5, 2).tolist() == [9, 2, 3, 1, 4, 1]  # 2 has no other event, 3 is third
    assert replaced(items, found, 1.0, 3).tolist() == [9, 2, 3, 6, 4, 1]  # the third of item 1 is kept
    counts = counted_doubts(Histories.concatenated(np.array([3, 3]), items, items, np.arange(2)), found, 4)
    assert counts["rarity"].tolist() == [-3, -1, -1, -3, -1, -3]


def test_a_dataset_without_what_looks_out_of_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From a run on a noisy split to a dataset for any other model; held-out events stay."""
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    folder = str(tiny_datasets(tmp_path / "data", ["shop"]) / "shop")
    config = RunConfig(
        name="noise",
        data=Data(folder, view=replace(VIEW, max_length=12), split=Noisy(), rows=8),
        model=LLM4DSR(**{**SIZE, "max_length": 12}),
        optim=Adam(learning_rate=0.01),
        mesh=MeshShape(),
        train=Train(steps=2, evaluate_every=0),
        evaluate=(Evaluate(bootstrap=0), Denoising()),
    )
    fit(config, tmp_path / "run")
    model = recjax.load(tmp_path / "run")
    report = model.evaluate(floors=True).tasks["Denoising"]
    assert {"rarity", "co_occurrence"} == set(report.floors) and report.counts["replaced"] > 50
    assert 0 < report.metrics["all"]["auc"] < 1 and report.metrics["all"]["restored"] < 1
    same, table = model.rewritten(share=0.0), model.rewritten(share=0.1)
    assert same["was"].is_null().all() and 0 < table["was"].is_not_null().sum() <= round(0.1 * table.height)
    assert (table["doubt"].is_null().sum(), table.filter(pl.col("doubt").is_null())["was"].count()) == (2 * 120, 0)
    (tmp_path / "clean").mkdir()
    table.write_csv(tmp_path / "clean" / "interactions.csv")
    model.run.dataset.catalog.write_csv(tmp_path / "clean" / "items.csv")
    before, after = find(folder, Preparation()).of_events(), find(str(tmp_path / "clean"), Preparation()).of_events()
    assert after.n_items == before.n_items and after.user_ids == before.user_ids
    np.testing.assert_array_equal(after.offsets, before.offsets)
    last = after.offsets[1:] - 1
    assert [after.item_ids[item] for item in after.items[last]] == [before.item_ids[i] for i in before.items[last]]
    with pytest.raises(InputError, match="a share from 0 to 1"):
        model.rewritten(share=2.0)


def test_what_cannot_be_says_so():
    wrongs: tuple[dict[str, Any], ...] = ({"shown": 0.7, "kept": 0.5}, {"hard": 2.0}, {"detection": -1.0})
    for wrong in wrongs:
        with pytest.raises(SettingError):
            LLM4DSR(**wrong)
    data = toy.dataset()
    with pytest.raises(InputError, match="has to be Noisy"):
        Denoising().check(EvaluationData(data, toy.split(data), toy.VIEW))
    model = SASRec(width=8, max_length=6).build(ItemStats(toy.ITEMS, np.ones(toy.ITEMS + 1)))
    with pytest.raises(InputError, match="does not say which events are out of place"):
        corrections(model, {}, toy.split(data).train, Shifted(6))
