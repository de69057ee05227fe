"""Vectors of what users do with items, for what compares behaviour with texts; nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recjax.data.features.feature import Feature, Source, State
from recjax.data.transitions import user_items
from recjax.late import sparse
from recjax.limits import SIZE, require


@dataclass(frozen=True)
class Behaviour(Feature):
    """Vectors of length 1 of the items, float32 [rows, width], near each other where the same users had the items.

    They are the rows of the leading right singular vectors of D_u^-1/2 A D_i^-1/2, times the singular values, where A
    is 1 for a user and an item that the user had, and D are its sums: what graph convolutions over users and items
    converge to (PureSVD, Cremonesi et al., RecSys 2010, with degrees divided out). An item without an event is zeros.

    Attributes:
        width: of the vectors; a log of lower rank fills them up with zeros.
    """

    width: int = 64

    def __post_init__(self) -> None:
        require(self, width=SIZE)

    @property
    def counts_events(self) -> bool:
        return True

    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    def make(self, source: Source, state: State) -> np.ndarray:
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
