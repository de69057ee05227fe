"""Items as sentences of keys and values: the column that models read which know an item by its attributes alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recjax.data.features.columns import WORD, entry_numbers, frequent_entries
from recjax.data.features.feature import Feature, Source, State
from recjax.limits import SIZE, at_least, refuse, require
from recjax.text.items import ItemText
from recjax.typing import InputError

RARE, KEYS = 1, 16
"""Number of words that have none of their own; most attributes."""


@dataclass(frozen=True)
class Sentence(Feature):
    """Attributes of each item one after another, key and words: int32 [rows, count], 0 behind the end.

    Keys are -1, -2, ... in their order; words are numbered from 2, the most frequent ones, in one vocabulary of all
    attributes, and 1 is for rare ones. An attribute that an item lacks is left out.

    Attributes:
        attributes: catalog columns, such as "title" and "categories".
        words: most words of each attribute.
        count: numbers of an item, of which the first are used.
        vocabulary: numbers of words, 0 and 1 included.
    """

    attributes: tuple[str, ...] = ("title", "categories")
    words: tuple[int, ...] = (10, 6)
    count: int = 16
    vocabulary: int = 8000

    def __post_init__(self) -> None:
        require(self, words=SIZE, count=SIZE, vocabulary=at_least(3))
        if not 1 <= len(self.attributes) <= KEYS:
            refuse(self, "attributes", f"one to {KEYS}")
        if len(self.attributes) != len(self.words):
            refuse(self, "words", f"a number for each of the attributes {', '.join(self.attributes)}")

    @property
    def dtype(self) -> Any:
        return np.int32

    def shape(self) -> tuple[int, ...]:
        return (self.count,)

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        counts = Counter(word for source in sources for item in self._items(source) for words in item for word in words)
        if not counts:
            raise InputError(f"no item has anything in the catalog columns {', '.join(self.attributes)}")
        return frequent_entries(counts, self.vocabulary - 2)

    def make(self, source: Source, state: State) -> np.ndarray:
        numbers = entry_numbers(state)
        found = np.zeros((source.dataset.n_items + 1, self.count), np.int32)
        for item, attributes in enumerate(self._items(source), 1):
            row: list[int] = []
            for key, words in enumerate(attributes, 1):
                row += [-key, *(numbers.get(word, 0) + RARE for word in words)] if words else []
            found[item, : len(row)] = row[: self.count]
        return found

    def sizes(self, state: State) -> tuple[int, ...]:
        return (self.vocabulary,) * self.count

    def _items(self, source: Source) -> list[tuple[list[str], ...]]:
        """Words of each attribute of each item."""
        catalog = source.dataset.catalog
        if missing := [name for name in self.attributes if name not in catalog.columns]:
            known = ", ".join(catalog.columns)
            raise InputError(f"dataset {source.dataset.name!r} has no catalog column {missing[0]!r}; it has: {known}")
        columns = []
        for name, most in zip(self.attributes, self.words, strict=True):
            texts = ItemText("{" + name + "}").texts(catalog)
            columns.append([WORD.findall((text or "").lower())[:most] for text in texts])
        return list(zip(*columns, strict=True))
