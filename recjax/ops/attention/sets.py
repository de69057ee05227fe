"""Sight and positions of texts that hold sets: parts whose order cannot matter (set-based prompting, 2024).

What stands before a set is seen by all its parts. Each part begins at the same position, sees what stands before the
set and itself, and no other part. What follows the set begins after its longest part, and sees all of it.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from recjax.typing import Bool, Int

Tree: TypeAlias = "int | Sequence[Tree]"
"""So many tokens; a list: one after another; a tuple: a set of parts. Parts may hold sets."""


def set_layout(tree: Tree) -> tuple[Int[np.ndarray, " l"], Bool[np.ndarray, "l l"]]:
    """Position of each token, and which tokens it sees; tokens are in the order in which they stand in the tree.

    >>> positions, allowed = set_layout([1, (2, 1), 1])
    >>> positions
    array([0, 1, 2, 1, 3], dtype=int32)
    >>> allowed.astype(int)
    array([[1, 0, 0, 0, 0],
           [1, 1, 0, 0, 0],
           [1, 1, 1, 0, 0],
           [1, 0, 0, 1, 0],
           [1, 1, 1, 1, 1]])

    Args:
        tree: lengths of the texts between and in sets.
    """
    positions: list[int] = []
    seen: list[list[int]] = []
    _place(tree, 0, [], positions, seen)
    allowed = np.zeros((len(seen), len(seen)), bool)
    for token, others in enumerate(seen):
        allowed[token, others] = True
    return np.array(positions, np.int32), allowed


def _place(tree: Tree, start: int, before: list[int], positions: list[int], seen: list[list[int]]) -> int:
    """Puts a tree behind the tokens `before`; the position after its longest path."""
    if isinstance(tree, int):
        before = list(before)
        for place in range(start, start + tree):
            before.append(len(seen))
            seen.append(list(before))
            positions.append(place)
        return start + tree
    first = len(seen)
    if isinstance(tree, tuple):
        return max((_place(part, start, before, positions, seen) for part in tree), default=start)
    for part in tree:
        start = _place(part, start, [*before, *range(first, len(seen))], positions, seen)
    return start
