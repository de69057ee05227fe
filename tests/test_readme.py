"""Every command in the README and the documentation parses, and those of the README run."""

import itertools
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recjax import cli, recipes
from recjax.config import from_json, override_all, to_json
from recjax.data.batches.loader import Loader, open_data
from recjax.data.items import Relation, bare_items
from recjax.nn.groups import FROZEN, is_frozen
from tests.models.systems import ids
from tests.tiny import SETTINGS, few_users, on_one_device, tiny_datasets

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), EXPERIMENTS / "README.md"]
PAGES += [EXPERIMENTS / "benchmarks" / "SCALING.md"]
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(recjax [a-z]+ [^`]*)`")
ASSIGNMENT = re.compile(r"^[A-Z_]+=")


def commands(page: Path) -> list[list[str]]:
    """The words of each command line of a page."""
    text = page.read_text()
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += INLINE.findall(text)
    parts = [part for line in lines for part in line.split("&&")]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


ALL = [(page.relative_to(ROOT), words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), ALL, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_every_command_is_one_that_exists(page: Path, words: list[str]):
    while ASSIGNMENT.match(words[0]):
        words = words[1:]
    program, *arguments = words
    if program == "recjax":
        if "RECIPE" in arguments or "NAME" in arguments or "--help" in arguments:
            return
        options = cli.parser().parse_args(arguments)
        if options.command == "train" and options.recipe not in ("my_recipe.py", "fossil.py"):
            override_all(recipes.read(options.recipe).config, options.settings)
    elif program == "make":
        subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), arguments[0]
    elif program == "curl":  # tests/serve/test_docs.py asks a server
        assert sum(argument.startswith("http://127.0.0.1:8000/") for argument in arguments) == 1
    elif program == "pip":
        assert arguments[0] == "install"
        for option, value in itertools.pairwise(arguments):
            assert option not in ("-r", "-c") or (ROOT / value).is_file(), value
    else:
        assert program == "export", f"{page}: nothing tests {program!r}"


def test_the_commands_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In order, as they stand there, but on little data and for few steps."""
    monkeypatch.chdir(tmp_path)
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECJAX_DATA", str(tiny_datasets(tmp_path / "data", ["tiny"])))
    few_users(monkeypatch)
    shutil.copytree(tmp_path / "data" / "tiny", tmp_path / "logs")
    tiny = [
        "train.steps=2",
        "model.width=8",
        "model.layers=1",
        "tokenizer.iterations=2",
        "optim.warmup_steps=0",
        "evaluate.bootstrap=20",
    ]
    settings = [part for setting in tiny for part in ("--set", setting)]
    assert cli.main(["train", "quickstart", "--no-evaluate", *settings, "--run", "runs/quickstart"]) == 0
    section = re.split(r"^## ", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (block,) = BLOCK.findall(next(part for part in section if part.startswith("On the command line")))
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert {words[1] for words in lines} == {"prepare", "train", "evaluate", "recommend", "inspect"}
    for words in lines:
        assert cli.main([*words[1:], *(SETTINGS if words[1] == "train" else [])]) == 0, words
    capsys.readouterr()
    assert cli.main(["recommend", "runs/quickstart", "--history", "garden-1"]) == 2
    assert "synthetic-c has no item 'garden-1'" in (said := capsys.readouterr().err) and "--data (synthetic-a" in said
    (python,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    there: dict = {}
    exec(python, there)
    assert there["lists"]["rank"].to_list() == there["alike"]["rank"].to_list() == [1, 2, 3, 4, 5]
    write_files_of_lists(there["recommender"])
    tiny_lru = ["--set", "data.dataset=tiny", *SETTINGS, "--no-evaluate"]
    assert cli.main(["train", "lru_ml1m", *tiny_lru, "--run", "runs/lru_ml1m"]) == 0
    monkeypatch.setattr("builtins.input", no_answer)
    for page in ("recommend.md", "export.md"):
        for words in commands(ROOT / "docs" / page):
            if words[0] == "recjax" and "..." not in words:
                assert cli.main(words[1:]) == 0, words


def no_answer(question: str) -> str:
    """Answer of a person who ends the input of `recjax ask`."""
    raise EOFError(question)


def write_files_of_lists(recommender: Any) -> None:
    """The files that the pages on lists and vectors name: users of the run's catalog, and days of another."""
    items = recommender.items["item_id"].to_list()
    users = [recommender.dataset().user_ids[user] for user in range(3)]
    pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": items[:3], "timestamp": [1, 2, 3]}).write_csv("histories.csv")
    Path("in_stock.txt").write_text("\n".join(items[:50]))
    pl.DataFrame({"item_id": items[3:5]}).write_csv("returned.csv")
    Path("customers.txt").write_text("\n".join(users))
    log = pl.read_csv("logs/interactions.csv").sort("timestamp").head(40)
    log.head(20).write_csv("monday.csv")
    log.tail(20).write_csv("tuesday.csv")


def test_the_page_on_adding_a_system_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its commands and blocks as they stand there, the recipe at its tiny size; then what its one-liners make."""
    page = (ROOT / "docs" / "add-a-system.md").read_text()
    first, *blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECJAX_DATA", str(tiny_datasets(tmp_path / "data", ["synthetic"])))
    Path("fossil.py").write_text(first)
    recipe = recipes.read("fossil.py")
    assert len(first.splitlines()) <= 100 and recipes.tiny(recipe).config.model.width == 8
    small = str(tmp_path / "data" / "synthetic")
    tiny = {**recipes.SHORT, **recipe.module.tiny(), "data.dataset": small}
    settings = [part for key, value in tiny.items() for part in ("--set", f"{key}={value}")]
    lines = [shlex.split(line) for block in BLOCK.findall(page) for line in block.splitlines()]
    assert [words[1] for words in lines] == ["train", "evaluate", "recommend"]
    for words in lines:
        own = [*settings, "--run", "runs/fossil"] if words[1] == "train" else []
        assert cli.main([*words[1:], *own]) == 0, words
    there = {**vars(recipe.module), "ids": ids}
    for block in blocks:
        exec(block, there)

    assert there["found"].table["rank"].to_list() == [1, 2, 3, 4, 5]
    assert there["found"].table["score"].null_count() == 0  # the page's items are in the dataset
    users, vectors, bias = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(4, 3) % 5, np.arange(4.0)
    states, table, moved = there["distance"](users, vectors, bias)
    away = np.sum((users[:, None] - vectors) ** 2, axis=-1)
    np.testing.assert_allclose(states @ table.T + moved, np.sum(users**2, axis=-1)[:, None] + bias - away)
    config = there["line"]["fossil"]
    assert config.model == recipe.module.Fossil(width=8)
    replace(config, items=there["features"], text=there["text"], evaluate=there["both"], train=there["staged"])
    items = bare_items(4, {"brand": np.arange(5), "codes": np.eye(5, 2, dtype=np.int32)})
    assert there["brands"](items, np.array([3, 0])).tolist() == [3, 0]
    links = items.adding({"next": Relation(np.arange(10).reshape(5, 2), np.ones((5, 2)))})
    assert there["linked"](links, np.array([3, 0])).tolist() == [[6, 7], [0, 1]]
    vectors, seen = np.eye(5, 3, dtype=np.float32), np.zeros((2, 1), np.int32)
    assert there["near"](vectors[1:3], vectors, 4).topk(seen, 1)[0].tolist() == [[1], [2]]
    assert there["coded"](np.zeros((2, 2, 2), np.float32), items).topk(seen, 1)[0].tolist() == [[1], [1]]
    assert there["term"](vectors, vectors, np.ones(5)).shape == (5,)
    frozen = there["start"]()
    assert there["new"](frozen, 1.0) == {FROZEN: {"centroids": 1.0}} and is_frozen("frozen/centroids")
    for data in (there["contrastive"], there["intents"]):
        _, split = open_data(replace(data, dataset=small))
        assert "partner_items" in Loader(split.train, data.view, 8, None, 0, 100, packed=False).host_batch(0).more
    assert there["Same"].streams and not there["FossilModel"].streams


def test_the_page_on_python_and_the_notebook_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All blocks of the page in order, and all cells of the notebook, as they stand there."""
    monkeypatch.chdir(tmp_path)
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    there: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL):
        exec(block, there)
    assert there["lists"]["user_id"].unique(maintain_order=True).to_list() == ["ann", "bob"]
    assert there["vectors"].height == 40 and there["users"]["vector"].list.len().to_list() == [16]
    notebook = json.loads((ROOT / "docs" / "from-a-frame-to-lists.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    there = {}
    for cell in cells:
        exec("".join(cell["source"]), there)
    assert there["lists"].height == 6 and Path("lists.csv").is_file()


def test_pages_link_to_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} -> {target}"


def test_every_room_stands_in_the_tree():
    tree = (ROOT / "README.md").read_text()
    for entry in sorted((ROOT / "recjax").iterdir()):
        if entry.name.startswith("__") or (entry.is_dir() and not any(entry.glob("*.py"))):
            continue
        assert re.search(rf"^  {re.escape(entry.name)}/? ", tree, re.MULTILINE), entry.name


def test_every_recipe_stands_in_the_table():
    table = (ROOT / "experiments" / "README.md").read_text()
    for path in (ROOT / "experiments").glob("*.py"):
        command = "train" if recipes.read(path.stem).config.model.ranks else "align"
        assert f"| {path.stem} | `recjax {command} {path.stem}` |" in table, path.stem


def test_every_recipe_stands_among_the_systems():
    page = (ROOT / "docs" / "systems.md").read_text()
    for path in EXPERIMENTS.glob("*.py"):
        assert f"| `{path.stem}` |" in page, path.stem


def test_the_page_on_codes_names_features_and_recipes_that_there_are():
    page, there = (ROOT / "docs" / "generative.md").read_text(), dict[str, Any]()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(block, there)
    for name in ("features", "trained"):
        assert from_json(to_json(there[name])) == there[name]
    table = page[page.index("## What there is") : page.index("## Quality")]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(named) >= 6 and set(named) <= {path.stem for path in EXPERIMENTS.glob("*.py")}


def test_the_commands_of_the_page_on_data_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those of one's own files, as they stand there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_datasets(tmp_path / "data", ["tiny"]) / "tiny", "logs")
    log = pl.read_csv("logs/interactions.csv")
    log.with_columns(rating=pl.lit(5)).write_csv("logs/interactions.csv")
    log.write_csv("orders.csv")
    items = pl.read_csv("logs/items.csv")
    items.write_csv("items.csv")
    items.rename({"item_id": "sku", "title": "Name"}).write_csv("products.csv")
    for day in ("2014-07-23", "2014-07-24"):
        Path(f"export/day={day}").mkdir(parents=True)
        log.select("user_id", "item_id").head(50).write_csv(f"export/day={day}/part-00000.csv")
    place = pl.int_range(pl.len())
    kinds = pl.when(place % 3 == 0).then(pl.lit("view")).otherwise(pl.lit("transaction"))
    events = log.rename({"user_id": "visitor"}).with_columns(event=kinds, Quantity=place % 5 - 1, position=-place)
    events.write_csv("events.csv")
    plain = log.select("user_id", "item_id", pl.lit("23/07/2014 10:00").alias("time"))
    plain.write_csv("plain.csv", include_header=False)
    page = (ROOT / "docs" / "prepare-your-data.md").read_text()
    own = page[: page.index("## Logs larger than one machine")]
    lines = [shlex.split(line) for block in BLOCK.findall(own) for line in block.splitlines()]
    assert len(lines) == 11
    for words in lines:
        if words[1] == "prepare":
            assert cli.main(words[1:]) == 0, words
