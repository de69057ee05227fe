"""Run configurations: frozen nested dataclasses, checked, overridden by key, written as JSON and read back.

A configuration is composed of dataclasses that other rooms own; this file knows none of them. In JSON each dataclass
carries its type as a tag, `"recjax.models.sasrec:SASRec"`, or `"recipe:MyModel"` for a class that the recipe itself
defines. A tag resolves to a dataclass inside the package or in the recipe that the caller hands over, never to an
arbitrary import.
"""

import dataclasses
import difflib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from recjax.files import read_json, replacing
from recjax.limits import SEED, require
from recjax.settings import SettingError, check, hints, is_config, is_several, join, keys, override, override_all, show
from recjax.typing import InputError

TAG = "type"
PACKAGE = "recjax"
RECIPE = "recipe"
_MODULE = re.compile(rf"{PACKAGE}(\.[a-z]\w*)*", re.ASCII)
"""Modules that a tag may name; those whose names begin with an underscore, such as `__main__`, do things."""

_MOVED = {
    "data.alterations": "data.batches.alterations",
    "data.denoising": "data.batches.denoising",
    "data.derived": "data.batches.derived",
    "data.loader": "data.batches.loader",
    "data.mixture": "data.batches.mixture",
    "data.pairs": "data.batches.pairs",
    "data.partners": "data.batches.partners",
    "data.preparation": "data.prepare.preparation",
    "data.views": "data.batches.views",
    "mixers.state_space": "mixers.parts.state_space",
    "models.objectives": "models.parts.objectives",
}
"""Modules of configurations by the name that older run folders know them by; `_today` reads their tags."""

__all__ = ["RunConfig", "completed", "diff", "from_json", "keys", "load", "override", "override_all", "save", "to_json"]


@dataclass(frozen=True)
class RunConfig:
    """All that a run depends on.

    Attributes:
        name: of the run folder and in reports.
        data: which dataset, how it is prepared, split, viewed and packed.
        model: a model's config: a frozen dataclass with `build(stats)`.
        optim: optimiser and schedule.
        mesh: shape of the device mesh.
        train: length of training, validation, checkpoints.
        evaluate: an evaluator, or a tuple of them; the first one's figures lead.
        text: how item text becomes vectors (the columns `vectors`, `known`, `density`), where the model wants them.
        tokenizer: how these become item codes (the column `codes`), where the model wants them.
        items: more features of items by name, see `recjax.data.features.feature.Feature`: each makes the column or the
            relation of its name, in this order.
        seed: of parameters, packing and every random choice.

    Raises:
        InputError: a value somewhere in the tree is not of the type its field declares.
    """

    name: str
    data: Any
    model: Any
    optim: Any
    mesh: Any
    train: Any
    evaluate: Any
    text: Any = None
    tokenizer: Any = None
    items: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for part in ("data", "model", "optim", "mesh", "train", "evaluate"):
            value = getattr(self, part)
            if not (is_config(value) or (part == "evaluate" and is_several(value))):
                raise InputError(f"{part} is {value!r}, expected a configuration (an instance of a frozen dataclass)")
        for part in ("text", "tokenizer"):
            if (value := getattr(self, part)) is not None and not is_config(value):
                raise InputError(f"{part} is {value!r}, expected a configuration or none")
        require(self, seed=SEED)
        check(self)
        _check_lengths(self)

    @property
    def evaluators(self) -> tuple[Any, ...]:
        """`evaluate` as a tuple."""
        return self.evaluate if isinstance(self.evaluate, tuple) else (self.evaluate,)


def _check_lengths(config: RunConfig) -> None:
    """Raises InputError where histories are longer than what the model has positions for."""
    room = getattr(config.model, "longest", None)
    length = getattr(getattr(config.data, "view", None), "max_length", None)
    if isinstance(room, int) and isinstance(length, int) and room < length:
        raise InputError(f"data.view.max_length is {length}, but the model has positions for {room} events at most")


def to_json(config: Any) -> Any:
    """The tree as JSON values; every dataclass becomes an object tagged with its type, every tuple a list."""
    if is_config(config):
        fields = {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {TAG: _tag(type(config)), **fields}
    if isinstance(config, tuple):
        return [to_json(entry) for entry in config]
    if isinstance(config, Mapping):
        return {name: to_json(entry) for name, entry in config.items()}
    return config


def _tag(cls: type) -> str:
    inside = cls.__module__ == PACKAGE or cls.__module__.startswith(PACKAGE + ".")
    return f"{cls.__module__ if inside else RECIPE}:{cls.__qualname__}"


def from_json(tree: Any, recipe: ModuleType | None = None, key: str = "") -> Any:
    """The configuration that `to_json` wrote.

    Args:
        tree: JSON values.
        recipe: module in which `recipe:` tags are looked up.
        key: of the configuration, where it is part of another.

    Raises:
        InputError: a tag that names no configuration of recjax or of the recipe, or a setting that it does not have.
    """
    if isinstance(tree, list):
        return tuple(from_json(entry, recipe, f"{key}[{index}]") for index, entry in enumerate(tree))
    if not isinstance(tree, Mapping):
        return tree
    values = {name: from_json(entry, recipe, join(key, name)) for name, entry in tree.items() if name != TAG}
    if TAG not in tree:
        return values
    cls = _resolve(tree[TAG], recipe)
    _check_tagged(values, hints(cls), key)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{tree[TAG]} has no setting {name!r}; it has: {', '.join(known)}{hint}")
    try:
        return cls(**values)
    except SettingError as error:
        raise error.at(key) from None
    except InputError:
        raise
    except Exception as error:  # a class that checks nothing was given what it was not made for
        raise InputError(f"{tree[TAG]}: {error}") from None


def _check_tagged(values: Mapping[str, Any], declared: Mapping[str, Any], key: str) -> None:
    """Raises InputError for an object without a tag where none is declared: a tag was lost."""
    for name, value in values.items():
        is_table = get_origin(declared.get(name)) is dict and isinstance(value, dict)
        for place, entry in value.items() if is_table else [("", value)]:
            if is_table and isinstance(entry, dict) and entry and all(map(is_config, entry.values())):
                continue  # a table inside a table, such as features in the settings of a stage
            if any(isinstance(one, dict) for one in (entry if isinstance(entry, tuple) else (entry,))):
                where = ".".join(filter(None, (key, name, place)))
                raise InputError(f"{where} has no {TAG!r}: these settings belong to nothing")


def _today(tag: Any) -> Any:
    """A tag with the module's name of today."""
    place, colon, name = str(tag).partition(":")
    moved = _MOVED.get(place.removeprefix(f"{PACKAGE}."))
    return f"{PACKAGE}.{moved}{colon}{name}" if moved else tag


def _resolve(tag: Any, recipe: ModuleType | None) -> type:
    tag = _today(tag)
    place, _, name = str(tag).partition(":")
    if not name.isidentifier():
        raise InputError(f"{tag!r} is not the type of a configuration, expected 'module:Class'")
    if place == RECIPE:
        if recipe is None:
            raise InputError(f"{tag!r} is defined in the run's recipe; name the recipe's file with --recipe")
        module = recipe
    elif _MODULE.fullmatch(place):
        try:
            module = importlib.import_module(place)
        except ImportError:
            raise InputError(f"{tag!r}: this version of recjax has no module {place!r}") from None
    else:
        raise InputError(f"{tag!r} is neither a configuration of recjax nor of the recipe, so it is not loaded")
    cls = getattr(module, name, None)
    # A module also holds names it imports; only its own dataclasses count, so a tag reaches nothing else.
    own = place == RECIPE or getattr(cls, "__module__", None) == place
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and own):
        raise InputError(f"{tag!r} is not a configuration: {place} defines no dataclass {name!r}")
    return cls


def save(config: RunConfig, path: Path) -> None:
    """Writes the configuration as JSON, atomically."""
    with replacing(path) as new:
        new.write_text(json.dumps(to_json(config), indent=2) + "\n", encoding="utf-8")


def load(path: Path, recipe: ModuleType | None = None) -> RunConfig:
    """The configuration that `save` wrote; InputError where the file is absent or damaged."""
    tree = read_json(path, f"so {path.parent} is not a run folder")
    try:
        config = from_json(tree, recipe)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(config, RunConfig):
        raise InputError(f"{path} holds {show(config)}, expected a {RunConfig.__name__}")
    return config


def completed(tree: Any, config: Any) -> Any:
    """Tree of an older `to_json`, with the defaults of settings that have come since: those meant nothing else
    then.

    Args:
        tree: JSON values.
        config: of today; says which settings there are where the types agree.
    """
    if isinstance(tree, list):
        alike = isinstance(config, tuple) and len(tree) == len(config)
        return [completed(*pair) for pair in zip(tree, config, strict=True)] if alike else tree
    if not (isinstance(tree, Mapping) and is_config(config) and _today(tree.get(TAG)) == _tag(type(config))):
        return tree
    result = dict(tree) | {TAG: _tag(type(config))}
    for field in dataclasses.fields(config):
        if field.name in tree:
            result[field.name] = completed(tree[field.name], getattr(config, field.name))
        elif field.default is not dataclasses.MISSING:
            result[field.name] = to_json(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            result[field.name] = to_json(field.default_factory())
    return result


def diff(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """The keys at which two configurations differ: key -> (value before, value after), as JSON values.

    A key that only one of them has stands against None.
    """
    left, right = dict(_flat(to_json(before))), dict(_flat(to_json(after)))
    names = list(left) + [name for name in right if name not in left]
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _flat(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, list) and tree and all(isinstance(entry, Mapping) for entry in tree):
        tree = {str(index): entry for index, entry in enumerate(tree)}
    if not isinstance(tree, Mapping):
        yield key, tree
        return
    for name, entry in tree.items():
        yield from _flat(entry, key if name == TAG else join(key, name))
