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
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, Union

from recjax.typing import InputError

TAG = "type"
PACKAGE = "recjax"
RECIPE = "recipe"

Config = TypeVar("Config")


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
        evaluate: protocol of the final evaluation.
        text: how item text becomes vectors, where the model wants them.
        tokenizer: how vectors become item codes, where the model wants them.
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
    seed: int = 0

    def __post_init__(self) -> None:
        for part in ("data", "model", "optim", "mesh", "train", "evaluate"):
            if not _is_config(value := getattr(self, part)):
                raise InputError(f"{part} is {value!r}, expected a configuration (an instance of a frozen dataclass)")
        check(self)


# --- Types ------------------------------------------------------------------------------------------------------------


def check(config: Any, key: str = "") -> None:
    """Raises InputError, naming the key, where a value of the tree is not of its declared type."""
    hints = _hints(type(config))
    for field in dataclasses.fields(config):
        value, inner = getattr(config, field.name), _join(key, field.name)
        if not _fits(value, hints[field.name]):
            raise InputError(f"{inner} is {_show(value)}, expected {describe(hints[field.name])}")
        _check_inside(value, inner)


def _check_inside(value: Any, key: str) -> None:
    if _is_config(value):
        check(value, key)
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            _check_inside(entry, f"{key}[{index}]")
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            _check_inside(entry, _join(key, str(name)))


def _is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation alone."""
    return typing.get_args(annotation) if typing.get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _fits(value: Any, annotation: Any) -> bool:
    members = _members(annotation)
    if len(members) > 1:
        return any(_fits(value, member) for member in members)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is Any:
        return _storable(value)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in args)
    if annotation is bool or isinstance(value, bool):
        return isinstance(value, bool) and annotation is bool
    if annotation is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if origin is tuple or annotation is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, args)
    if origin is dict or annotation is dict:
        return isinstance(value, dict) and all(
            isinstance(name, str) and _fits(entry, args[1] if args else Any) for name, entry in value.items()
        )
    if getattr(annotation, "_is_protocol", False):
        return _is_config(value)
    return isinstance(annotation, type) and isinstance(value, annotation)


def _fits_tuple(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if not args or args == (Any, ...):
        return all(_storable(entry) for entry in value)
    if len(args) == 2 and args[1] is Ellipsis:
        return all(_fits(entry, args[0]) for entry in value)
    return len(args) == len(value) and all(_fits(entry, arg) for entry, arg in zip(value, args, strict=True))


def _storable(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, tuple):
        return all(_storable(entry) for entry in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and _storable(entry) for name, entry in value.items())
    return value is None or isinstance(value, bool | int | str) or _is_config(value)


def describe(annotation: Any) -> str:
    """The type in the user's words: `int`, `one of 'pre', 'post'`, `float or none`."""
    members = _members(annotation)
    if len(members) > 1:
        return " or ".join(describe(member) for member in members)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is type(None):
        return "none"
    if annotation is Any:
        return "a number, text, true, false, none, a tuple of these or a configuration"
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in args)
    if origin is tuple:
        inner = [describe(arg) for arg in args if arg is not Ellipsis]
        return f"{', '.join(inner)}, ..." if Ellipsis in args else f"({', '.join(inner)})"
    if annotation is float:
        return "a finite number"
    return str(getattr(annotation, "__name__", annotation))


def _show(value: Any) -> str:
    return type(value).__name__ if _is_config(value) else repr(value)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


# --- Overrides --------------------------------------------------------------------------------------------------------


def keys(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that can be set, with its value: leaves, and parts that are none or chosen among classes."""
    hints = _hints(type(config))
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), _join(prefix, field.name)
        if not _is_config(value):
            yield key, value
            continue
        if _choices(hints[field.name]):
            yield key, type(value).__name__
        yield from keys(value, key)


def override(config: Config, key: str, text: str) -> Config:
    """A copy of `config` with one value replaced, e.g. `override(config, "model.width", "128")`.

    Text is read by the declared type of the field: numbers, `true`/`false`, `none` where the field may be none, one of
    the options of a Literal, `1,2,3` for a tuple. Where a field accepts several dataclasses (`model.loss`), the name of
    one selects it with its defaults.

    Raises:
        InputError: there is no such key (names the nearest one), or the text does not read as its type.
    """
    changed = _override(config, key.split("."), text, key, config)
    check(changed)
    return changed


def override_all(config: Config, settings: Iterable[str]) -> Config:
    """`override` for each `key=value` of the command line, in order."""
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise InputError(f"--set {setting!r}: expected key=value, such as model.width=128")
        config = override(config, key.strip(), text.strip())
    return config


def _override(config: Any, path: list[str], text: str, key: str, root: Any) -> Any:
    hints = _hints(type(config))
    name, rest = path[0], path[1:]
    if name not in {field.name for field in dataclasses.fields(config)}:
        raise InputError(_no_key(key, root))
    value = getattr(config, name)
    if rest and not _is_config(value):
        held = key[: -len(".".join(rest)) - 1]
        raise InputError(f"{key} cannot be set: {held} is {_show(value)} here and has no settings inside")
    new = _override(value, rest, text, key, root) if rest else _parse(text, hints[name], value, key)
    return dataclasses.replace(config, **{name: new})


def _no_key(key: str, root: Any) -> str:
    known = [name for name, _ in keys(root)]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:  # the last word alone often says what is meant: `width` for `model.width`
        ends = {name.rpartition(".")[2]: name for name in reversed(known)}
        near = [ends[end] for end in difflib.get_close_matches(key.rpartition(".")[2], ends, n=1)]
    if not near:
        return f"there is no setting {key!r}; there are: {', '.join(known)}"
    annotation, value = _declared(root, near[0])
    return f"there is no setting {key!r}; did you mean {near[0]!r} ({describe(annotation)}, now {_show(value)})?"


def _declared(root: Any, key: str) -> tuple[Any, Any]:
    annotation = Any
    for name in key.split("."):
        annotation, root = _hints(type(root))[name], getattr(root, name)
    return annotation, root


def _choices(annotation: Any) -> dict[str, type]:
    """Dataclasses that the command line may select by name: those the field declares."""
    members = _members(annotation)
    return {cls.__name__: cls for cls in members if isinstance(cls, type) and dataclasses.is_dataclass(cls)}


class _UnreadableError(ValueError):
    pass


def _parse(text: str, annotation: Any, current: Any, key: str) -> Any:
    if _is_config(current) and not _choices(annotation):
        inside = ", ".join(name for name, _ in keys(current, key))
        raise InputError(f"{key} is a group of settings ({type(current).__name__}); set one of: {inside}")
    try:
        return _read(text, annotation)
    except _UnreadableError:
        raise InputError(f"{key}={text}: expected {describe(annotation)}, found {text!r}") from None


def _read(text: str, annotation: Any) -> Any:
    members = _members(annotation)
    if len(members) > 1:
        # `none` before text, numbers before text: a string accepts anything, so it comes last.
        for member in sorted(members, key=lambda member: member is str):
            try:
                return _read(text, member)
            except _UnreadableError:
                continue
        raise _UnreadableError
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return _choose(text.lower(), {"none": None, "null": None})
    if annotation is Any:
        return _read(text, type(None) | bool | int | float | str)
    if annotation is bool:
        return _choose(text.lower(), {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False})
    if annotation is int:
        return _read_int(text)
    if annotation is float:
        return _number(text)
    if annotation is str:
        return text
    if origin is Literal:
        return _choose(text, {str(option): option for option in args})
    if origin is tuple:
        return _read_tuple(text, args)
    if dataclasses.is_dataclass(annotation):
        return _choose(text, _choices(annotation))()
    raise _UnreadableError


def _choose(text: str, options: dict[str, Any]) -> Any:
    if text not in options:
        raise _UnreadableError
    return options[text]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise _UnreadableError from None
    if not math.isfinite(number):
        raise _UnreadableError
    return number


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = _number(text)  # so that 1e5 reads as a count
    if not number.is_integer():
        raise _UnreadableError
    return int(number)


def _read_tuple(text: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    text = text.strip().removeprefix("(").removesuffix(")").strip()
    parts = [part.strip() for part in text.rstrip(",").split(",")] if text else []
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(parts)
    if len(parts) != len(args):
        raise _UnreadableError
    return tuple(_read(part, arg) for part, arg in zip(parts, args, strict=True))


# --- JSON -------------------------------------------------------------------------------------------------------------


def to_json(config: Any) -> Any:
    """The tree as JSON values; every dataclass becomes an object tagged with its type, every tuple a list."""
    if _is_config(config):
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


def from_json(tree: Any, recipe: ModuleType | None = None) -> Any:
    """The configuration that `to_json` wrote.

    Args:
        tree: JSON values.
        recipe: module in which `recipe:` tags are looked up.

    Raises:
        InputError: a tag that names no configuration of recjax or of the recipe, or a setting that it does not have.
    """
    if isinstance(tree, list):
        return tuple(from_json(entry, recipe) for entry in tree)
    if not isinstance(tree, Mapping):
        return tree
    values = {name: from_json(entry, recipe) for name, entry in tree.items() if name != TAG}
    if TAG not in tree:
        return values
    cls = _resolve(tree[TAG], recipe)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{tree[TAG]} has no setting {name!r}; it has: {', '.join(known)}{hint}")
    try:
        return cls(**values)
    except TypeError as error:
        raise InputError(f"{tree[TAG]}: {error}") from None


def _resolve(tag: Any, recipe: ModuleType | None) -> type:
    place, separator, name = str(tag).partition(":")
    if not separator or not name.isidentifier():
        raise InputError(f"{tag!r} is not the type of a configuration, expected 'module:Class'")
    if place == RECIPE:
        if recipe is None:
            raise InputError(f"{tag!r} is defined in the run's recipe; name the recipe's file with --recipe")
        module = recipe
    elif place == PACKAGE or place.startswith(PACKAGE + "."):
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError:
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
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(to_json(config), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def load(path: Path, recipe: ModuleType | None = None) -> RunConfig:
    """The configuration that `save` wrote; InputError where the file is absent or damaged."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, so {path.parent} is not a run folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    config = from_json(tree, recipe)
    if not isinstance(config, RunConfig):
        raise InputError(f"{path} holds {_show(config)}, expected a {RunConfig.__name__}")
    return config


def diff(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """The keys at which two configurations differ: key -> (value before, value after), as JSON values.

    A key that only one of them has stands against None.
    """
    left, right = dict(_flat(to_json(before))), dict(_flat(to_json(after)))
    names = list(left) + [name for name in right if name not in left]
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _flat(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        yield key, tree
        return
    for name, entry in tree.items():
        yield from _flat(entry, key if name == TAG else _join(key, name))
