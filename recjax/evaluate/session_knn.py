"""Session-based nearest neighbours with positions, V-SKNN (Ludewig & Jannach 2018), a user's events being the session.

Similarity to another user's training events: the weights of the items they share, 1 for the last item of the history
falling linearly to 1/length for the first, divided by the number of its items. Each neighbour adds its similarity,
divided by how many events ago the latest shared item was, to all its items. Constants are the published defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recjax.data.splits import Histories
from recjax.data.transitions import ages, best_of_rows, place_in, user_items
from recjax.late import sparse

NEIGHBOURS = 100
SAMPLE = 1000
"""Most recent users with a shared item among whom neighbours are looked for."""


@dataclass(frozen=True, eq=False)
class SessionNeighbours:
    """Users who had what this one had, lately.

    Attributes:
        sessions: float64 [users, v] sparse, 1 where a user had an item; most recent user first.
        users: int32 [users], which ones; nobody is their own neighbour.
        n_items: size of the catalog.
        neighbours: of a history.
        sample: see `SAMPLE`.
    """

    sessions: sparse.csr_array
    users: np.ndarray
    n_items: int
    neighbours: int = NEIGHBOURS
    sample: int = SAMPLE

    @classmethod
    def fit(
        cls, train: Histories, n_items: int, *, neighbours: int = NEIGHBOURS, sample: int = SAMPLE
    ) -> SessionNeighbours:
        """Keeps the training histories, ordered by their last event; of equal times the later user is first."""
        rows = np.flatnonzero(train.lengths)
        latest = train.timestamps[train.stops[rows] - 1]
        rows = rows[np.argsort(latest, kind="stable")[::-1]]
        return cls(sparse.csr_array(user_items(train, n_items)[rows]), train.users[rows], n_items, neighbours, sample)

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 [n, v]: sum over the neighbours that had an item; 0 where none had."""
        shape = (len(histories), self.n_items + 1)
        row, age = ages(histories)
        distinct = user_items(histories, self.n_items)
        latest = np.full(shape, np.inf)  # age of each item of a history
        latest[row, histories.items] = age  # of repeats the last assignment stays
        places = np.repeat(np.arange(shape[0]), np.diff(distinct.indptr)), distinct.indices
        # Whole numbers, so that equal similarities are equal in bits.
        weights = sparse.csr_array((histories.lengths[places[0]] - latest[places], places), shape=shape)
        row, near, similarity = self._nearest(sparse.csr_array(weights @ self.sessions.T), histories.users)
        similarity /= (histories.lengths * np.diff(distinct.indptr))[row]
        sessions = sparse.csr_array(self.sessions[near])
        shared = latest[np.repeat(row, np.diff(sessions.indptr)), sessions.indices]
        steps = 1.0 + np.minimum.reduceat(shared, sessions.indptr[:-1]) if len(near) else np.zeros(0)
        votes = sparse.csr_array((similarity / steps, (row, np.arange(len(near)))), shape=(len(histories), len(near)))
        return sparse.csr_array(votes @ sessions).toarray()

    def _nearest(self, similar: sparse.csr_array, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, session, similarity) of the neighbours of each row: of the latest, the most similar, then the later."""
        similar.sort_indices()
        row = np.repeat(np.arange(len(own)), np.diff(similar.indptr))
        others = (similar.data > 0) & (self.users[similar.indices] != own[row])
        row, near, value = row[others], similar.indices[others], similar.data[others]
        recent = place_in(row) < self.sample
        row, near, value = row[recent], near[recent], value[recent]
        best = best_of_rows(row, near, value, self.neighbours)
        return row[best], near[best], value[best]
