"""Vectors of what users do with items, for what compares behaviour with texts; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recjax.data.features.columns import entry_numbers, saved_entries
from recjax.data.features.feature import Feature, Source, State
from recjax.data.transitions import user_items
from recjax.late import sparse
from recjax.limits import SIZE, require
from recjax.typing import InputError

VECTORS = "vectors"
"""Array of the state that holds them."""


@dataclass(frozen=True)
class Behaviour(Feature):
    """Vectors of length 1 of the items, float32 [rows, width], near each other where the same users had the items.

    They are the rows of the leading right singular vectors of D_u^-1/2 A D_i^-1/2, times the singular values, where A
    is 1 for a user and an item that the user had, and D are its sums: what graph convolutions over users and items
    converge to (PureSVD, Cremonesi et al., RecSys 2010, with degrees divided out).

    Their coordinates mean something to the run that they were fitted for alone, so they are kept with it: items that
    had no event then, also those of another catalog, are zeros.

    Attributes:
        width: of the vectors; a log of lower rank fills them up with zeros.
    """

    width: int = 64

    def __post_init__(self) -> None:
        require(self, width=SIZE)

    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        if len(sources) != 1:
            raise InputError(
                f"vectors of behaviour are made of the events of one catalog, but there are {len(sources)}"
            )
        (source,) = sources
        ids = source.dataset.item_ids[1:]
        return {**saved_entries(ids), VECTORS: self._vectors(source)[1:]}

    def make(self, source: Source, state: State) -> np.ndarray:
        numbers, kept = entry_numbers(state), np.asarray(state[VECTORS])
        rows = [numbers.get(raw, 0) for raw in source.dataset.item_ids[1:]]
        return np.concatenate([np.zeros((1, self.width), np.float32), kept])[[0, *rows]]

    def _vectors(self, source: Source) -> np.ndarray:
        events = user_items(source.train, source.dataset.n_items)
        by_user, by_item = (np.maximum(events.sum(axis=axis), 1.0) ** -0.5 for axis in (1, 0))
        scaled = sparse.csr_array(sparse.diags_array(by_user) @ events @ sparse.diags_array(by_item))
        smaller = min(len(source.train), source.dataset.n_items + 1)
        rank, start = min(self.width, smaller - 1), np.random.default_rng(0).normal(size=smaller)
        _, values, directions = sparse.linalg.svds(scaled, rank, v0=start)
        order = np.argsort(-values)
        vectors = np.zeros((source.dataset.n_items + 1, self.width), np.float32)
        vectors[:, :rank] = directions[order].T * values[order]
        vectors[events.sum(axis=0) == 0] = 0.0
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1.0)
