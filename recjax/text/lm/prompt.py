"""Prompts as templates, whose slots are filled with texts, with vectors, or with sets whose order cannot matter."""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from tokenizers import Tokenizer

from recjax.ops.attention.sets import Tree, set_layout
from recjax.text.folder import refused
from recjax.text.rows import TokenRows
from recjax.typing import InputError, shorten


@dataclass(frozen=True)
class Vectors:
    """So many of the row's vectors, which are given in the order in which the template's values name them.

    Attributes:
        count: vectors.
    """

    count: int = 1


@dataclass(frozen=True)
class Parts:
    """A set of values: the prompt's meaning cannot depend on their order.

    Masks and positions see to that up to rounding, since sums are taken in another order. With `canonical` the parts
    are sorted by their tokens, so that any order gives the same arrays, to the bit; parts that differ by their vectors
    alone stay as they are.

    Attributes:
        values: texts, vectors, sequences of them, or sets.
        canonical: see above.
    """

    values: Sequence["Value"]
    canonical: bool = False


Value: TypeAlias = "str | Vectors | Parts | Sequence[Value]"


@dataclass(frozen=True)
class Prompt:
    """A template such as `"She had {history}. Which comes next: {options}?"`.

    Attributes:
        template: text with a `{name}` for each slot.

    Raises:
        InputError: a slot is not a plain name.
    """

    template: str

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> list[tuple[str, str | None]]:
        """(text before, slot) of each slot, and the text behind the last with None."""
        try:
            found = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise InputError(f"the prompt {shorten(repr(self.template))} does not read: {error}") from None
        for _, slot, spec, conversion in found:
            if slot is not None and (not slot.isidentifier() or spec or conversion):
                raise InputError(f"the prompt {shorten(repr(self.template))}: expected {{name}}, found {{{slot}...}}")
        return [(before, slot) for before, slot, _, _ in found]

    def rows(self, tokenizer: Tokenizer, filled: Sequence[Mapping[str, Value]], length: int | None = None) -> TokenRows:
        """A prompt a row, padded to the right.

        A text is cut into tokens together with the text around its slot; vectors and sets are bounds of a text.

        Args:
            tokenizer: of the language model; what it puts before a text by itself comes first.
            filled: for each row, a value for each slot.
            length: tokens of the rows; None for the longest prompt.

        Raises:
            InputError: a slot without a value, a value without a slot, a text that holds a special token, or a prompt
                without any token or with more than `length`.
        """
        begin = [tokenizer.encode("").ids]
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        made = [_flat(begin + _Writer(tokenizer).sequence(self._values(row, special))) for row in filled]
        longest = max((len(tokens) for tokens, _ in made), default=0)
        if any(not tokens for tokens, _ in made):
            raise InputError(f"the prompt {shorten(repr(self.template))} is empty: a row has no token")
        if length is not None and longest > length:
            raise InputError(f"a prompt has {longest} tokens, expected at most {length}")
        return _rows(made, longest if length is None else length)

    def _values(self, values: Mapping[str, Value], special: Sequence[str]) -> list[Value]:
        """The template's texts and the values of its slots, in order."""
        names = {slot for _, slot in self.parts() if slot is not None}
        if names != values.keys():
            raise InputError(
                f"the prompt {shorten(repr(self.template))} has the slots {', '.join(sorted(names)) or 'none'}, but "
                f"values are of {', '.join(sorted(values)) or 'none'}"
            )
        found: list[Value] = []
        for before, slot in self.parts():
            found.append(before)
            if slot is not None:
                _check(values[slot], slot, special)
                found.append(values[slot])
        return found


def _check(value: Value, slot: str, special: Sequence[str]) -> None:
    """Raises InputError where a text would be read as more than a text."""
    if isinstance(value, str):
        if found := next((token for token in special if token in value), None):
            raise InputError(f"the value of {slot} holds the special token {found!r}: {shorten(repr(value))}")
        return
    if not isinstance(value, Vectors):
        for entry in value.values if isinstance(value, Parts) else value:
            _check(entry, slot, special)


@dataclass
class _Writer:
    """A sequence of lists of tokens and tuples of such sequences; texts that touch are cut into tokens as one.

    Vector n is the token -1 - n.
    """

    tokenizer: Tokenizer
    vectors: int = 0

    def sequence(self, values: Sequence[Value]) -> list:
        found: list = []
        text = ""
        for value in [*_one_by_one(values), None]:
            if isinstance(value, str):
                text += value
                continue
            if text:
                with refused("the language model's tokenizer cannot read a text"):
                    found.append(self.tokenizer.encode(text, add_special_tokens=False).ids)
                text = ""
            if isinstance(value, Vectors):
                found.append([-1 - self.vectors - number for number in range(value.count)])
                self.vectors += value.count
            elif isinstance(value, Parts):
                parts = [self.sequence([part]) for part in value.values]
                found.append(tuple(sorted(parts, key=_key) if value.canonical else parts))
        return found


def _one_by_one(values: Sequence[Value]) -> Iterator[str | Vectors | Parts]:
    for value in values:
        if isinstance(value, str | Vectors | Parts):
            yield value
        else:
            yield from _one_by_one(value)


def _key(tree: list) -> list[int]:
    """The tokens of a part, vectors all alike."""
    return [max(token, -1) for token in _flat(tree)[0]]


def _flat(tree: list) -> tuple[list[int], Tree]:
    """The tokens of a tree in order, and the tree of their numbers."""
    tokens: list[int] = []
    lengths: list = []
    for part in tree:
        if isinstance(part, tuple):
            entries = [_flat(entry) for entry in part]
            lengths.append(tuple(lengths for _, lengths in entries))
            tokens += [token for own, _ in entries for token in own]
        else:
            lengths.append(len(part))
            tokens += part
    return tokens, lengths


def _rows(made: Sequence[tuple[list[int], Tree]], length: int) -> TokenRows:
    shape = (len(made), length)
    tokens, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    positions, slots = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    allowed = np.zeros((*shape, length), bool)
    allowed |= np.eye(length, dtype=bool)  # padding sees itself, so that it stays finite
    plain = True
    for row, (ids, lengths) in enumerate(made):
        count, held = len(ids), np.array(ids, np.int32)
        tokens[row, :count], segments[row, :count] = np.maximum(held, 0), 1
        slots[row, :count] = np.maximum(-1 - held, -1)
        places, seen = set_layout(lengths)
        positions[row, :count], allowed[row, :count, :count] = places, seen
        plain &= bool((places == np.arange(count)).all() and (seen == np.tri(count)).all())
    vectors = slots if (slots >= 0).any() else None
    sight = (None, vectors, None) if plain else (positions, vectors, allowed)
    return TokenRows(tokens, segments, *sight)  # pyright: ignore[reportArgumentType]
