"""recjax: sequential-recommendation models in JAX, from one laptop core to a TPU pod.

    import recjax

    model = recjax.load("runs/sasrec_ml1m")
    model.recommend([["446", "810"], ["12"]], k=5)

Rooms are imported when something of them is asked for, so that `import recjax` is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recjax.recommender import Recommender

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def load(run: str | Path, *, recipe: str | Path | None = None) -> "Recommender":
    """A trained run, ready to recommend.

    Args:
        run: its folder.
        recipe: file of the recipe, where the run uses classes that it defines.

    Raises:
        InputError: there is no run, or no checkpoint yet.
    """
    from recjax.recommender import load as opened

    return opened(run, recipe)
