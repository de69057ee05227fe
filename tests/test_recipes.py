"""Every part of the shipped recipes trains, at a tiny size; recipes are found and faults in them are told."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import polars as pl
import pytest

from recjax import recipes
from recjax.compare.ablation import plan
from recjax.config import from_json, override, override_all, to_json
from recjax.data.batches.mixture import Mixture
from recjax.data.target_sets import RandomSplit
from recjax.evaluate.protocol import Evaluate
from recjax.models.alignment import Alignment
from recjax.plan.program import abstract_inputs, trace_evaluation, trace_training
from recjax.train.alignment import align
from recjax.train.loop import fit
from recjax.typing import InputError
from tests.models.systems import SYSTEMS
from tests.tiny import on_one_device, tiny_datasets

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.py"))
TWIN = Path(__file__).parent / "text" / "twins" / "bert"
ABLATIONS = sorted(path.stem for path in (FOLDER / recipes.ABLATIONS).glob("*.py"))
EVERY = (*SHIPPED, *ABLATIONS)


def classes(value: Any) -> Iterator[type]:
    """Classes of a configuration and of all that stand in it, in order."""
    if is_dataclass(value):
        yield type(value)
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict | tuple):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from classes(entry)


ELSEWHERE = {
    "align_minilm": "tests/models/test_alignment.py",
    "dare_ml1m": "tests/models/test_dare.py, tests/evaluate/test_evaluators.py",
    "gream_ml100k": "tests/models/test_gream.py, tests/models/test_tiger.py, tests/train/test_stages.py",
    "gream_text_tuned_phones": "tests/models/test_gream_text.py",
    "icsrec_beauty": "tests/models/test_icsrec.py",
    "ilm_grocery": "tests/models/test_ilm.py, tests/text/test_words.py",
    "insertion_ml1m": "tests/models/test_insertion.py",
    "llm4dsr_toys": "tests/models/test_llm4dsr.py",
    "mender_ml100k": "tests/models/test_mender.py, tests/models/test_mender_text.py",
    "reg4rec_tuned_ml100k": "tests/models/test_reg4rec_tuned.py",
    "recgpt_finetune_beauty": "tests/text/test_space.py, tests/train/test_stages.py, tests/test_recgpt_commands.py",
    "text_lm_toys": "tests/models/test_text_lm.py",
    "tiger_codes": "tests/models/test_tiger.py, tests/tokenizers/test_tokenizers.py",
}
"""Recipes whose classes have files of their own, in which they train."""


@cache
def trained() -> tuple[str, ...]:
    """Recipes to train: every class that stands in a recipe's configuration trains in one of them, in the laws, or
    `ELSEWHERE`; a split at random (`tests/data/test_target_sets.py`) is no part of a step.

    Recipes put the same classes together in other ways, with other numbers, switches and patterns of mixers
    (`tests/mixers/test_laws.py` is of every mixer).
    """
    left = {name: set(classes(recipes.read(name).config)) for name in EVERY}
    known = {each for config in SYSTEMS.values() for each in classes(config)}
    known |= {RandomSplit, *(each for name in ELSEWHERE for each in left[name])}
    chosen = []
    while new := {name: own - known for name, own in left.items() if own - known}:
        chosen.append(max(new, key=lambda name: len(new[name])))
        known |= left[chosen[-1]]
    return tuple(chosen)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small made-up dataset under every name that a recipe asks for."""
    found = [recipes.read(recipe).config.data for recipe in EVERY]
    names = {name for data in found for name in (data.dataset, *getattr(data, "datasets", ()))}
    return tiny_datasets(tmp_path_factory.mktemp("data"), names)


def train(name: str, datasets: Path, run: Path) -> None:
    """Trains a recipe at its tiny size, on the dataset of its name in the folder, which `$RECJAX_DATA` names too.

    It is not ranked in between by `Evaluate`, as the laws do that of every system.
    """
    config = recipes.tiny(recipes.read(name)).config
    if config.model.ranks and all(isinstance(each, Evaluate) for each in config.evaluators):
        config = override(config, "train.evaluate_every", "0")
    if not isinstance(config.data, Mixture):  # by path, since embedded datasets come before those of a folder
        config = override(config, "data.dataset", str(datasets / config.data.dataset))
    if config.model.ranks:
        fit(config, run)
    else:
        align(config, run)


def test_the_names_that_others_use_are_shipped():
    assert set(SHIPPED) >= {
        "quickstart",
        "sasrec_ml1m",
        "sasrec_beauty",
        "sasrec_sports",
        "sasrec_toys",
        "gsasrec_ml1m",
        "bert4rec_ml1m",
        "align_minilm",
        "recgpt_pretrain",
        "recgpt_published",
    }
    assert set(recipes.names()) >= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_header_says_command_figure_time_and_hardware(name):
    recipe = recipes.read(name)
    header = recipe.module.__doc__ or ""
    command = "align" if isinstance(recipe.config.model, Alignment) else "train"
    assert header.startswith(f"recjax {command} {name}\n")
    for label in ("Expected:", "Time:", "Hardware:"):
        assert re.search(rf"^{label} +\S", header, re.MULTILINE), label
    assert recipe.config.name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_config_survives_json(name):
    config = recipes.read(name).config
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("name", EVERY)
def test_recipe_trains(name, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Some to their ends, see `trained`; of the others the step and the ranking are traced, on no data."""
    config = recipes.tiny(recipes.read(name)).config
    sizes = getattr(config.model, "width", 8), getattr(config.model, "layers", 1), config.train.steps
    assert sizes == (8, 1, 4)
    on_one_device(monkeypatch)
    if not config.model.ranks:
        assert name in ELSEWHERE
        return
    if name not in trained():
        inputs = abstract_inputs(config, items=100, mesh=(mesh := config.mesh.build()))
        with jax.set_mesh(mesh):
            state, _ = trace_training(config, inputs, mesh).out_info
            trace_evaluation(config, inputs)
        assert jax.tree.map(lambda leaf: leaf.shape, state) == jax.tree.map(lambda leaf: leaf.shape, inputs.state)
        return
    monkeypatch.setenv("RECJAX_DATA", str(datasets))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECJAX_ENCODERS", str(tmp_path / "encoders"))
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "all-MiniLM-L6-v2").symlink_to(TWIN)
    run = tmp_path / "run"
    train(name, datasets, run)

    records = pl.read_ndjson(run / "metrics.jsonl")
    losses = records.filter(pl.col("name") == "loss")["value"]
    assert len(losses) and losses.is_finite().all()
    assert any((run / "checkpoints").iterdir())


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_row_of_an_ablation_is_a_configuration(name, tmp_path: Path):
    recipe = recipes.read(name)
    command = (recipe.module.__doc__ or "").partition("\n")[0]
    assert command.startswith("recjax ablate ") and name in command
    assert recipe.config.name == name
    cells = plan(recipe, [], [0], tmp_path)
    assert len({json.dumps(to_json(cell.config)) for cell in cells}) == len(cells) > 1
    for cell in cells:
        assert recipes.tiny(replace(recipe, config=cell.config)).config.train.steps == 4


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_recipe_may_define_its_own_parts(tmp_path: Path):
    text = FOLDER.joinpath("sasrec_synthetic.py").read_text()
    own = (
        "\nfrom dataclasses import dataclass, replace\n"
        "@dataclass(frozen=True)\nclass Mine(SASRec):\n    extra: int = 1\n"
        "\n_shipped = config\ndef config():\n    return replace(_shipped(), model=Mine())\n"
    )
    recipe = recipes.read(write(tmp_path / "mine.py", text + own))
    tree = to_json(override_all(recipe.config, ["model.extra=5"]))
    assert tree["model"]["type"] == "recipe:Mine"
    assert from_json(tree, recipe.module).model.extra == 5
    with pytest.raises(InputError, match="--recipe"):
        from_json(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def config(:", r"mine\.py, line 1: "),
        ("\n\nimport absent_library\n", r"mine\.py, line 3: ModuleNotFoundError: .*absent_library"),
        ("x = 1", "defines no config"),
        ("def config():\n    return 1 / 0", r"mine\.py, line 2: ZeroDivisionError"),
        ("def config():\n    return {}", "returned dict, expected RunConfig"),
        (
            "from recjax.data.batches.views import Shifted\ndef config():\n    return Shifted(0)",
            r"mine\.py, line 3: Shifted\.max_length is 0",
        ),
    ],
)
def test_faults_of_a_recipe_are_one_message(tmp_path: Path, text, message):
    with pytest.raises(InputError, match=message):
        recipes.read(write(tmp_path / "mine.py", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("return 1 / 0", r"mine\.py, line \d+: ZeroDivisionError"),
        ("return ['model.width=8']", r"tiny\(\) returned list, expected key -> value"),
        ("return {'model.widht': 8}", "did you mean 'model.width'"),
        ("return {'model.width': 'wide'}", "model.width=wide: expected int"),
    ],
)
def test_faults_of_tiny_are_one_message(tmp_path: Path, text, message):
    shipped = FOLDER.joinpath("sasrec_synthetic.py").read_text()
    recipe = recipes.read(write(tmp_path / "mine.py", f"{shipped}\ndef tiny():\n    {text}\n"))
    with pytest.raises(InputError, match=message):
        recipes.tiny(recipe)


def test_a_recipe_without_tiny_is_short(tmp_path: Path):
    text = FOLDER.joinpath("sasrec_synthetic.py").read_text().replace("def tiny", "def other")
    config = recipes.tiny(recipes.read(write(tmp_path / "mine.py", text))).config
    assert (config.model.width, config.train.steps, config.train.epochs) == (64, 4, None)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'sasrec_beauty'"):
        recipes.read("sasrec_beuty")
    with pytest.raises(InputError, match="no such file"):
        recipes.read("experiments/absent.py")
