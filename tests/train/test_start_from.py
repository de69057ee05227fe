"""Runs that start from the parameters of another: exactly those, on any dataset that texts reach, and no others."""

import dataclasses
import os
import shutil
import signal

import jax
import numpy as np
import polars as pl
import pytest

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.embedded.synthetic import synthetic
from recjax.evaluate.protocol import Evaluate
from recjax.models.model import ItemStats
from recjax.models.recgpt import RecGPT
from recjax.models.sasrec import SASRec
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.fsq import FSQ
from recjax.train import loop
from recjax.train.loop import Train, fit
from recjax.train.optimiser import Adam, AdamW
from recjax.train.run import load_alone, load_run
from recjax.train.warm_start import KnownItems
from recjax.typing import InputError
from tests.train import toy
from tests.train.toy import OneDevice, ToyModel, saved, toy_config, toy_task

STILL = 1e-30
"""A learning rate that moves nothing."""


def assert_same(one, other, atol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), one, other)


# --- a toy of item ids


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run with an average, whose best checkpoint is not its last."""
    folder = tmp_path_factory.mktemp("first")
    values = iter([0.1, 0.9, 0.3, 0.2])
    result = fit(toy_config(ema=0.9), folder, toy_task(validate=lambda params: {"ndcg@10": next(values)}))
    assert (result.best_step, result.step) == (6, 12)
    return folder


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_best_average_is_where_it_starts_and_all_else_is_new(tmp_path, first, ema):
    still = AdamW(learning_rate=STILL)
    fit(toy_config(optim=still, steps=1, ema=ema, start_from=str(first), evaluate_every=0), tmp_path, toy_task())
    before, after = saved(first, 6, ema=True)[0], saved(tmp_path, ema=ema is not None, optim=still, total=1)[0]
    assert_same(before.ema, after.params, 1e-20)
    assert np.abs(before.ema["items"] - before.params["items"]).max() > 1e-3  # the average was to be taken
    assert int(after.step) == 1
    if ema is not None:
        np.testing.assert_allclose(after.ema["items"], before.ema["items"], rtol=1e-6)
    count = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim == 0]
    assert count and all(int(leaf) <= 1 for leaf in count)


def test_what_cannot_be_started_from(tmp_path, first):
    def run(start_from, folder="run", **changes):
        return fit(
            toy_config(steps=1, evaluate_every=0, start_from=str(start_from)), tmp_path / folder, toy_task(**changes)
        )

    with pytest.raises(InputError, match=r"train\.start_from: .*absent is not a run folder"):
        run(tmp_path / "absent")
    shutil.copytree(first, tmp_path / "bare", ignore=lambda folder, names: [n for n in names if n.isdigit()])
    with pytest.raises(InputError, match=r"train\.start_from: .*no complete checkpoint yet"):
        run(tmp_path / "bare")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"dataset 'toy' with fingerprint f00d, but 'toy' has fingerprint 1"):
        run(first, fingerprint="1")
    with pytest.raises(InputError, match=r"1 of 3 arrays .*: items \(32, 8\) there, \(41, 8\) here"):
        run(first, model=ToyModel(stats=ItemStats(40, np.ones(41))))
    assert run(first).step == 1  # what failed had not claimed the folder


# --- RecGPT, from one catalog to another


def config(dataset: str, width: int = 8, optim: Adam = Adam(0.01), **train) -> RunConfig:  # noqa: B008
    return RunConfig(
        name="tiny",
        data=Data(dataset, view=Shifted(max_length=6), rows=8),
        model=RecGPT(width=width, layers=1, heads=2, memory=3, positions=4),
        optim=optim,
        mesh=OneDevice(),
        train=Train(**{"steps": 4, "evaluate_every": 0, "save_every": 4, **train}),
        evaluate=Evaluate(users_per_batch=32),
        text=TextSpace((Channel(Hashed(32)),)),
        tokenizer=FSQ(slots=2, levels=(5, 4), layers=1, heads=2, steps=2, batch=16),
    )


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    for name in ("synthetic-a", "synthetic-b"):
        raw = synthetic(name, users=60, items=100)
        (root / f"tiny-{name[-1]}").mkdir()
        raw.interactions.write_csv(root / f"tiny-{name[-1]}" / "interactions.csv")
        raw.catalog.write_csv(root / f"tiny-{name[-1]}" / "items.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_DATA", str(root))
        patch.setenv("RECJAX_CACHE", str(root / "cache"))
        fit(config("tiny-a"), root / "run")
        yield root / "run"


def params_of(folder):
    import tests.train.toy as recipe

    run = load_run(folder, recipe=recipe)
    return run.dataset.name, jax.device_get(run.params)


def test_fine_tuning_on_another_catalog(tmp_path, pretrained, monkeypatch):
    """A run that is stopped goes on exactly, and needs the other run no more."""
    copy = tmp_path / "copy"
    shutil.copytree(pretrained, copy)
    tuned = config("tiny-b", start_from=str(copy), ema=0.5)
    fit(tuned, tmp_path / "unbroken")
    opened = loop.open_task

    def signalling(config, run_dir):
        task = opened(config, run_dir)

        class Loader:
            steps, batch, catalog = task.loader.steps, task.loader.batch, task.loader.catalog

            @staticmethod
            def iterate(start, stop):
                for step, batch in enumerate(task.loader.iterate(start, stop), start):
                    if step == 1:
                        os.kill(os.getpid(), signal.SIGTERM)
                    yield batch

        return dataclasses.replace(task, loader=Loader)

    monkeypatch.setattr(loop, "open_task", signalling)
    assert fit(tuned, tmp_path / "broken").step == 2
    monkeypatch.setattr(loop, "open_task", opened)
    shutil.rmtree(copy)
    assert fit(tuned, tmp_path / "broken").step == 4
    unbroken = params_of(tmp_path / "unbroken")[1]
    assert_same(unbroken, params_of(tmp_path / "broken")[1])
    assert np.abs(unbroken["codes"] - params_of(pretrained)[1]["codes"]).max() > 1e-3


def test_own_vectors_of_items_start_afresh_and_tie_the_run_to_its_catalog(tmp_path, pretrained):
    def tuned(dataset: str, **train) -> RunConfig:
        base = config(dataset, optim=Adam(STILL), **{"steps": 1, "ema": 0.5, **train})
        return dataclasses.replace(base, model=dataclasses.replace(base.model, own_width=4))

    fit(tuned("tiny-b", start_from=str(pretrained)), tmp_path / "own")
    before, (name, after) = params_of(pretrained)[1], params_of(tmp_path / "own")
    assert name == "tiny-b"
    codes = [(folder / "codes" / "tokenizer.safetensors").read_bytes() for folder in (pretrained, tmp_path / "own")]
    assert codes[0] == codes[1]
    assert set(after) - set(before) == {"own", "own_in", "own_out"} and not np.abs(after["own"]).max() > 1e-20
    assert_same(before, {name: after[name] for name in before}, 1e-20)
    again = tuned("tiny-b", start_from=str(tmp_path / "own"))
    fit(again, tmp_path / "again")
    assert_same(after, params_of(tmp_path / "again")[1], 1e-20)
    import tests.train.toy as recipe

    with pytest.raises(InputError, match=r"own was trained on dataset 'tiny-b'.* is another one"):
        load_run(tmp_path / "own", "tiny-a", recipe=recipe)
    with pytest.raises(InputError, match="own and dataset 'tiny-a' have no item in common"):
        fit(tuned("tiny-a", start_from=str(tmp_path / "own")), tmp_path / "elsewhere")


def test_models_that_read_in_another_way_are_refused(tmp_path, pretrained):
    with pytest.raises(InputError, match=r"\d+ of \d+ arrays are not .*: aux \(2, 16, 8\) there, \(2, 16, 4\) here; "):
        fit(config("tiny-b", width=4, start_from=str(pretrained)), tmp_path / "narrow")
    other = dataclasses.replace(
        config("tiny-b", start_from=str(pretrained)), tokenizer=FSQ(slots=2, levels=(4, 5), layers=1, heads=2)
    )
    with pytest.raises(InputError, match="its `tokenizer` is"):
        fit(other, tmp_path / "other")
    text = TextSpace((Channel(Hashed(32, seed=1)),))
    with pytest.raises(InputError, match="its `text` is"):
        fit(dataclasses.replace(config("tiny-b", start_from=str(pretrained)), text=text), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- item ids, from one day's log to the next


def shop(folder, items: list[str], users: int, title: str = "thing {}") -> str:
    """A log of users who go through the items in turn, and its catalog."""
    folder.mkdir()
    rows = [(f"u{user}", items[(user + time) % len(items)], time) for user in range(users) for time in range(6)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_csv(folder / "interactions.csv")
    titles = [title.format(item) for item in items]
    pl.DataFrame({"item_id": items, "title": titles}).write_csv(folder / "items.csv")
    return str(folder)


def daily(dataset: str, model=SASRec(width=8, layers=1, max_length=6), rate=STILL, **train) -> RunConfig:  # noqa: B008
    settings = {"steps": 1, "evaluate_every": 0, **train}
    data = Data(dataset, view=Shifted(max_length=6), rows=8)
    return RunConfig("daily", data, model, Adam(rate), OneDevice(), Train(**settings), Evaluate())


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory):
    root = tmp_path_factory.mktemp("days")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECJAX_CACHE", str(root / "cache"))
        fit(daily(shop(root / "monday", [f"i{item}" for item in range(20)], 20), rate=0.1, steps=3), root / "run")
        yield root / "run"


def test_tomorrow_s_log_goes_on_from_the_rows_of_known_items(tmp_path, yesterday, capsys, monkeypatch):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    items = [f"i{item}" for item in (25, 3, 19, 4, 5, 250, 6, *range(7, 18), *range(30, 160))]
    fit(daily(shop(tmp_path / "tuesday", items, 150), start_from=str(yesterday)), tmp_path / "run")
    fresh, gone = len(items) - 16, 4
    said = " ".join(capsys.readouterr().out.split())
    assert f"16 of {len(items)} items are known there by their ids and go on from their rows; {fresh} new" in said
    assert f"start afresh; {gone} of its items are no longer in the dataset" in said
    before, after = (load_alone(folder, recipe=toy) for folder in (yesterday, tmp_path / "run"))
    tables = [dict(zip(run.dataset.item_ids, np.asarray(run.params["items"]), strict=False)) for run in (before, after)]
    both = set(tables[0]) & set(tables[1])
    assert len(both) == 17  # padding is one
    for item in both:
        np.testing.assert_allclose(*(table[item] for table in tables), rtol=0, atol=1e-20)
    new = np.stack([tables[1][item] for item in set(tables[1]) - both])
    assert 0.01 < new.std() < 0.03  # as the model begins
    assert_same(before.params["encoder"], after.params["encoder"], 1e-20)


def test_ids_that_mean_other_items_are_refused_and_encoders_alone_need_none(tmp_path, yesterday, monkeypatch):
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    other = shop(tmp_path / "other", [f"i{item}" for item in range(30)], 30, "gadget {}")
    with pytest.raises(
        InputError, match=r"different items: of 20 20 have another title \(item 'i0' is 'thing i0' there"
    ):
        fit(daily(other, start_from=str(yesterday)), tmp_path / "run")
    assert fit(daily(other, start_from=str(yesterday), take=("^encoder",)), tmp_path / "run").step == 1
    shutil.copytree(yesterday, tmp_path / "old", ignore=shutil.ignore_patterns("catalog"))
    with pytest.raises(InputError, match="an earlier version made, does not say which items it had"):
        fit(daily(other, start_from=str(tmp_path / "old")), tmp_path / "again")


def test_rows_behind_the_items_are_those_of_special_tokens():
    new, old = (pl.DataFrame({"item_id": ids, "title": [None] * len(ids)}) for ids in (["b", "c", "a"], ["a", "b"]))
    assert KnownItems(("items",), new, old).places(rows=7, old_rows=5).tolist() == [0, 2, -1, 1, 3, 4, -1]
