"""Rows of tokens as a decoder reads them: padded or packed, with vectors in place of tokens, in any order of sight."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from recjax.typing import Array, Bool, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenRows:
    """A batch of texts.

    Attributes:
        tokens: ids; anything at padding and where a vector stands.
        segments: number of the text that a position belongs to; texts of a row do not see each other; 0 is padding.
        positions: of each token, by which it is turned; None for places in the row (only differences count).
        slots: which of its row's vectors stands in place of a token; -1 for none. None where there are no vectors.
        allowed: which positions each position sees, in place of its text up to itself; None for that.
    """

    tokens: Int[Array, "b l"]
    segments: Int[Array, "b l"]
    positions: Int[Array, "b l"] | None = None
    slots: Int[Array, "b l"] | None = None
    allowed: Bool[Array, "b l l"] | None = None


def padded(texts: Sequence[Sequence[int]] | Sequence[np.ndarray] | np.ndarray, length: int | None = None) -> TokenRows:
    """A text a row, padded to the right with token 0.

    >>> padded([[5, 7], [6]]).segments
    array([[1, 1],
           [1, 0]], dtype=int32)

    Args:
        texts: their tokens.
        length: of the rows; None for the longest text.
    """
    longest = max((len(text) for text in texts), default=0)
    tokens = np.zeros((len(texts), longest if length is None else length), np.int32)
    segments = np.zeros_like(tokens)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
        segments[row, : len(text)] = 1
    return TokenRows(tokens, segments)  # pyright: ignore[reportArgumentType]


def without_gaps(
    segments: Int[Array, "b n"] | Bool[Array, "b n"], room: int | None, last: bool = False
) -> Int[Array, "b room"]:
    """Places of the tokens that are there (segment above 0), in their order, and then of others.

    Args:
        segments: of the places.
        room: places of a row at most; None for all.
        last: cut the first tokens where there are too many, in place of the last ones.
    """
    order, length = jnp.argsort(segments == 0, axis=1, stable=True), segments.shape[1]
    if room is None or room >= length:
        return order
    start = jnp.maximum(jnp.sum(segments > 0, axis=1) - room, 0) if last else jnp.zeros(len(segments), jnp.int32)
    return jnp.take_along_axis(order, start[:, None] + jnp.arange(room), axis=1)
