"""Events inserted one at a time, where a model says that one is missing, until it says that none is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from recjax.decode.scoring import Scoring
from recjax.typing import Array, Float, Int


@dataclass(frozen=True, eq=False)
class Gaps:
    """A model's answer of what is missing in some sequences, and where.

    Gap j of a sequence of k events has j of them before it; there are k + 1.

    Attributes:
        scoring: of the gaps asked about, sequence after sequence.
        levels: float32 [q, l], what all scores of a gap lack to be logits of one softmax over gaps and items.
        shares: float32 [q, l], log of the share of the missing events that each gap has; -inf behind the last gap.
        stop: float32 [q], logit of whether nothing is missing.
    """

    scoring: Scoring
    levels: Float[Array, "q l"]
    shares: Float[Array, "q l"]
    stop: Float[Array, " q"]


Ask = Callable[[Int[Array, "q c"], Int[Array, " q"]], tuple[Array, Array, Array]]
"""Sequences and their lengths -> the best item of each gap, int32 [q, c + 1], 0 where none is left; its logit, float32
[q, c + 1], comparable within a sequence; and the probability that nothing is missing, float32 [q]."""


def insert(
    ask: Ask, items: Int[Array, "q c"], lengths: Int[Array, " q"], *, stop: float | Array, most: int | Array
) -> tuple[Int[Array, "q c"], Int[Array, " q"], Int[Array, "q c"]]:
    """Sequences with what was inserted, the likeliest event first, then the likeliest of what is missing then.

    A sequence is finished where the model says so, where there is no more room, no item left, or `most` were inserted.

    Args:
        ask: of a model.
        items: 0 behind a sequence; c is the most events of one.
        lengths: events of each.
        stop: probability that nothing is missing from which on nothing is inserted.
        most: insertions into a sequence.

    Returns:
        Sequences, their lengths, and of each event the number of its insertion from 1, or 0 where it was there before.
    """
    room, place = items.shape[1], jnp.arange(items.shape[1])

    def going(carry: Any) -> Array:
        return jnp.any(carry[3]) & (carry[4] < most)

    def step(carry: Any) -> Any:
        items, lengths, order, open_, count = carry
        best, logits, finished = ask(items, lengths)
        gap = jnp.argmax(jnp.where(jnp.arange(room + 1) <= lengths[:, None], logits, -jnp.inf), axis=1)[:, None]
        item = jnp.take_along_axis(best, gap, axis=1)
        open_ &= (finished <= stop) & (item[:, 0] > 0) & (lengths < room)

        def put(row: Array, value: Array) -> Array:
            moved = jnp.where(place < gap, row, jnp.where(place == gap, value, jnp.roll(row, 1, axis=1)))
            return jnp.where(open_[:, None], moved, row)

        return put(items, item), lengths + open_, put(order, count + 1), open_, count + 1

    start = (items, lengths, jnp.zeros_like(items), lengths < room, jnp.int32(0))
    items, lengths, order, _, _ = jax.lax.while_loop(going, step, start)
    return items, lengths, order
