"""Patterns of mixers as text, for recipes and the command line."""

import dataclasses
import difflib
import re
from typing import Any

from recjax.mixers import LETTERS, MIXERS
from recjax.mixers.mixer import MixerConfig
from recjax.settings import SettingError, override_all
from recjax.typing import InputError

_ENTRY = re.compile(r"\s*(?P<name>\w+)\s*(?:\((?P<settings>[^()]*)\))?\s*(?:\*\s*(?P<times>\d{1,3}))?\s*(?:,|$)")


def pattern(text: str, **shared: Any) -> tuple[MixerConfig, ...]:
    """The mixers of a pattern.

    Args:
        text: names in order, each with optional settings and repetitions: "lru", "lru, lru, attention",
            "lru(r_min=0.8; r_max=0.99)*2, attention". A word of letters is short for the names they stand for: "lla".
        shared: settings of every mixer that has them, such as heads or dropout.

    Raises:
        InputError: an unknown name or setting.
    """
    word = text.strip()
    if word not in MIXERS and re.fullmatch(r"[a-z]{1,64}", word) and set(word) <= set(LETTERS):
        return tuple(_mixer(LETTERS[letter], "", shared) for letter in word)
    mixers: list[MixerConfig] = []
    place = 0
    while place < len(text) or not mixers:
        found = _ENTRY.match(text, place)
        if found is None:
            raise InputError(
                f"{text!r} is no pattern of mixers: expected names such as 'attention' or "
                f"'lru(r_min=0.8), attention', or letters ({', '.join(f'{k} = {v}' for k, v in LETTERS.items())})"
            )
        mixer = _mixer(found["name"], found["settings"] or "", shared)
        mixers += [mixer] * int(found["times"] or 1)
        place = found.end()
    return tuple(mixers)


def _mixer(name: str, settings: str, shared: dict[str, Any]) -> MixerConfig:
    if name not in MIXERS:
        near = difflib.get_close_matches(name, MIXERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"no mixer is called {name!r}; there are: {', '.join(MIXERS)}{hint}")
    cls: Any = MIXERS[name]
    known = {field.name for field in dataclasses.fields(cls)}
    config = cls(**{key: value for key, value in shared.items() if key in known})
    try:
        return override_all(config, [part for part in settings.split(";") if part.strip()])
    except SettingError as error:
        raise InputError(str(error.at(name))) from None
