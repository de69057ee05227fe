"""Glossary: dimension letters, mesh axis names, array aliases and the one error users see.

Dimension letters used in shape annotations throughout the package:

    b  rows of a packed batch            l  positions in a row
    q  queries (users being ranked)      s  seen items of a query, padded
    d  model width                       h  attention heads
    v  items of the catalog, 0 included  n  items or rows of a table
    k  length of a recommendation list   t  tokens, i.e. rows x positions flattened

Item 0 is padding everywhere; a catalog of `items` items uses ids 1..items.
"""

from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

import jax
from jaxtyping import Bool, Float, Int

Array: TypeAlias = jax.Array
Params: TypeAlias = Any
"""A Flax parameter tree: nested dicts of arrays."""

Dtype = Literal["float32", "bfloat16"]
"""Compute types of a model; parameters are float32."""

DATA_AXIS = "data"
MODEL_AXIS = "model"
SEQ_AXIS = "seq"
MESH_AXES = (DATA_AXIS, MODEL_AXIS, SEQ_AXIS)

__all__ = [
    "COMMAND",
    "DATA_AXIS",
    "MESH_AXES",
    "MODEL_AXIS",
    "SEQ_AXIS",
    "Array",
    "Bool",
    "Dtype",
    "Float",
    "InputError",
    "Int",
    "Params",
    "shorten",
]


COMMAND: ContextVar[str] = ContextVar("command", default="")
"""The `recjax` command in use, in whose words advice is given; "" in Python."""


class InputError(ValueError):
    """Bad input or bad usage, in the user's words: what was found, where, and what was expected.

    The command line prints the message alone and exits with status 2.
    """


def shorten(text: str, width: int = 80) -> str:
    """At most `width` characters of `text`, in one line."""
    text = " ".join(str(text).split())
    return text if len(text) <= width else text[: width - 3] + "..."
