"""Stages: each is a run in the run's folder, starts from an earlier one's best, and survives a stop."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recjax import config as configs
from recjax import recipes
from recjax.compare.run_results import read_outcome
from recjax.data.batches.views import Cloze
from recjax.text.encoder import SentenceEncoder
from recjax.train import loop
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.loop import fit
from recjax.train.optimiser import AdamW
from recjax.train.pretrain import Pretrain
from recjax.train.run import load_run
from recjax.train.schedule import Train
from recjax.train.stages import STAGES, Stage, parts, resolved
from recjax.typing import InputError
from tests.tiny import TINY, on_one_device, tiny_datasets
from tests.train.real import real_config
from tests.train.toy import NO_COLUMNS, OneDevice, ToyModel, interrupt_at, saved, toy_config, toy_task

FIRST = Stage("first", {"train.steps": 5, "train.evaluate_every": "1", "optim.learning_rate": "0.05"})
SECOND = Stage("second", {"train.steps": 4, "train.freeze": ("^dense/",), "seed": 3})


def config(*stages, **train):
    return toy_config(**{"steps": 6, "stages": stages or (FIRST, SECOND), "keep": 9, **train})


def params(folder: Path, step: int | None = None, total: int = 12):
    state, record = saved(folder, step, total=total)
    return state.params, record["progress"]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@dataclasses.dataclass(frozen=True)
class Wider(ToyModel):
    """The toy model with rows for more items."""

    def init(self, key, batch, items):
        params = super().init(key, batch, items)
        return {**params, "items": jnp.pad(params["items"], ((0, 9), (0, 0)))}


def arrays(folder: Path, step: int, model: ToyModel = ToyModel()):  # noqa: B008
    """Parameters alone, whatever the optimiser has moments of."""
    with Checkpoints(folder / "checkpoints", writes=False) as checkpoints, jax.set_mesh(mesh := OneDevice().build()):
        shapes = jax.eval_shape(lambda key: model.init(key, None, NO_COLUMNS), jax.random.key(0))
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
        return jax.device_get(checkpoints.restore_params(step, target, averaged=False))


class Opened:
    """Stands in for what opens tasks: a toy a run, interrupted at (run, step); remembers which runs were opened."""

    def __init__(self):
        self.runs, self.stop = [], (None, None)

    def __call__(self, part):
        self.runs.append(part.folder.name)
        name, step = self.stop
        on_step = interrupt_at(step) if name == part.folder.name else None
        return toy_task(seed=part.config.seed, on_step=on_step)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    made = Opened()
    monkeypatch.setattr(loop, "_open", made)
    return made


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_open", Opened())
        return folder, fit(config(), folder)


def test_each_stage_is_a_run_and_starts_from_the_best_of_the_one_before(unbroken):
    folder, result = unbroken
    assert (result.step, result.total) == (6, 6)
    first, second = (folder / STAGES / name for name in ("first", "second"))
    trees = [json.loads((path / "config.json").read_text()) for path in (first, second, folder)]
    assert [tree["name"] for tree in trees] == ["toy-first", "toy-second", "toy"]
    assert [tree["train"]["start_from"] for tree in trees] == [None, "stage:first", None]
    assert [tree["optim"]["learning_rate"] for tree in trees] == [0.05, 0.02, 0.02]
    assert [tree["train"]["freeze"] for tree in trees] == [[], ["^dense/"], []]
    best = params(first)[1]["best_step"]
    assert best not in (None, 5)  # so that best and last are told apart
    begin = params(first, best)[0]
    assert (begin["dense"]["bias"] != params(first)[0]["dense"]["bias"]).any()
    for step in (3, 4):
        same(arrays(second, step)["dense"], begin["dense"])


def test_a_stop_in_any_stage_resumes_there(unbroken, opened, tmp_path):
    folder, expected = tmp_path / "run", []
    for name, step in (("first", 2), ("second", 1), ("run", 3)):
        opened.stop = (name, step)
        result = fit(config(), folder)
        assert result.preempted and result.step == step + 1
        expected += [*expected[-1:], name]
        assert opened.runs == expected  # no stage that another has followed is opened again
    opened.stop = (None, None)
    assert fit(config(), folder) == unbroken[1]
    same(params(folder)[0], params(unbroken[0])[0])


def test_a_stage_starts_where_it_says_and_takes_what_it_says(opened, tmp_path):
    third = Stage("third", {"train.steps": 1, "train.start_from": "stage:first", "train.take": ("^dense/kernel",)})
    fresh = Stage("fresh", {"train.steps": 1, "train.take": ()})
    whole = parts(config(FIRST, SECOND, third, fresh, start_from="runs/x"), tmp_path)
    assert [part.origin and part.origin.name for part in whole] == ["x", "first", "first", None, "fresh"]
    whole = parts(config(FIRST, SECOND, start_from="stage:first"), tmp_path)
    assert [part.origin and part.origin.name for part in whole] == [None, "first", "first"]


def test_settings_name_what_earlier_stages_have_made(tmp_path):
    made = dataclasses.replace(real_config(), text=SentenceEncoder("stage:align/encoder"))
    folder = tmp_path / "run"
    assert resolved(made, folder).text.folder == str(folder / STAGES / "align" / "encoder")
    assert resolved(made, folder / STAGES / "next").text == resolved(made, folder).text
    assert resolved(real_config(), folder) == real_config()
    with pytest.raises(InputError, match="the run names stage:align, but the stages before it are: none"):
        parts(made, folder)


def test_what_is_taken_over_has_to_fit_and_the_rest_starts_afresh(unbroken, tmp_path):
    folder, bias = str(unbroken[0]), np.ones(8, np.float32)
    task = toy_task(model=Wider(), params={"dense": {"bias": bias}})
    best = params(unbroken[0], unbroken[1].best_step)[0]
    take = {"steps": 1, "evaluate_every": 0, "start_from": folder, "optim": AdamW(1e-9)}
    with pytest.raises(InputError, match=r"train\.take has '\^encoder', which matches no parameter"):
        fit(toy_config(take=("^encoder", "^dense"), **take), tmp_path / "a", task)
    fit(toy_config(take=("^dense/kernel",), **take), tmp_path / "a", task)
    found = arrays(tmp_path / "a", 1, task.model)
    np.testing.assert_allclose(found["dense"]["kernel"], best["dense"]["kernel"], atol=1e-7)
    np.testing.assert_allclose(found["dense"]["bias"], bias, atol=1e-7)
    assert found["items"].shape == (41, 8)


def test_denoising_of_older_runs_is_found_in_its_old_place(tmp_path):
    made = dataclasses.replace(real_config(steps=8, pretrain=Pretrain()))
    assert parts(made, tmp_path)[0].folder == tmp_path / STAGES / "pretrain"
    (tmp_path / "pretrain").mkdir()
    assert parts(made, tmp_path)[0].folder == tmp_path / "pretrain"


def test_a_configuration_with_stages_survives_json():
    stage = Stage("masked", {"data.view": Cloze(max_length=12), "train.steps": 3, "train.freeze": ("a", "b")})
    made = dataclasses.replace(real_config(), train=Train(steps=4, stages=(stage,)))
    assert configs.from_json(json.loads(json.dumps(configs.to_json(made)))) == made
    assert parts(made, Path("run"))[0].config.data.view == Cloze(max_length=12)
    assert configs.override(made, "train.stages", "").train.stages == ()


def test_curves_count_the_steps_and_seconds_of_every_stage(unbroken):
    outcome = read_outcome(unbroken[0])
    assert outcome.validation().steps == [12, 15]
    assert outcome.curves["train_seconds"][-1][0] == 15


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage("a/b"), "Stage.name is 'a/b', expected letters"),
        (lambda: Stage("a", {"train.stages": ()}), "stage 'a' sets train.stages, which is the run's alone"),
        (lambda: config(FIRST, FIRST), "train.stages are called first, first, expected different names"),
        (lambda: parts(config(Stage("a", {"train.stpes": 3})), Path("run")), "stage 'a': there is no setting"),
        (
            lambda: parts(config(Stage("a", {"train.steps": 1.5})), Path("run")),
            "stage 'a': train.steps is 1.5, expected",
        ),
        (lambda: parts(config(Stage("a", {"train.steps": "x"})), Path("run")), "stage 'a': train.steps=x: expected"),
        (
            lambda: parts(config(FIRST, Stage("a", {"train.start_from": "stage:b"})), Path("run")),
            "stage 'a' names stage:b, but the stages before it are: first",
        ),
        (lambda: parts(config(start_from="stage:third"), Path("run")), "the run names stage:third, but the stages"),
        (lambda: configs.override(config(), "train.stages", "Stage"), "train.stages=Stage: expected Stage, ..."),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_the_recipe_of_the_docs_trains(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs" / "train.md").read_text()
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Stage(" in text)
    (tmp_path / "clustered.py").write_text(block)
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECJAX_DATA", str(tiny_datasets(tmp_path / "data", ["ml-1m"])))
    recipe = recipes.read(str(tmp_path / "clustered.py"))
    small = (*TINY, "train.evaluate_every=0", "train.patience=none", "model.clusters=3")
    assert fit(configs.override_all(recipe.config, small), tmp_path / "run").step == 4
    folders = (tmp_path / "run", tmp_path / "run" / STAGES / "warm")
    whole, warm = (load_run(folder, recipe=recipe.module).params for folder in folders)
    same(whole["items"], warm["items"])
    assert float(jnp.abs(whole["frozen"]["centroids"]).max()) > 0
