"""Answers as JSON, and the words of refusals."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

SHOWN = 3
"""Faults of a request that its refusal names."""


class Json(Response):
    """JSON in UTF-8, of any text: halves of characters become question marks."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def failed(status: int, code: str, message: str, unknown: Any = None, headers: Mapping[str, str] | None = None) -> Json:
    """The answer to a request that is refused, or cannot be answered."""
    more = {"unknown": unknown} if unknown else {}
    return Json({"error": {"code": code, "message": message, **more}}, status, headers)


def faults(errors: Sequence[Mapping[str, Any]]) -> str:
    """The validation errors of a request, by place and kind, in words."""
    lines = list(dict.fromkeys(map(_fault, errors)))
    more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more


def _fault(error: Mapping[str, Any]) -> str:
    place = list(error["loc"])
    while place and place[0] in ("body", "query", "path"):
        place = place[1:]
    if place and place[-1] in ("constrained-str", "constrained-int", "str", "int"):  # of a union
        return f"{_named(place[:-1])} is {_shown(error['input'])}, expected a text or a whole number"
    name = _named(place) or "the request"
    match error["type"]:
        case "missing":
            return f"{name} is missing" if place else "the request has no body, expected JSON"
        case "extra_forbidden":
            return f"there is no setting {name}"
        case "too_short":
            return f"{name} is empty"
        case "too_long":
            given, most = error["ctx"]["actual_length"], error["ctx"]["max_length"]
            return f"{name} has {given if given is not None else 'too many'} entries, expected at most {most:,}"
        case "less_than_equal":
            return f"{name} is {_shown(error['input'])}, expected at most {error['ctx']['le']:,}"
        case "greater_than_equal":
            return f"{name} is {_shown(error['input'])}, expected at least {error['ctx']['ge']:,}"
        case "literal_error":
            return f"{name} is {_shown(error['input'])}, expected {error['ctx']['expected']}"
        case _:
            kinds = {"list_type": "a list", "int_type": "a whole number", "string_type": "a text"}
            objects = {"model_attributes_type": "an object", "model_type": "an object", "dict_type": "an object"}
            if wanted := (kinds | objects).get(error["type"]):
                return f"{name} is {_shown(error.get('input'))}, expected {wanted}"
            return f"{name}: {error['msg']}"


def _named(place: Sequence[Any]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text[:200]


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def with_nearest(message: str, errors: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    """The message with the nearest name of a setting that there is not."""
    for error in errors:
        if error["type"] == "extra_forbidden" and isinstance(name := error["loc"][-1], str):
            if near := difflib.get_close_matches(name[:100], known, 1, 0.5):
                return f"{message}; did you mean {near[0]}?"
            return f"{message}; there are {', '.join(known)}"
    return message
