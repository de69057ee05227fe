"""Alterations of item sequences that keep their meaning: crop, mask, reorder (Xie et al., CL4SRec, 2022), substitute.

Each takes the tokens of several samples one after another and gives them altered: the places they come from, the items,
and the new lengths. All draws are functions of a key of each sample.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recjax.data.batches.hash_random import draw, threshold
from recjax.data.batches.views import Relations
from recjax.data.ranges import exclusive_sum, ranges
from recjax.limits import between, require
from recjax.typing import InputError

Altered = tuple[np.ndarray, np.ndarray, np.ndarray]
"""int64 [s], place of each token among those given; int32 [s], its item; int64 [k], new lengths, at least 1."""


class Alteration(Protocol):
    """One way to alter samples."""

    def check(self, n_items: int, relations: Relations) -> None:
        """Raises InputError where a relation of items that it needs is missing."""
        ...

    def __call__(self, items: np.ndarray, lengths: np.ndarray, keys: np.ndarray, relations: Relations) -> Altered:
        """The samples altered.

        Args:
            items: int32 [t], of all samples one after another.
            lengths: int64 [k], tokens of each sample, at least 1.
            keys: uint64 [k], random.
            relations: of items.
        """
        ...


@dataclass(frozen=True)
class _Share:
    """Alteration of a share of each sample.

    Attributes:
        share: of the tokens, rounded down.
    """

    share: float

    def __post_init__(self) -> None:
        require(self, share=between(0, 1))

    def check(self, n_items: int, relations: Relations) -> None:
        pass

    def _run(self, lengths: np.ndarray, keys: np.ndarray, least: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """int64 [k] each: the first token and the length of a random run of the share in each sample."""
        size = np.maximum((self.share * lengths).astype(np.int64), least)
        within = draw(0, keys) % (lengths - size + 1).astype(np.uint64)
        return exclusive_sum(lengths)[:-1] + within.astype(np.int64), size


@dataclass(frozen=True)
class Crop(_Share):
    """A random run of the sample alone, of one token or more."""

    share: float = 0.6

    def __call__(self, items: np.ndarray, lengths: np.ndarray, keys: np.ndarray, relations: Relations) -> Altered:
        first, size = self._run(lengths, keys, least=1)
        places = ranges(first, size)
        return places, items[places], size


@dataclass(frozen=True)
class Mask(_Share):
    """Item 0, the padding item, in random places; they stay part of the sample."""

    share: float = 0.3

    def __call__(self, items: np.ndarray, lengths: np.ndarray, keys: np.ndarray, relations: Relations) -> Altered:
        order = _shuffled(np.arange(len(items)), lengths, keys)
        masked = order[ranges(exclusive_sum(lengths)[:-1], (self.share * lengths).astype(np.int64))]
        items = items.copy()
        items[masked] = 0
        return np.arange(len(items)), items, lengths


@dataclass(frozen=True)
class Reorder(_Share):
    """A random run of the sample in random order; times stay where they are."""

    share: float = 0.6

    def __call__(self, items: np.ndarray, lengths: np.ndarray, keys: np.ndarray, relations: Relations) -> Altered:
        first, size = self._run(lengths, keys)
        run = ranges(first, size)
        items = items.copy()
        items[run] = items[_shuffled(run, size, keys)]
        return np.arange(len(items)), items, lengths


@dataclass(frozen=True)
class Substitute(_Share):
    """Each item replaced, with the probability `share`, by a random one of those related to it.

    Attributes:
        share: the probability.
        relation: name of the relation of items; an item related to none stays.
    """

    share: float = 0.2
    relation: str = "neighbours"

    def check(self, n_items: int, relations: Relations) -> None:
        if self.relation not in relations:
            known = ", ".join(relations) or "none"
            raise InputError(f"Substitute draws from the relation {self.relation!r} of items; there are: {known}")
        shape = relations[self.relation].shape
        if len(shape) != 2 or shape[0] != n_items + 1:
            raise InputError(f"the relation {self.relation!r} has shape {shape}, expected ({n_items + 1}, k)")

    def __call__(self, items: np.ndarray, lengths: np.ndarray, keys: np.ndarray, relations: Relations) -> Altered:
        of_token = _of_tokens(lengths, keys)
        related = relations[self.relation][items]
        count = (related > 0).sum(axis=1)
        chosen = (draw(0, of_token) < threshold(self.share)) & (count > 0)
        column = draw(1, of_token) % np.maximum(count, 1).astype(np.uint64)
        found = np.take_along_axis(related, column.astype(np.int64)[:, None], axis=1)[:, 0]
        return np.arange(len(items)), np.where(chosen, found, items).astype(np.int32), lengths


def _of_tokens(lengths: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """uint64 [t]: a key of each token, of its sample's key and its place."""
    return draw(2, np.repeat(keys, lengths), ranges(0, lengths))


def _shuffled(places: np.ndarray, lengths: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The places of each sample, which lie one after another, in random order."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return places[np.lexsort((_of_tokens(lengths, keys), owner))]
