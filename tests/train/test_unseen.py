"""Items that nobody has had yet: ranked by models of texts, left out and counted by models of item ids."""

import io
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from recjax import cli, recipes
from recjax.config import RunConfig, override_all
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.data.prepare.preparation import Preparation
from recjax.data.store.prepared import find, save
from recjax.evaluate.protocol import evaluate
from recjax.evaluate.recommend import recommend
from recjax.evaluate.report import NOT_RANKED, Report, dataset_facts
from recjax.recommender import Recommender
from recjax.train.loop import fit
from recjax.train.run import Run, load_run
from recjax.train.task import open_task
from recjax.typing import InputError
from tests.tiny import on_one_device

USERS, SEEN, ALL, EVENTS = 40, 24, 60, 6


@pytest.fixture(scope="module", autouse=True)
def shop(tmp_path_factory: pytest.TempPathFactory):
    """A shop of whose 60 items 24 have been had, and the same items as a catalog alone and beside two short users."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        (f"u{u}", f"i{(5 * u + e) % SEEN:02d}", 1_600_000_000 + 100 * u + e)
        for u in range(USERS)
        for e in range(EVENTS)
    ]
    texts = pl.DataFrame(
        {"item_id": [f"i{n:02d}" for n in range(ALL)], "title": [f"kind{n % 6} no{n}" for n in range(ALL)]}
    )
    for name, events in {"shop": rows, "alone": [], "few": rows[:1] + rows[EVENTS : EVENTS + 2]}.items():
        (folder / name).mkdir()
        texts.write_csv(folder / name / "items.csv")
        if events:
            log = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
            log.write_csv(folder / name / "interactions.csv")
    with pytest.MonkeyPatch.context() as patch:
        on_one_device(patch)
        patch.setenv("RECJAX_DATA", str(folder))
        patch.setenv("RECJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


def config(recipe: str, dataset: str = "shop") -> RunConfig:
    read = recipes.read(recipe)
    tiny = override_all(read.config, [f"{key}={value}" for key, value in recipes.SHORT.items()])
    made = read.module.tiny()
    data = Data(dataset, Shifted(max_length=8), rows=4)
    tiny = replace(tiny, data=data, **{key: value for key, value in made.items() if "." not in key})
    settings = [f"{key}={value}" for key, value in made.items() if "." in key and not key.startswith("data.")]
    return override_all(tiny, [*settings, "train.steps=2", "train.evaluate_every=0", "evaluate.bootstrap=0"])


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "texts"
    fit(config("quickstart"), folder)
    return folder


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ids"
    fit(config("sasrec_synthetic"), folder)
    return folder


def report(run: Run) -> Report:
    with jax.set_mesh(run.mesh):
        return evaluate(
            run.model, run.params, run.dataset, run.split, run.config.data.view, run.config.evaluate, run.items
        )


def shown(found: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(found.table())
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def lists(run: Run, k: int = ALL) -> pl.DataFrame:
    with jax.set_mesh(run.mesh):
        found = recommend(run.model, run.params, run.dataset, run.config.data.view, [["i00", "i07"]], run.items, k=k)
    return found.table


def test_they_come_behind_the_items_with_events():
    whole, before = find("shop"), find("shop", Preparation(unseen="drop"))
    assert (whole.n_items, whole.n_unseen, before.n_items, before.n_unseen) == (ALL, ALL - SEEN, SEEN, 0)
    assert whole.item_ids[: SEEN + 1] == before.item_ids and whole.item_ids[-1] == "i59"
    assert np.array_equal(whole.items, before.items) and whole.fingerprint != before.fingerprint
    trimmed = whole.of_events()
    assert trimmed.catalog.equals(before.catalog) and trimmed.fingerprint == before.fingerprint
    assert trimmed.whole == whole.fingerprint == dataset_facts(trimmed)["fingerprint"]
    assert (trimmed.left_out, trimmed.n_unseen) == (ALL - SEEN, 0) and trimmed.of_events() is trimmed
    for filtered in (Preparation(k_core=2), Preparation(min_length=2)):
        assert find("shop", filtered).n_unseen == 0
    assert find("shop", Preparation(k_core=2, unseen="keep")).n_unseen == ALL - SEEN


def test_models_of_texts_rank_them(texts: Path):
    run = load_run(texts)
    assert run.model.n_items == run.dataset.n_items == ALL
    found = report(run)
    assert found.dataset["items"] == ALL and NOT_RANKED not in found.notes
    assert set(lists(run)["item_id"]) == {f"i{n:02d}" for n in range(ALL)} - {"i00", "i07"}


def test_they_are_no_negatives_in_training(texts: Path):
    task = open_task(config("quickstart"), texts)
    assert int(task.items[0].size) == SEEN and task.model.n_items == ALL


def test_models_of_ids_leave_them_out_with_a_count(ids: Path):
    run = load_run(ids)
    assert run.model.n_items == run.dataset.n_items == SEEN
    found = report(run)
    assert found.dataset["items"] == ALL and found.notes[NOT_RANKED] == ALL - SEEN
    assert found.metrics["all"]["coverage@10"] <= SEEN / ALL and "24 of 60 items" in shown(found)
    assert len(lists(run)) == SEEN - 2
    without = replace(config("sasrec_synthetic"), data=replace(run.config.data, prepare=Preparation(unseen="drop")))
    assert not Recommender(run, ids).events(users=["u1"]).notes  # the dataset is the one of training
    task = open_task(config("sasrec_synthetic"))
    assert task.left_out == ALL - SEEN
    batch, other = task.loader.batch(3), open_task(without).loader.batch(3)
    assert jax.tree.all(jax.tree.map(np.array_equal, batch, other))


@pytest.mark.parametrize(("name", "users"), [("alone", 0), ("few", 2)])
def test_a_run_of_texts_ranks_a_catalog_without_enough_events(texts: Path, name: str, users: int):
    run = load_run(texts, name)
    assert (run.dataset.n_users, run.dataset.n_items) == (users, ALL)
    assert len(lists(run)) == ALL - 2
    with pytest.raises(InputError, match=r"nothing to evaluate on: (dataset 'alone' is a catalog|split leave-one-out)"):
        report(run)


def test_runs_of_ids_know_a_dataset_prepared_before(ids: Path, tmp_path: Path):
    """One without the items that have no event is the same to them."""
    save(find("shop", Preparation(unseen="drop")), tmp_path / "shop")
    assert load_run(ids, str(tmp_path / "shop")).dataset.n_items == SEEN


def test_nothing_is_trained_on_a_catalog_alone(tmp_path: Path):
    with pytest.raises(InputError, match="dataset 'alone' is a catalog without events"):
        fit(config("quickstart", "alone"), tmp_path / "run")


def test_a_catalog_alone_is_written_and_read(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number, words in enumerate((["--raw", str(shop / "alone")], ["--items", str(shop / "alone" / "items.csv")])):
        assert cli.main(["prepare", f"mine{number}", *words, "--out", str(tmp_path / str(number))]) == 0
        shown = capsys.readouterr().out
        assert f"0 users, {ALL} items ({ALL} with a title), 0 interactions" in shown and "a catalog without" in shown
    assert (
        len(
            {
                find(str(tmp_path / str(number)), resident=resident).fingerprint
                for number in (0, 1)
                for resident in (True, False)
            }
        )
        == 1
    )


def test_short_users_are_prepared_without_an_audit(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["prepare", "few", "--raw", str(shop / "few"), "--out", str(tmp_path / "few")]) == 0
    shown = capsys.readouterr().out
    assert "does not test: 2 of 2" in shown and "no audit" in shown
    assert "57 of 60 rows of the catalog are items without events, kept" in shown
    assert (
        cli.main(["prepare", "few", "--raw", str(shop / "few"), "--unseen", "drop", "--out", str(tmp_path / "3")]) == 0
    )
    assert "left out (--unseen keep keeps them" in capsys.readouterr().out
    assert find(str(tmp_path / "3")).n_items == 3
