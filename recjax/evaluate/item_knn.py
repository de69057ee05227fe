"""Item-based nearest neighbours: who had this item had that one too, as shrunk cosines (Deshpande & Karypis 2004).

Neighbourhood and shrinkage are the defaults of the evaluation framework of Ferrari Dacrema, Cremonesi & Jannach (2019),
in which this baseline beat most of the neural recommenders it was compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recjax.data.splits import Histories
from recjax.data.text_neighbours import nearest
from recjax.data.transitions import user_items
from recjax.late import sparse

NEIGHBOURS = 50
SHRINKAGE = 100.0


@dataclass(frozen=True, eq=False)
class ItemNeighbours:
    """Items that the same users had.

    Attributes:
        similarity: float64 [v, v] sparse, column b: how near the nearest items of b are to it.
        n_items: size of the catalog.
    """

    similarity: sparse.csr_array
    n_items: int

    @classmethod
    def fit(
        cls, train: Histories, n_items: int, *, neighbours: int = NEIGHBOURS, shrinkage: float = SHRINKAGE
    ) -> ItemNeighbours:
        """Similarities c_ab / (sqrt(c_a c_b) + shrinkage), c counting users, of the nearest items of each.

        Args:
            train: training histories; an item counts once a user.
            n_items: size of the catalog.
            neighbours: of each item; the others have similarity 0.
            shrinkage: makes similarities that few users vouch for small.
        """
        users = user_items(train, n_items)
        items = sparse.csr_array(users.T)
        length = np.sqrt(items.sum(axis=1))

        def similarities(rows: np.ndarray) -> sparse.csr_array:
            together = sparse.csr_array(items[rows] @ users)
            row = np.repeat(rows, np.diff(together.indptr))
            together.data = together.data / (length[row] * length[together.indices] + shrinkage)
            return together

        found = nearest(similarities, np.arange(n_items + 1), n_items + 1, neighbours)
        return cls(sparse.csr_array(found.T), n_items)

    def scores(self, histories: Histories) -> np.ndarray:
        """float64 [n, v]: sum of the similarities of an item to the items of the history that are its neighbours."""
        return sparse.csr_array(user_items(histories, self.n_items) @ self.similarity).toarray()
