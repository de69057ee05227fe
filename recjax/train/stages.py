"""Stages: runs that come before a run, in its folder, each starting from the best parameters of an earlier one.

A run of stages is several runs in one folder: each stage in `stages/NAME/`, the run itself in the folder. All have
configurations, checkpoints and logs of their own, so any of them resumes after a kill. A stage is the run's
configuration with some settings changed:

>>> Stage("warm", {"train.steps": 100, "optim.learning_rate": "3e-4", "train.freeze": ("^items$",)})
Stage(name='warm', settings={'train.steps': 100, 'optim.learning_rate': '3e-4', 'train.freeze': ('^items$',)})
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from recjax.config import RunConfig
from recjax.limits import refuse, require
from recjax.settings import change, is_config
from recjax.train.pretrain import PRETRAIN, Pretrain, denoising
from recjax.typing import InputError

STAGES = "stages"
"""Folder of the stages inside the run's."""

NAMED = "stage:"
"""Beginning of a setting that names the folder of an earlier stage, or a place inside it: `stage:warm`,
`stage:align/encoder`. It is resolved where the folder is, so that run folders can be moved."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
EVERYTHING = (".*",)
"""Patterns of `train.take` that match every parameter."""


@dataclass(frozen=True)
class Stage:
    """Run before the run.

    Attributes:
        name: of its folder.
        settings: key -> value, changes of the run's configuration; text is read as `--set` reads it, and any other
            value (a view, another model) takes the place of the one there. `train.start_from`, `train.take` and
            `train.freeze` are not inherited from the run: unless a stage sets them, it starts from the stage before it
            (the first one from where the run says), takes over everything and freezes nothing. A setting that begins
            with `stage:` names the folder of a stage that comes before.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self)
        if not NAME.fullmatch(self.name):
            refuse(self, "name", "letters, digits, '-' and '_'")
        for key in ("train", "train.stages", "train.pretrain", "name"):
            if key in self.settings:
                raise InputError(f"stage {self.name!r} sets {key}, which is the run's alone")


@dataclass(frozen=True)
class Part:
    """One of the runs that make a run of stages.

    Attributes:
        config: of it.
        folder: of it.
        origin: folder of the run whose parameters it starts from, or None.
        title: which stage it is, in words; empty for the run itself.
    """

    config: RunConfig
    folder: Path
    origin: Path | None
    title: str = ""


def parts(config: RunConfig, run_dir: Path) -> list[Part]:
    """The stages of a configuration in order, and the run itself at the end; that alone where there are no stages.

    Raises:
        InputError: a stage's settings cannot be, or name a stage that does not come before it.
    """
    train, stages, found = config.train, _stages(config), list[Part]()
    start, earlier = train.start_from, list[str]()
    if start is not None and start.startswith(NAMED):
        start = None
    for number, stage in enumerate(stages, 1):
        own, folder = _config(config, stage, start), stage_folder(run_dir, stage.name)
        _check_names(own, earlier, f"stage {stage.name!r}")
        title = f"stage {stage.name} ({number} of {len(stages)} before the run itself)"
        found.append(Part(own, folder, _origin(own.train, run_dir), title))
        start = f"{NAMED}{stage.name}"
        earlier.append(stage.name)
    _check_names(replace(config, train=replace(train, stages=())), earlier, "the run")
    if stages and not (train.start_from or "").startswith(NAMED):
        train = replace(train, start_from=start)
    return [*found, Part(config, run_dir, _origin(train, run_dir))]


def resolved(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration of the run in `folder` with the folders of the stages that its settings name."""
    run_dir = folder.parents[1] if folder.parent.name == STAGES else folder
    return _renamed(replace(config, train=replace(config.train, stages=())), run_dir)


def _renamed(value: Any, run_dir: Path) -> Any:
    if isinstance(value, str):
        name, _, inside = value.removeprefix(NAMED).partition("/")
        return str(stage_folder(run_dir, name) / inside) if value.startswith(NAMED) else value
    if isinstance(value, tuple):
        return tuple(_renamed(entry, run_dir) for entry in value)
    if isinstance(value, Mapping):
        return {key: _renamed(entry, run_dir) for key, entry in value.items()}
    new = {name: renamed for name, old in _held(value).items() if (renamed := _renamed(old, run_dir)) != old}
    return replace(value, **new) if new else value


def _names(value: Any) -> Iterator[str]:
    """Names of the stages in the settings of a configuration."""
    if isinstance(value, str) and value.startswith(NAMED):
        yield value.removeprefix(NAMED).partition("/")[0]
    for entry in value if isinstance(value, tuple) else _held(value).values():
        yield from _names(entry)


def _held(value: Any) -> Mapping[str, Any]:
    """Settings inside a configuration or a mapping; of anything else, none."""
    if isinstance(value, Mapping):
        return value
    return {entry.name: getattr(value, entry.name) for entry in fields(value)} if is_config(value) else {}


def _check_names(config: RunConfig, earlier: list[str], who: str) -> None:
    for name in _names(config):
        if name not in earlier:
            there = ", ".join(earlier) or "none"
            raise InputError(f"{who} names {NAMED}{name}, but the stages before it are: {there}")


def stage_folder(run_dir: Path, name: str) -> Path:
    """Folder of a stage; the denoising of runs that are older than stages has a place of its own."""
    old = run_dir / PRETRAIN
    return old if name == PRETRAIN and old.is_dir() else run_dir / STAGES / name


def stage_folders(run_dir: Path, tree: Mapping[str, Any]) -> list[Path]:
    """Folders of the stages of a run whose `config.json` holds `tree`, in order."""
    train = tree["train"]
    names = [PRETRAIN] if train.get("pretrain") else [stage["name"] for stage in train.get("stages", ())]
    return [stage_folder(run_dir, name) for name in names]


def _stages(config: RunConfig) -> tuple[Stage, ...]:
    pretrain: Pretrain | None = config.train.pretrain
    return config.train.stages if pretrain is None else (Stage(PRETRAIN, denoising(config, pretrain)),)


def _config(config: RunConfig, stage: Stage, start: str | None) -> RunConfig:
    own = replace(config.train, stages=(), pretrain=None, start_from=start, take=EVERYTHING, freeze=())
    try:
        return change(replace(config, name=f"{config.name}-{stage.name}", train=own), stage.settings)
    except InputError as error:
        raise InputError(f"stage {stage.name!r}: {error}") from None


def _origin(train: Any, run_dir: Path) -> Path | None:
    if train.start_from is None or not train.take:
        return None
    return Path(_renamed(train.start_from, run_dir)).expanduser()
