"""Columns of items: attributes, words, codes of any vectors, vectors from a file."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from recjax.data.features.feature import Feature, Source, State, column
from recjax.data.transitions import item_counts
from recjax.limits import COUNT, SIZE, at_least, refuse, require
from recjax.text.items import ItemText
from recjax.tokenizers.item_codes import flat_state, nested_state
from recjax.tokenizers.tokenizer import Tokenized, planned_sizes, tokenize
from recjax.typing import InputError

WORD = re.compile(r"\w+")
ENTRIES = "entries"
"""Array of a state that holds a vocabulary, as the bytes of a JSON list."""
COUNTS = "counts"
"""Array of a state that holds how often items were had, that of padding and of unknown ones first."""


def frequent_entries(counts: Counter[str], most: int) -> State:
    """The most frequent words as a state, ties in the order of the alphabet."""
    ordered = sorted(counts.items(), key=lambda x: (-x[1], x[0]))
    return saved_entries([word for word, _ in ordered[:most]])


def saved_entries(entries: Sequence[str]) -> dict[str, np.ndarray]:
    """A vocabulary as a state."""
    return {ENTRIES: np.frombuffer(json.dumps(list(entries)).encode(), np.uint8)}


def entry_numbers(state: State) -> dict[str, int]:
    """Number of each entry of a saved vocabulary, from 1."""
    entries = json.loads(np.asarray(state[ENTRIES]).tobytes())
    return {entry: number for number, entry in enumerate(entries, 1)}


@dataclass(frozen=True)
class Attribute(Feature):
    """Number of each item's value in a catalog column: int32 [rows], 0 for none and for rare values.

    Attributes:
        column: of the catalog, such as "brand".
        vocabulary: most values that have a number of their own, the most frequent ones.
    """

    column: str
    vocabulary: int = 1000

    def __post_init__(self) -> None:
        require(self, vocabulary=COUNT)

    @property
    def dtype(self) -> Any:
        return np.int32

    def shape(self) -> tuple[int, ...]:
        return ()

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        counts = Counter(value for source in sources for value in self._values(source) if value)
        if not counts:
            raise InputError(f"no item has anything in the catalog column {self.column!r}")
        return saved_entries(
            [value for value, _ in sorted(counts.items(), key=lambda x: (-x[1], x[0]))[: self.vocabulary]]
        )

    def make(self, source: Source, state: State) -> np.ndarray:
        numbers = entry_numbers(state)
        return np.array([0, *(numbers.get(value, 0) for value in self._values(source))], np.int32)

    def sizes(self, state: State) -> tuple[int, ...]:
        return (self.vocabulary + 1,)

    def _values(self, source: Source) -> list[str]:
        catalog = source.dataset.catalog
        if self.column not in catalog.columns:
            known = ", ".join(catalog.columns)
            raise InputError(f"dataset {source.dataset.name!r} has no catalog column {self.column!r}; it has: {known}")
        return ItemText("{" + self.column + "}").texts(catalog)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Words(Feature):
    """Numbers of the first words of each item's text: int32 [rows, count], 0 where there are fewer, 1 for rare words.

    Attributes:
        template: text of an item, see `recjax.text.items.ItemText`.
        count: words of an item.
        vocabulary: numbers that there are, 0 and 1 included; the most frequent words have one.
    """

    template: str = "{title}"
    count: int = 16
    vocabulary: int = 8000

    def __post_init__(self) -> None:
        require(self, count=SIZE, vocabulary=at_least(3))
        ItemText(self.template)

    @property
    def dtype(self) -> Any:
        return np.int32

    def shape(self) -> tuple[int, ...]:
        return (self.count,)

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        counts = Counter(word for source in sources for words in self._words(source) for word in words)
        if not counts:
            raise InputError(f"no item has a text of the template {self.template!r}")
        return frequent_entries(counts, self.vocabulary - 2)

    def make(self, source: Source, state: State) -> np.ndarray:
        numbers = entry_numbers(state)
        found = np.zeros((source.dataset.n_items + 1, self.count), np.int32)
        for item, words in enumerate(self._words(source), 1):
            row = [numbers.get(word, 0) + 1 for word in words[: self.count]]
            found[item, : len(row)] = row
        return found

    def sizes(self, state: State) -> tuple[int, ...]:
        return (self.vocabulary,) * self.count

    def _words(self, source: Source) -> list[list[str]]:
        texts = ItemText(self.template).texts(source.dataset.catalog)
        return [WORD.findall((text or "").lower()) for text in texts]


@dataclass(frozen=True)
class Codes(Feature):
    """Codes of each item by a tokenizer of any column of vectors: int32 [rows, slots].

    Attributes:
        tokenizer: FSQ, residual k-means, RQ-VAE or another of `recjax.tokenizers`.
        of: column of vectors; an item whose vector is zero has the tuple that its collision policy gives it.
        behaviour: column of vectors of what users do with items, zeros where that is not known, for a tokenizer with a
            collaborative loss. Only the fit reads it.
        popular: suffixes rank items of equal codes by their training events, the most popular first, and not by id.
    """

    tokenizer: Any
    of: str = "vectors"
    behaviour: str | None = None
    popular: bool = False

    def __post_init__(self) -> None:
        if self.popular and self.tokenizer.collisions != "suffix":
            refuse(self, "popular", f"false: codes have no suffix under the policy {self.tokenizer.collisions!r}")

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of,) if self.behaviour is None else (self.of, self.behaviour)

    @property
    def dtype(self) -> Any:
        return np.int32

    def shape(self) -> tuple[int, ...]:
        return (len(planned_sizes(self.tokenizer)),)

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        vectors = _joined(sources, self.of)
        behaviour = None if self.behaviour is None else _joined(sources, self.behaviour)
        found = tokenize(self.tokenizer, vectors, _known(vectors), jax.random.key(seed), behaviour=behaviour)
        sizes = np.array(found.codes.sizes, np.int32)
        counted = self._counted(sources) if self.popular else {}
        return {"sizes": sizes, **counted, **flat_state(found.state)}

    def make(self, source: Source, state: State) -> np.ndarray:
        return self.tokenized(source, state).codes.codes.astype(np.int32)

    def tokenized(self, source: Source, state: State) -> Tokenized:
        """Codes with diagnostics."""
        vectors = column(source, self.of)
        learned = {name: array for name, array in state.items() if name not in ("sizes", ENTRIES, COUNTS)}
        counts = None
        if self.popular:
            numbers = entry_numbers(state)
            rows = [numbers.get(raw, 0) for raw in source.dataset.item_ids[1:]]
            counts = np.asarray(state[COUNTS])[[0, *rows]]
        return tokenize(self.tokenizer, vectors, _known(vectors), state=nested_state(learned), counts=counts)

    def _counted(self, sources: Sequence[Source]) -> dict[str, np.ndarray]:
        """Items of the fit and their training events, of 0 for all others."""
        if len(sources) != 1:
            raise InputError(f"popularity is that of the items of one catalog, but there are {len(sources)}")
        (source,) = sources
        counts = item_counts(source.train.compact().items, source.dataset.n_items)
        return {**saved_entries(source.dataset.item_ids[1:]), COUNTS: counts}

    def sizes(self, state: State) -> tuple[int, ...]:
        return tuple(np.asarray(state["sizes"]).tolist()) if state else planned_sizes(self.tokenizer)


def _joined(sources: Sequence[Source], name: str) -> np.ndarray:
    """The rows of a column of all catalogs end to end, after one of padding."""
    parts = [column(source, name)[: source.dataset.n_items + 1] for source in sources]
    return np.concatenate([parts[0][:1], *(part[1:] for part in parts)])


def _known(vectors: np.ndarray) -> np.ndarray:
    """bool [rows], items whose vector is not zero."""
    return np.asarray(vectors.any(axis=1))


@dataclass(frozen=True)
class VectorFile(Feature):
    """Vectors from a parquet file: float32 [rows, width]; zeros for items that it does not have.

    Attributes:
        path: of a table with `item_id` and `vector`, a list of numbers.
        width: of the vectors.
    """

    path: str
    width: int

    def __post_init__(self) -> None:
        require(self, width=SIZE)

    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    def make(self, source: Source, state: State) -> np.ndarray:
        try:
            table = pl.read_parquet(Path(self.path).expanduser(), columns=["item_id", "vector"])
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(f"vectors of items: {self.path} cannot be read: {error}") from None
        lists = table["vector"].cast(pl.List(pl.Float32))
        if wrong := table.height - int((lists.list.len() == self.width).sum()):
            raise InputError(f"{self.path}: {wrong:,} of {table.height:,} vectors are not {self.width} numbers wide")
        vectors = lists.explode().to_numpy().reshape(table.height, self.width)
        if not np.isfinite(vectors).all():
            raise InputError(f"{self.path} has a vector with a number that is not finite")
        places = {raw: number for number, raw in enumerate(table["item_id"].cast(pl.String).to_list())}
        rows = np.array([places.get(raw, -1) for raw in source.dataset.item_ids[1:]], np.int64)
        if not (rows >= 0).any():
            raise InputError(f"{self.path} has a vector of none of the items of dataset {source.dataset.name!r}")
        found = np.zeros((source.dataset.n_items + 1, self.width), np.float32)
        found[1:][rows >= 0] = vectors[rows[rows >= 0]]
        return found
