"""Masks over pairs of events, and relative biases by the gap between the two.

Both are computed for a block of queries and a block of keys at a time; no `[l, l]` array is made of them.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recjax.typing import Array, Bool, Float, Int

MASKED = -1e30
"""Score of a forbidden pair: finite, so that a row that may see nothing stays finite; its weight is exactly 0."""

DISTANCES = 128
"""Entries of a table over gaps in events: `log_bucket` of 3 bits tells gaps below 16 apart and ends past 200,000."""

TIMES = 64
"""Entries of a table over gaps in seconds: `log_bucket` of 1 bit uses 62, two an octave, for all of int32."""


class Visible(NamedTuple):
    """Keys that a query may see by their places in a row, besides being of its segment.

    Attributes:
        causal: forbid the future.
        slots: tokens of an event, the unit of time: event n has the places n * slots .. n * slots + slots - 1, and its
            tokens see each other.
        window: events that a query sees on each side it may see, its own among them; None for all.
    """

    causal: bool = True
    slots: int = 1
    window: int | None = None

    def events(self, first: Int[Array, ""] | int, count: int) -> Int[Array, " l"]:
        """The events of the places first .. first + count - 1, where `first` begins an event."""
        # Divided here, not on the device: fused into a comparison, the division would be done for every pair.
        return first // self.slots + np.arange(count) // self.slots  # pyright: ignore[reportReturnType]

    def pairs(self, queries: Int[Array, "*b l"], keys: Int[Array, "*b m"]) -> Bool[Array, "*b l m"]:
        """True if queries of these events may see keys of those."""
        gap = queries[..., :, None] - keys[..., None, :]
        seen = gap >= 0 if self.causal else jnp.ones_like(gap, bool)
        if self.window is None:
            return jnp.asarray(seen)
        return seen & (gap < self.window) & (gap > -self.window)

    def span(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The places that some query of start .. stop - 1 may see, in a row of `length`."""
        reach = length if self.window is None else (self.window - 1) * self.slots + self.slots - 1
        return max(start - reach, 0), min(stop if self.causal else stop + reach, length)


def log_bucket(gap: Int[Array, "*n"], bits: int) -> Int[Array, "*n"]:
    """Number of the bucket of a gap >= 0: one for each gap below 2^(bits + 1), then 2^bits an octave.

    In integers (the leading one and the `bits` binary digits after it), so that a gap falls in the same bucket on every
    back-end and in every shape; a floating point logarithm would differ by a rounding at the edges.
    """
    octave = jnp.maximum(31 - jax.lax.clz(jnp.maximum(gap, 1)), bits)
    return jnp.where(gap < 1 << bits, gap, (octave - bits) * (1 << bits) + (gap >> (octave - bits)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GapBias:
    """A learned term of a pair's score for how far apart the two events are, in events and in time.

    The form of T5's (Raffel et al. 2020) and HSTU's (Zhai et al. 2024) relative bias. Tables have one row a head, or
    one for all. Gaps beyond a table count as its last.

    Attributes:
        events: bias by the gap in events, or None.
        times: bias by the `log_bucket` (1 bit) of the gap in seconds, or None. A query's time is that of its own event,
            never of the one it is to predict.
        seconds: unix seconds of each event of the row; None without `times`.
        exact: `events` has an entry for each gap; otherwise for each `log_bucket` of 3 bits.
        signed: the future has entries of its own, in the second half of a table.
    """

    events: Float[Array, "h g"] | None = None
    times: Float[Array, "h t"] | None = None
    seconds: Int[Array, "b l"] | None = None
    exact: bool = field(default=False, metadata={"static": True})
    signed: bool = field(default=False, metadata={"static": True})

    def pairs(
        self,
        queries: Int[Array, "*b l"],
        keys: Int[Array, "*b m"],
        query_seconds: Int[Array, "b l"] | None = None,
        key_seconds: Int[Array, "b m"] | None = None,
    ) -> Float[Array, "b h l m"]:
        """The bias of queries of these events and times with keys of those; axes that do not matter have size 1."""
        total = jnp.zeros((1, 1, 1, 1))
        if self.events is not None:
            gap = jnp.asarray(queries[..., :, None] - keys[..., None, :])
            found = self._look_up(self.events, gap if gap.ndim == 3 else gap[None], None if self.exact else 3)
            total = total + found
        if self.times is not None and query_seconds is not None and key_seconds is not None:
            total = total + self._look_up(self.times, query_seconds[:, :, None] - key_seconds[:, None, :], 1)
        return total

    def _look_up(self, table: Array, gap: Int[Array, "b l m"], bits: int | None) -> Float[Array, "b h l m"]:
        size = table.shape[1] // 2 if self.signed else table.shape[1]
        steps = jnp.abs(gap) if self.signed else jnp.maximum(gap, 0)
        place = jnp.minimum(steps if bits is None else log_bucket(steps, bits), size - 1)
        if self.signed:
            place = jnp.where(gap < 0, size + place, place)
        return jnp.moveaxis(jnp.take(table, place, axis=1, mode="clip"), 0, 1)
