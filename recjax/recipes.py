"""Recipes: Python files with `def config() -> RunConfig`, found by path or by name.

An ablation has a `sweep()` beside it. A recipe may have `tiny() -> dict[str, Any]` too: settings of a network so small
that it trains in seconds, by which tests run the recipe. Text is read as `--set` reads it, and any other value takes
the place of the one there: `{"model.width": 8, "text": TextSpace((Channel(Hashed(32)),))}`. A short run comes by itself
(`SHORT`), so a recipe without `tiny()` runs briefly at its own size.
"""

import difflib
import hashlib
import importlib.util
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from recjax.config import RunConfig, keys
from recjax.settings import change
from recjax.typing import InputError

RUNS = Path("runs")
FOLDER = "experiments"
ABLATIONS = "ablations"

SHORT = {
    "data.rows": "8",
    "optim.warmup_steps": "0",
    "train.steps": "4",
    "train.epochs": "none",
    "train.evaluate_every": "2",
    "train.validation_users": "20",
    "train.patience": "none",
    "train.start_from": "none",
    "evaluate.bootstrap": "20",
}
"""Settings of a short run that needs no other, whatever is trained."""


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been read.

    Attributes:
        name: the file's name without `.py`.
        path: the file.
        module: what running the file defined; `recipe:` tags of a run's JSON resolve here.
        config: what its `config()` returned.
    """

    name: str
    path: Path
    module: ModuleType
    config: RunConfig


def folders() -> list[Path]:
    """Folders of recipes by name: `experiments/` here, beside the package, and where `pip` put them.

    Ablations stand in a folder of their own inside each.
    """
    bases = [sysconfig.get_path("data"), site.getuserbase()]
    installed = [Path(base) / "share" / "recjax" / FOLDER for base in bases if base]
    found = [Path(FOLDER), Path(__file__).resolve().parents[1] / FOLDER, *installed]
    return [*found, *(folder / ABLATIONS for folder in found)]


def names() -> list[str]:
    """Recipes that can be given by name."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.py") if not path.stem.startswith("_")})


def find(recipe: str) -> Path:
    """The file of a recipe given as a path or a name.

    Raises:
        InputError: there is none; lists the names there are.
    """
    if recipe.endswith(".py") or "/" in recipe:
        path = Path(recipe).expanduser()
        if not path.is_file():
            raise InputError(f"no recipe at {recipe!r}: there is no such file")
        return path
    for folder in folders():
        if (path := folder / f"{recipe}.py").is_file():
            return path
    known = names()
    near = difflib.get_close_matches(recipe, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"no recipe is called {recipe!r}; there are: {', '.join(known) or 'none here'}{hint}")


def read(recipe: str) -> Recipe:
    """Runs a recipe's file and its `config()`.

    Raises:
        InputError: no such recipe, the file does not run (says the line), or it does not return a RunConfig.
    """
    path = find(recipe)
    module = run_file(path)
    make = getattr(module, "config", None)
    if not callable(make):
        raise InputError(f"{path} defines no config(); a recipe is `def config() -> RunConfig`")
    try:
        config = make()
    except Exception as error:
        raise _fault(path, error) from error
    if not isinstance(config, RunConfig):
        raise InputError(f"{path}: config() returned {type(config).__name__}, expected RunConfig")
    return Recipe(path.stem, path, module, config)


def tiny(recipe: Recipe) -> Recipe:
    """The recipe with what its `tiny()` says and `SHORT`, as far as it has such settings.

    Raises:
        InputError: `tiny()` does not run or does not return settings, or there are no such settings.
    """
    make: Any = getattr(recipe.module, "tiny", dict)
    try:
        settings = make()
    except Exception as error:
        raise _fault(recipe.path, error) from error
    if not isinstance(settings, Mapping):
        raise InputError(f"{recipe.path}: tiny() returned {type(settings).__name__}, expected key -> value")
    known = {re.sub(r"\.\d+\.", ".", key) for key, _ in keys(recipe.config)}
    short = {key: text for key, text in SHORT.items() if key in known}
    return replace(recipe, config=change(recipe.config, {**short, **settings}))


def default_run(name: str, settings: Sequence[str]) -> Path:
    """The run folder of a recipe and its overrides: the same command always names the same one, and so resumes."""
    if not settings:
        return RUNS / name
    digest = hashlib.sha256("\n".join(setting.replace(" ", "") for setting in settings).encode()).hexdigest()
    return RUNS / f"{name}-{digest[:8]}"


def run_file(path: Path) -> ModuleType:
    """The module that running the file defines; InputError where it does not run."""
    name = f"recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that annotations of its dataclasses can be resolved
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _fault(path, error) from error
    return module


def _fault(path: Path, error: Exception) -> InputError:
    if isinstance(error, SyntaxError):
        return InputError(f"{path}, line {error.lineno}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return InputError(f"{where}: {kind}{error}")
