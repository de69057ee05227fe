"""Texts of item codes and words, as a language model reads and writes them: items, their texts, and marks between."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from recjax.models.parts.flat_codes import START, FlatCodes
from recjax.text.rows import without_gaps
from recjax.typing import Array, Bool, Int

MARKS = ("think", "want", "name", "end")
"""Tokens beside codes and words: before evidence, before what is wanted, before an item's text, and behind a text."""


class Part(NamedTuple):
    """Part of each row's text.

    Attributes:
        tokens: anything where there is none.
        there: where there is one.
    """

    tokens: Int[Array, "b m"]
    there: Bool[Array, "b m"]


@dataclass(frozen=True)
class CodeText:
    """Numbering of tokens: those of the codes, which begin with `START`, then `MARKS`, then a tokenizer's words.

    Attributes:
        codes: numbering of the codes.
        words: tokens of the tokenizer.
    """

    codes: FlatCodes
    words: int

    @property
    def own(self) -> int:
        """Tokens that are no words."""
        return self.codes.vocabulary + len(MARKS)

    @property
    def slots(self) -> int:
        """Codes of an item."""
        return len(self.codes.sizes)

    def number(self, mark: str) -> int:
        """Token of one of `MARKS`."""
        return self.codes.vocabulary + MARKS.index(mark)

    def mark(self, mark: str, rows: int) -> Part:
        """One mark in each row."""
        tokens = jnp.full((rows, 1), self.number(mark), jnp.int32)
        return Part(tokens, jnp.ones_like(tokens, bool))

    def items(self, codes: Int[Array, "b n slots"], there: Bool[Array, "b n"]) -> Part:
        """`START` and the codes of each item, one after another; m = n x (slots + 1)."""
        tokens = self.codes.tokens(codes)
        tokens = jnp.concatenate([jnp.full_like(tokens[..., :1], START), tokens], axis=-1)
        both = jnp.broadcast_to(there[..., None], tokens.shape)
        return Part(tokens.reshape(len(tokens), -1), both.reshape(len(tokens), -1))

    def texts(self, entries: Int[Array, "b n t"], there: Bool[Array, "b n"]) -> Part:
        """The words of each text, entries of a `recjax.data.features.tokens` column, and an end; m = n x (t + 1)."""
        end = jnp.full_like(entries[..., :1], self.number("end"))
        tokens = jnp.concatenate([self.own + entries - 1, end], axis=-1)
        held = jnp.concatenate([entries > 0, jnp.ones_like(end, bool)], axis=-1) & there[..., None]
        return Part(tokens.reshape(len(tokens), -1), held.reshape(len(tokens), -1))


def together(*parts: Part) -> Part:
    """Parts one after another."""
    return Part(*(jnp.concatenate(each, axis=1) for each in zip(*parts, strict=True)))


def compact(part: Part) -> Part:
    """The same tokens in the same order without holes, from the left."""
    order = without_gaps(part.there, None)
    return Part(*(jnp.take_along_axis(each, order, axis=1) for each in part))


def places(part: Part) -> Int[Array, "b m"]:
    """Number of each token among those that are there."""
    return jnp.cumsum(part.there, axis=1) - 1


def text_goals(entries: Int[Array, "b t"], end: int) -> tuple[Int[Array, "b k"], Bool[Array, "b k"]]:
    """Tokens that follow the one before a text and each of its words, k = t + 1, and where there is such a one.

    Args:
        entries: words from the left, 0 where there are fewer.
        end: number of what follows the last one.
    """
    lengths = jnp.sum(entries > 0, axis=1, keepdims=True)
    number = jnp.arange(entries.shape[1] + 1)
    shown = jnp.pad(entries, [(0, 0), (0, 1)]) - 1
    return jnp.where(number < lengths, shown, end), number <= lengths
