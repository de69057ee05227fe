"""Sessions in packed rows: runs of events that share a segment and a number."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from recjax.ops.items.embedding import take_position
from recjax.typing import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Runs:
    """Sessions of the rows, numbered from 0 through all histories of a row.

    Attributes:
        number: session of each event.
        last: whether an event is the last of its session.
        ends: place of the last event of each session, session after session; past the row's sessions without meaning.
        segments: of the sessions, 0 past the row's sessions.
        together: whether two events are of one session.
        seen: whether the second event is of the first one's history, and not of a later session.
    """

    number: Int[Array, "b l"]
    last: Bool[Array, "b l"]
    ends: Int[Array, "b l"]
    segments: Int[Array, "b l"]
    together: Bool[Array, "b l l"]
    seen: Bool[Array, "b l l"]


def runs(segments: Int[Array, "b l"], numbers: Int[Array, "b l"]) -> Runs:
    """Sessions of rows.

    Args:
        segments: 1, 2, ... for the histories of a row, 0 = padding.
        numbers: of the sessions of each history, ascending.
    """
    changed = (segments[:, 1:] != segments[:, :-1]) | (numbers[:, 1:] != numbers[:, :-1])
    edge = jnp.ones((len(segments), 1), bool)
    number = jnp.cumsum(jnp.concatenate([edge, changed], axis=1), axis=1) - 1
    last = jnp.concatenate([changed, edge], axis=1)
    ends = jnp.argsort(~last, axis=1, stable=True)
    real = jnp.arange(segments.shape[1]) < jnp.sum(last, axis=1, keepdims=True)
    own, age = segments[:, :, None] == segments[:, None, :], number[:, :, None] - number[:, None, :]
    of_ends = jnp.where(real, take_position(segments, ends), 0)
    return Runs(number, last, ends, of_ends, own & (age == 0), own & (age >= 0))
