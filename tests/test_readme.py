"""Every command in the README and the documentation parses, and those of the README run."""

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from recjax import cli, recipes
from recjax.config import override_all
from tests.tiny import SETTINGS, on_one_device, tiny_datasets

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "experiments" / "README.md"]
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
        if options.command == "train" and options.recipe != "my_recipe.py":
            override_all(recipes.read(options.recipe).config, options.settings)
    elif program == "make":
        subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), arguments[0]
    elif program == "pip":
        assert arguments[0] == "install"
        for option, value in itertools.pairwise(arguments):
            assert option not in ("-r", "-c") or (ROOT / value).is_file(), value
    else:
        assert program == "export", f"{page}: nothing tests {program!r}"


def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In order, as they stand there, but on little data and for few steps."""
    monkeypatch.chdir(tmp_path)
    on_one_device(monkeypatch)
    monkeypatch.setenv("RECJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RECJAX_DATA", str(tiny_datasets(tmp_path / "data", ["tiny"])))
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
    (block,) = BLOCK.findall(next(part for part in section if part.startswith("Use it")))
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert {words[1] for words in lines} == {"prepare", "train", "evaluate", "recommend", "inspect"}
    for words in lines:
        assert cli.main([*words[1:], *(SETTINGS if words[1] == "train" else [])]) == 0, words


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
        command = "train" if hasattr(recipes.read(path.stem).config.model, "build") else "align"
        assert f"| {path.stem} | `recjax {command} {path.stem}` |" in table, path.stem
