"""`recjax tokenize` is what training does, and `recjax import-recgpt` makes a run like any other."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from recjax import cli, recipes
from recjax.data.batches.views import Queries
from recjax.data.items import CODES, VECTORS, text_items
from recjax.data.prepare.preparation import Preparation
from recjax.data.store.prepared import find
from recjax.models.model import ItemStats
from recjax.models.parts.published_checkpoint import import_recgpt
from recjax.text.hashed import Hashed
from recjax.text.items import ItemText
from recjax.tokenizers.item_codes import load_codes, load_state
from recjax.train.run import load_run
from recjax.train.task import open_task
from tests.tiny import on_one_device, tiny_datasets

FIXTURES = Path(__file__).parent / "models" / "fixtures"
FILES = [str(FIXTURES / "model.pt"), str(FIXTURES / "tokenizer.pt")]
FITTING = ["--heads", "2", "--levels", "7,7"]
RECIPE = """
from dataclasses import replace
from recjax import recipes
from recjax.models.recgpt import RecGPT
from recjax.text.hashed import Hashed
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.fsq import FSQ

def config():
    shipped = recipes.read("recgpt_pretrain").config
    data = replace(shipped.data, datasets=("shop", "other"), held_out="third", rows=4)
    text = TextSpace((Channel(Hashed(16)),))
    tokenizer = FSQ(slots=2, levels=(4, 4), steps=3, batch=32, layers=1, heads=1)
    model = RecGPT(width=8, layers=1, heads=2)
    return replace(shipped, name="tiny", data=data, text=text, tokenizer=tokenizer, model=model)
"""


@pytest.fixture(scope="module", autouse=True)
def shops(tmp_path_factory: pytest.TempPathFactory):
    """Three small shops of the same content, and a cache of their vectors."""
    folder = tiny_datasets(tmp_path_factory.mktemp("data"), ["shop", "other", "third"])
    with pytest.MonkeyPatch.context() as patch:
        on_one_device(patch)
        patch.setenv("RECJAX_DATA", str(folder))
        patch.setenv("RECJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipes") / "tiny.py"
    path.write_text(RECIPE)
    return str(path)


def test_tokenize_keeps_what_training_would_make(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run, fresh = tmp_path / "run", tmp_path / "fresh"
    assert cli.main(["tokenize", recipe, "--run", str(run), "--data", "third"]) == 0
    shown = capsys.readouterr().out
    for words in ("shop, fingerprint", "third, fingerprint", "not fitted on it", "distinct tuples", "perplexity"):
        assert words in shown, shown
    assert shown.count("FSQ: 2 slots, collisions nearest-free") == 3

    config = recipes.read(recipe).config
    kept = (run / "codes" / "tokenizer.safetensors").read_bytes()
    with jax.set_mesh(config.mesh.build()):
        open_task(config, fresh)
        trained = open_task(config, run)
    assert (fresh / "codes" / "tokenizer.safetensors").read_bytes() == kept
    assert (run / "codes" / "tokenizer.safetensors").read_bytes() == kept
    table = trained.items[0]
    codes = load_codes(run / "codes" / "shop").codes
    assert len(np.unique(codes[1:], axis=0)) == len(codes) - 1 == 100
    np.testing.assert_array_equal(np.asarray(table[CODES])[1:101], codes[1:])
    assert not (run / "config.json").exists()

    capsys.readouterr()
    assert cli.main(["tokenize", recipe, "--run", str(run), "--set", "tokenizer.steps=4"]) == 2
    assert "tokenizer of other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokenize", "sasrec_synthetic"], "no `tokenizer`"),
        (["tokenize", "TEXTLESS"], "no `text`"),
        (["import-recgpt", *FILES, "--encoder", "hashed:32", "--run", "RUN"], "has shape"),
        (["import-recgpt", *FILES, "--encoder", "hashed:wide", "--run", "RUN", *FITTING], "hashed:WIDTH"),
        (["import-recgpt", *FILES, "--encoder", "absent", "--run", "RUN", *FITTING], "no sentence encoder at 'absent'"),
        (["import-recgpt", *FILES, "--encoder", "hashed:32", "--levels", "7x7", "--run", "RUN"], "--levels '7x7'"),
        (
            ["import-recgpt", *FILES, "--encoder", "hashed:24", "--data", "shop", "--run", "RUN", *FITTING],
            "4 x 8 = 32 coordinates, but those of encoder 'hashed:24' have 24",
        ),
    ],
)
def test_bad_input_is_one_message(arguments, message, recipe, tmp_path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    textless = tmp_path / "textless.py"
    textless.write_text(Path(recipe).read_text().replace("text=text", "text=None"))
    given = [{"TEXTLESS": str(textless), "RUN": str(run)}.get(word, word) for word in arguments]
    assert cli.main(given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert not (run / "config.json").exists() and not (run / "checkpoints").exists()


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("imports") / "published"
    command = ["import-recgpt", *FILES, "--run", str(run), "--encoder", "hashed:32", "--data", "shop", *FITTING]
    assert cli.main([*command, "--template", "{title} {categories}"]) == 0
    return run


def test_an_imported_run_is_the_published_model(imported: Path):
    """The run's logits are those of the converted model over codes and vectors made here."""
    run = load_run(imported)
    published = import_recgpt(Path(FILES[0]), Path(FILES[1]), heads=2, levels=(7, 7))
    for name, value in flatten_dict(published.params, sep="/").items():
        np.testing.assert_array_equal(flatten_dict(run.params, sep="/")[name], value, err_msg=name)
    kept = flatten_dict(load_state(imported / "codes"), sep="/")
    for name, value in flatten_dict(published.state, sep="/").items():
        np.testing.assert_array_equal(kept[name], value, err_msg=name)

    texts = ItemText("{title} {categories}").texts(find("shop").catalog)
    vectors = Hashed(32).encode([text or "" for text in texts])
    vectors = np.concatenate([np.zeros((1, 32), np.float32), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)])
    known = np.arange(101) > 0
    codes = published.tokenizer.encode(published.state, vectors, known)
    table = jax.tree.map(jnp.asarray, text_items(vectors, known, codes))
    direct = published.config.build(ItemStats(100, np.ones(101, np.int64), table.row_shapes, (49,) * 4))
    items = np.array([[3, 70, 1, 100, 2, 5], [9, 4, 6, 0, 0, 0]], np.int32)
    positions = np.tile(np.arange(6, dtype=np.int32), (2, 1))
    asked = Queries(jnp.asarray(items), jnp.asarray(positions), jnp.asarray([6, 3]), jnp.asarray(items))
    expected = jax.jit(direct.logits)(published.params, asked, table)
    with jax.set_mesh(run.mesh):
        found = jax.jit(run.model.logits)(run.params, asked, run.items)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(run.items[CODES])[:101], codes)
    np.testing.assert_allclose(np.asarray(run.items[VECTORS])[:101], vectors, atol=1e-6)


def test_an_imported_run_is_evaluated_used_and_inspected(imported: Path, capsys: pytest.CaptureFixture[str]):
    few = ["--set", "evaluate.bootstrap=20", "--json"]
    assert cli.main(["evaluate", str(imported), "--data", "other", *few]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"]["name"] == "other" and report["counts"]["users"] == 120
    assert 0 < report["metrics"]["all"]["hr@20"] <= 1
    filtered = ["--set", "data.prepare.min_length=9", *few]
    assert cli.main(["evaluate", str(imported), "--data", "other", *filtered]) == 0
    long = find("other", Preparation(min_length=9))
    assert json.loads(capsys.readouterr().out)["dataset"] == {
        "name": "other",
        "fingerprint": long.fingerprint,
        "users": long.n_users,
        "items": long.n_items,
    }
    assert 0 < long.n_users < 120
    items = find("shop").catalog["item_id"].to_list()
    assert cli.main(["recommend", str(imported), "--history", f"{items[0]},{items[5]}", "--k", "3"]) == 0
    assert capsys.readouterr().out.count("\n") > 4
    assert cli.main(["inspect", str(imported)]) == 0
    shown = capsys.readouterr().out
    assert "step 1 of" in shown and "model.aux_width = 8" in shown and "tokenizer.prepare = none" in shown


def test_a_tokenizer_that_is_damaged_or_missing_is_never_fitted_anew(imported: Path, tmp_path: Path, capsys):
    run = shutil.copytree(imported, tmp_path / "run")
    tokenizer = run / "codes" / "tokenizer.safetensors"
    content = tokenizer.read_bytes()
    tokenizer.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert cli.main(["inspect", str(run)]) == 2
    assert "tokenizer.safetensors is damaged" in capsys.readouterr().err
    tokenizer.unlink()
    assert cli.main(["inspect", str(run)]) == 2
    assert "tokenizer.safetensors is missing" in capsys.readouterr().err
    assert not tokenizer.exists()


def test_an_import_never_replaces_a_run(imported: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["import-recgpt", *FILES, "--run", str(imported), "--encoder", "hashed:32", *FITTING]) == 2
    assert "holds a run already" in capsys.readouterr().err
