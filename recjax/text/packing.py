"""Texts in rows that they share: what an encoder computes is then texts, and next to no padding.

Titles are short and of many lengths. Sorted by length and padded to a few widths, a fifth of what is computed is
padding, and more where there are few texts; rows of 64 tokens with three or four titles each have a fiftieth. Unlike
histories (`recjax.data.batches.packing`), texts are packed once, into rows of several lengths, of few texts each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from recjax.text.rows import TokenRows
from recjax.typing import Array, Float

WIDTHS = (64, 96, 128, 192, 256, 384, 512)
"""Tokens of a row; longer texts have a row of their own length. Each is one compilation."""

SHARE = 4
"""A row of w tokens has at most w / SHARE texts."""


@dataclass(frozen=True, eq=False)
class PackedTexts:
    """A batch.

    Attributes:
        rows: [b, l], texts one after another, numbered from 1 in each row.
        texts: int64 [b, l / SHARE], which text each of them is; -1 where a row has fewer.
    """

    rows: TokenRows
    texts: np.ndarray

    def put(self, vectors: np.ndarray, into: np.ndarray) -> None:
        """Writes the vectors of `pooled_texts`, [b, l / SHARE, d], to the texts' rows of an array."""
        there = self.texts >= 0
        into[self.texts[there]] = vectors[there]


def pack_texts(texts: Sequence[Sequence[int] | np.ndarray], batch_tokens: int, devices: int = 1) -> list[PackedTexts]:
    """Texts in as few rows as best fit, longest first, makes of them.

    Rows of a batch are a multiple of `devices`; the last batch of a width has a power of two times that, so that there
    are few shapes whatever the number of texts.

    >>> (batch,) = pack_texts([np.array([5, 6]), np.array([7])], batch_tokens=256)
    >>> batch.rows.segments[:, :5].tolist(), batch.texts[:, :3].tolist()
    ([[1, 1, 2, 0, 0]], [[0, 1, -1]])

    Args:
        texts: token ids of each, int32; those without any are left out.
        batch_tokens: tokens of a batch, padding included.
        devices: that share the rows of a batch.
    """
    shared: dict[int, list[list[int]]] = {}
    for width, row in _rows([len(text) for text in texts]):
        shared.setdefault(width, []).append(row)
    batches = []
    for width, rows in shared.items():
        most = max(batch_tokens // width // devices, 1) * devices
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            size = min(most, devices << (-(-len(part) // devices) - 1).bit_length())
            batches.append(_batch(texts, part, size, width))
    return batches


def _rows(lengths: Sequence[int]) -> list[tuple[int, list[int]]]:
    """(tokens, texts) of each row, best fit with the longest text first."""
    rows: list[tuple[int, list[int]]] = []
    by_space: list[list[int]] = [[] for _ in range(max((*lengths, *WIDTHS)) + 1)]
    for text in sorted(np.flatnonzero(lengths).tolist(), key=lambda text: -lengths[text]):
        length = lengths[text]
        space = next((space for space in range(length, len(by_space)) if by_space[space]), 0)
        if space:
            row = by_space[space].pop()
        else:
            space = next((width for width in WIDTHS if width >= length), length)
            row = len(rows)
            rows.append((space, []))
        width, inside = rows[row]
        inside.append(text)
        if len(inside) < width // SHARE:
            by_space[space - length].append(row)
    return rows


def _batch(
    texts: Sequence[Sequence[int] | np.ndarray], rows: Sequence[Sequence[int]], size: int, width: int
) -> PackedTexts:
    tokens, segments, positions = (np.zeros((size, width), np.int32) for _ in range(3))
    numbers = np.full((size, max(width // SHARE, 1)), -1, np.int64)
    for row, inside in enumerate(rows):
        numbers[row, : len(inside)] = inside
        start = 0
        for segment, text in enumerate(inside, 1):
            place = slice(start, start := start + len(texts[text]))
            tokens[row, place], segments[row, place] = texts[text], segment
            positions[row, place] = np.arange(len(texts[text]))
    return PackedTexts(TokenRows(tokens, segments, positions), numbers)  # pyright: ignore[reportArgumentType]


def pooled_texts(hidden: Float[Array, "b l d"], rows: TokenRows, first: bool = False) -> Float[Array, "b n d"]:
    """The mean of each text's hidden states, or the first one, float32; zeros where a row has no more texts."""
    numbers = jnp.arange(1, max(hidden.shape[1] // SHARE, 1) + 1)
    own = rows.segments[:, None] == numbers[:, None]
    if first:
        own &= (rows.positions == 0)[:, None]
    weights = own / jnp.maximum(jnp.sum(own, axis=-1, keepdims=True), 1)
    return jnp.einsum("bnl,bld->bnd", weights, hidden.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
