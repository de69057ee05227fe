"""Equality of built models, so that two that compute the same share what was compiled for one."""

import dataclasses
import functools
import hashlib
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import numpy as np


def identity_of(value: Any) -> Hashable:
    """Key that is equal for equal content: dataclasses, Linen modules among them, by fields, arrays by values.

    What it does not know is equal to what it says itself, or to itself alone where it cannot be hashed.
    """
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
    if isinstance(value, functools.partial):
        return (functools.partial, identity_of(value.func), identity_of(value.args), identity_of(value.keywords))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = tuple((field.name, identity_of(getattr(value, field.name))) for field in dataclasses.fields(value))
        return (type(value), fields)
    if isinstance(value, Mapping):
        return (type(value), tuple((key, identity_of(entry)) for key, entry in value.items()))
    if isinstance(value, tuple | list):
        return (type(value), tuple(map(identity_of, value)))
    if isinstance(value, Hashable):
        return (type(value), value)
    return _Itself(value)


@dataclasses.dataclass(frozen=True, eq=False)
class _Itself:
    """Key of one object, which it keeps alive so that no other gets its place."""

    value: Any
