"""Settings inside trees of frozen dataclasses: checked against their declared types, listed, set by key from text."""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union

from recjax.typing import InputError

Config = TypeVar("Config")

SHOWN_DIGITS = 15
"""Whole numbers with more are shown rounded."""


class SettingError(InputError):
    """A value that its configuration refuses.

    Args:
        place: key of the configuration, or its class where it stands in no tree yet.
        name: of the field.
        complaint: the rest of the sentence.
    """

    def __init__(self, place: str, name: str, complaint: str):
        super().__init__(f"{join(place, name)} {complaint}")
        self._name, self._complaint = name, complaint

    def at(self, key: str) -> "SettingError":
        """The same error, of the configuration at `key` in a tree."""
        return SettingError(key, self._name, self._complaint)


def check(config: Any, key: str = "") -> None:
    """Raises InputError, naming the key, where a value of the tree is not of its declared type."""
    declared = hints(type(config))
    for field in dataclasses.fields(config):
        value, inner = getattr(config, field.name), join(key, field.name)
        if not fits(value, declared[field.name]):
            raise SettingError(key, field.name, f"is {show(value)}, expected {describe(declared[field.name])}")
        _check_inside(value, inner)


def _check_inside(value: Any, key: str) -> None:
    if is_config(value):
        check(value, key)
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            _check_inside(entry, f"{key}[{index}]")
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            _check_inside(entry, join(key, str(name)))


def is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def is_several(value: Any) -> bool:
    """True if a value is a tuple of configurations, whose settings have the number of the entry in their keys."""
    return isinstance(value, tuple) and bool(value) and all(map(is_config, value))


@functools.lru_cache(maxsize=256)
def hints(cls: type) -> dict[str, Any]:
    """The declared types of a dataclass's fields."""
    return typing.get_type_hints(cls)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation alone."""
    return typing.get_args(annotation) if typing.get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def fits(value: Any, annotation: Any) -> bool:
    """True if a value is of a declared type."""
    members = _members(annotation)
    if len(members) > 1:
        return any(fits(value, member) for member in members)
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
        return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if origin is tuple or annotation is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, args)
    if origin is dict or annotation is dict:
        return isinstance(value, dict) and all(
            isinstance(name, str) and fits(entry, args[1] if args else Any) for name, entry in value.items()
        )
    if getattr(annotation, "_is_protocol", False):
        return is_config(value)
    return isinstance(annotation, type) and isinstance(value, annotation) and not isinstance(value, list | set)


def _fits_tuple(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if not args or args == (Any, ...):
        return all(_storable(entry) for entry in value)
    if len(args) == 2 and args[1] is Ellipsis:
        return all(fits(entry, args[0]) for entry in value)
    return len(args) == len(value) and all(fits(entry, arg) for entry, arg in zip(value, args, strict=True))


def _storable(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, tuple):
        return all(_storable(entry) for entry in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and _storable(entry) for name, entry in value.items())
    return value is None or isinstance(value, bool | int | str) or is_config(value)


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
    if (origin or annotation) in (list, set):
        return "a tuple, declared as one: config.json keeps no other sequence"
    return str(getattr(annotation, "__name__", annotation))


def allows_none(annotation: Any) -> bool:
    return type(None) in _members(annotation)


def show(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**SHOWN_DIGITS:
        return f"{value:.6g}" if value.bit_length() < 1000 else "a number of hundreds of digits"
    return type(value).__name__ if is_config(value) else repr(value)


def join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


# --- Overrides --------------------------------------------------------------------------------------------------------


def keys(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that can be set, with its value: leaves, and parts that are none or chosen among classes."""
    declared = hints(type(config))
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), join(prefix, field.name)
        if isinstance(value, dict):
            for name, entry in value.items():  # a name with dots, as stages have, is no part of a key
                yield from keys(entry, join(key, name)) if is_config(entry) and "." not in name else ()
            continue
        if is_several(value):
            for index, entry in enumerate(value):
                yield from keys(entry, f"{key}.{index}")
            continue
        if not is_config(value):
            yield key, value
            continue
        if _choices(declared[field.name]):
            yield key, type(value).__name__
        yield from keys(value, key)


def override(config: Config, key: str, text: str) -> Config:
    """A copy of `config` with one value replaced, e.g. `override(config, "model.width", "128")`.

    Text is read by the declared type of the field: numbers, `true`/`false`, `none` where the field may be none, one of
    the options of a Literal, `1,2,3` for a tuple. Where a field accepts several dataclasses (`model.loss`), the name of
    one selects it with its defaults. In a tuple of configurations `evaluate.0.k` is a setting of the first entry, and
    `evaluate.k` that of every entry that has it.

    Raises:
        InputError: there is no such key (names the nearest one), or the text does not read as its type.
    """
    return change(config, {key: text})


def override_all(config: Config, settings: Iterable[str]) -> Config:
    """`override` for the `key=value` of the command line, all at once, so that they may depend on each other."""
    texts = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise InputError(f"--set {setting!r}: expected key=value, such as model.width=128")
        texts[key.strip()] = text.strip()
    return change(config, texts)


def change(config: Config, values: Mapping[str, Any]) -> Config:
    """`override` for several keys at once, from code: text is read, any other value takes the place of the one there.

    Raises:
        InputError: there is no such key, or a value is not of its declared type.
    """
    changed = _replaced(config, {tuple(key.split(".")): value for key, value in values.items()}, (), config)
    check(changed)
    return changed


def _replaced(config: Any, values: dict[tuple[str, ...], Any], held: tuple[str, ...], root: Any) -> Any:
    """`config`, which stands at the key `held`, with the values at the given paths below it replaced."""
    declared, changes = hints(type(config)), {}
    for name in dict.fromkeys(path[0] for path in values):
        key = ".".join((*held, name))
        own = {path[1:]: new for path, new in values.items() if path[0] == name}
        if name not in {field.name for field in dataclasses.fields(config)}:
            raise InputError(_no_key(".".join((key, *next(iter(own)))), root))
        value = getattr(config, name)
        if () in own:  # a part chosen by name comes before the settings inside it
            new = own.pop(())
            if not isinstance(new, str) and not fits(new, declared[name]):
                raise InputError(f"{key} is {show(new)}, expected {describe(declared[name])}")
            value = _parse(new, declared[name], value, key) if isinstance(new, str) else new
        if own and isinstance(value, dict):
            changes[name] = _entries_replaced(value, own, (*held, name), root)
            continue
        if own and is_several(value):
            changes[name] = _each_replaced(value, own, (*held, name), root)
            continue
        if own and not is_config(value):
            inside = ".".join((key, *next(iter(own))))
            raise InputError(f"{inside} cannot be set: {key} is {show(value)} here and has no settings inside")
        changes[name] = _replaced(value, own, (*held, name), root) if own else value
    try:
        return dataclasses.replace(config, **changes)
    except SettingError as error:
        raise error.at(".".join(held)) from None


def _entries_replaced(
    entries: dict[str, Any], values: dict[tuple[str, ...], Any], held: tuple[str, ...], root: Any
) -> dict[str, Any]:
    """A mapping of configurations with values inside its entries replaced."""
    changed = dict(entries)
    for name in dict.fromkeys(path[0] for path in values):
        own = {path[1:]: new for path, new in values.items() if path[0] == name}
        if not is_config(entries.get(name)) or () in own:
            raise InputError(_no_key(".".join((*held, name, *next(iter(own)))), root))
        changed[name] = _replaced(entries[name], own, (*held, name), root)
    return changed


def _each_replaced(
    entries: tuple[Any, ...], texts: dict[tuple[str, ...], str], held: tuple[str, ...], root: Any
) -> tuple[Any, ...]:
    """`_replaced` for the entries of a tuple: those with the number in the path, or all that have such a setting."""
    own: list[dict[tuple[str, ...], str]] = [{} for _ in entries]
    for path, text in texts.items():
        first, *rest = path
        numbered = first.isdecimal() and bool(rest)
        inside = tuple(rest) if numbered else path
        chosen = [
            mine
            for index, (entry, mine) in enumerate(zip(entries, own, strict=True))
            if any(field.name == inside[0] for field in dataclasses.fields(entry)) and first in (inside[0], str(index))
        ]
        if not chosen:
            raise InputError(_no_key(".".join((*held, *path)), root))
        for mine in chosen:
            mine[inside] = text
    return tuple(
        _replaced(entry, inside, (*held, str(index)), root) if inside else entry
        for index, (entry, inside) in enumerate(zip(entries, own, strict=True))
    )


def _no_key(key: str, root: Any) -> str:
    known = [name for name, _ in keys(root)]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:  # the last word alone often says what is meant: `width` for `model.width`
        ends = {name.rpartition(".")[2]: name for name in reversed(known)}
        near = [ends[end] for end in difflib.get_close_matches(key.rpartition(".")[2], ends, n=1)]
    if not near:
        return f"there is no setting {key!r}; there are: {', '.join(known)}"
    annotation, value = _declared(root, near[0])
    return f"there is no setting {key!r}; did you mean {near[0]!r} ({describe(annotation)}, now {show(value)})?"


def _declared(root: Any, key: str) -> tuple[Any, Any]:
    annotation = Any
    for name in key.split("."):
        if isinstance(root, dict):
            annotation, root = Any, root[name]
        elif isinstance(root, tuple):
            annotation, root = Any, root[int(name)]
        else:
            annotation, root = hints(type(root))[name], getattr(root, name)
    return annotation, root


def _choices(annotation: Any) -> dict[str, type]:
    """Dataclasses that the command line may select by name: those the field declares."""
    members = _members(annotation)
    return {cls.__name__: cls for cls in members if isinstance(cls, type) and dataclasses.is_dataclass(cls)}


class _UnreadableError(ValueError):
    pass


def _parse(text: str, annotation: Any, current: Any, key: str) -> Any:
    if is_several(current) and annotation is Any:  # no text reads as one of them
        inside = ", ".join(f"{key}.{index} ({type(entry).__name__})" for index, entry in enumerate(current))
        raise InputError(f"{key} has several groups of settings: {inside}; set one of their keys")
    if is_config(current) and not _choices(annotation):
        inside = ", ".join(name for name, _ in keys(current, key))
        raise InputError(f"{key} is a group of settings ({type(current).__name__}); set one of: {inside}")
    try:
        return _read(text, annotation)
    except _UnreadableError:
        raise InputError(f"{key}={text}: expected {describe(annotation)}, found {text!r}") from None


def _read(text: str, annotation: Any) -> Any:
    members = _members(annotation)
    if len(members) > 1:
        # Whole numbers before others, which read them too; text, which accepts anything, comes last.
        for member in sorted(members, key=lambda member: {float: 1, str: 2}.get(member, 0)):
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
        try:
            return _choose(text, _choices(annotation))()
        except TypeError:  # it cannot be made without settings
            raise _UnreadableError from None
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
