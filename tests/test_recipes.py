"""Every shipped recipe trains, at a tiny size; recipes are found and faults in them are told."""

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recjax import cli, recipes
from recjax.config import from_json, override_all, to_json
from recjax.data.derived import Derived
from recjax.data.mixture import Mixture
from recjax.models.alignment import Alignment
from recjax.models.recgpt_published import RecGPTPublished
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.fsq import FSQ
from recjax.tokenizers.rq_vae import RQVAE
from recjax.train.ablation import plan
from recjax.train.alignment import align
from recjax.train.loop import fit
from recjax.typing import InputError
from tests.tiny import SETTINGS, TINY, on_one_device, tiny_datasets

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.py"))
TWIN = Path(__file__).parent / "text" / "twins" / "bert"
ABLATIONS = sorted(path.stem for path in (FOLDER / recipes.ABLATIONS).glob("*.py"))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small made-up dataset under every name that a recipe asks for."""
    found = [recipes.read(recipe).config.data for recipe in SHIPPED]
    names = {name for data in found for name in (data.dataset, *getattr(data, "datasets", ()))}
    return tiny_datasets(tmp_path_factory.mktemp("data"), names)


def train(name: str, datasets: Path, run: Path) -> None:
    """Trains a recipe of item ids by the command, one of item texts on two of its catalogs at most, from random
    parameters and without an encoder."""
    config = recipes.read(name).config
    if isinstance(config.model, Alignment):
        config = replace(config, model=replace(config.model, encoder=str(TWIN), layers=1))
        align(override_all(config, ["data.rows=8", "train.steps=2", "optim.warmup_steps=1"]), run)
        return
    if config.text is None:
        settings = [*SETTINGS, "--set", f"data.dataset={datasets / config.data.dataset}"]
        assert cli.main(["train", name, "--run", str(run), "--no-evaluate", *settings]) == 0
        return
    mixed = isinstance(config.data, Mixture)
    data = replace(config.data, datasets=config.data.datasets[:2]) if mixed else config.data
    text = TextSpace((Channel(Hashed(32), whiten=config.text.channels[0].whiten),))
    own = ["model.aux_width=8", "model.max_items=12"] if isinstance(config.model, RecGPTPublished) else []
    small = {FSQ: ["tokenizer.steps=3", "tokenizer.layers=1"], RQVAE: ["tokenizer.steps=3", "tokenizer.clusters=16"]}
    own += small.get(type(config.tokenizer), ["tokenizer.clusters=16"])
    tiny = ["model.heads=2", "train.start_from=none", "train.patience=none", *TINY, *own]
    shared = [setting for setting in tiny if not setting.startswith("model.max_length=")]
    if isinstance(config.data.view, Derived):
        shared = [setting.replace("data.view.", "data.view.view.") for setting in shared]
    fit(override_all(replace(config, data=data, text=text), shared), run)


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


@pytest.mark.parametrize("name", SHIPPED)
def test_recipe_trains(name, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECJAX_DATA", str(datasets))
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    on_one_device(monkeypatch)
    run = tmp_path / "run"
    train(name, datasets, run)

    records = pl.read_ndjson(run / "metrics.jsonl")
    losses = records.filter(pl.col("name") == "loss")["value"]
    assert len(losses) and losses.is_finite().all()
    model = json.loads((run / "config.json").read_text())["model"]
    assert model.get("width", 8) == 8 and model.get("encoder", str(TWIN)) == str(TWIN)
    assert any((run / "checkpoints").iterdir())


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_row_of_an_ablation_is_a_configuration(name, tmp_path: Path):
    recipe = recipes.read(name)
    command = (recipe.module.__doc__ or "").partition("\n")[0]
    assert command.startswith("recjax ablate ") and name in command
    assert recipe.config.name == name
    cells = plan(recipe, [], [0], tmp_path)
    assert len({json.dumps(to_json(cell.config)) for cell in cells}) == len(cells) > 1


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
            "from recjax.data.views import Shifted\ndef config():\n    return Shifted(0)",
            r"mine\.py, line 3: max_length",
        ),
    ],
)
def test_faults_of_a_recipe_are_one_message(tmp_path: Path, text, message):
    with pytest.raises(InputError, match=message):
        recipes.read(write(tmp_path / "mine.py", text))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'sasrec_beauty'"):
        recipes.read("sasrec_beuty")
    with pytest.raises(InputError, match="no such file"):
        recipes.read("experiments/absent.py")
