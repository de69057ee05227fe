"""Libraries that are imported at their first use: they take a quarter of a second, and most commands need none of them.

Use them as if they were imported, `from recjax.late import optax, sparse`, with `from __future__ import annotations` in
the same file, since an annotation that is evaluated is a use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optax as optax
    from scipy import sparse as sparse
    from scipy import special as special
    from scipy.linalg import lapack as lapack
else:

    class _Late:
        """A module that is imported when an attribute of it is read."""

        def __init__(self, name: str):
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(import_module(self._name), name)

    optax, sparse, special, lapack = map(_Late, ("optax", "scipy.sparse", "scipy.special", "scipy.linalg.lapack"))
