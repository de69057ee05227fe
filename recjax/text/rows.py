"""Rows of tokens as a decoder reads them: padded or packed, with vectors in place of tokens, in any order of sight."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
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
