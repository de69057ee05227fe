"""recjax: sequential-recommendation models in JAX, from one laptop core to a TPU pod.

    import recjax

    recjax.prepare(events, "shop", items=items)
    model = recjax.train("sasrec_ml1m", settings={"data.dataset": "shop"})
    model.recommend([["446", "810"], ["12"]], k=5)

Rooms are imported when something of them is asked for, so that `import recjax` is quick.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from recjax import train as _training

if TYPE_CHECKING:
    from recjax.config import RunConfig
    from recjax.data.dataset import Dataset
    from recjax.recommender import Recommender

__version__ = "0.1.0"

__all__ = ["__version__", "load", "prepare", "train"]


def load(run: str | Path, *, data: str | None = None, recipe: str | Path | None = None) -> "Recommender":
    """A trained run, ready to recommend.

    Args:
        run: its folder, or "pretrained", the model that comes with recjax for any catalog; "pretrained:ENCODER" is the
            same with texts read by a sentence encoder, its folder or name.
        data: name or folder of a dataset, for a catalog other than the run's.
        recipe: file of the recipe, where the run uses classes that it defines.

    Raises:
        InputError: there is no run, or no checkpoint yet.
    """
    from recjax.recommender import load as opened

    return opened(run, recipe, data)


def prepare(
    events: Any,
    name: str,
    *,
    items: Any = None,
    columns: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    replace: bool = False,
    **filters: Any,
) -> "Dataset":
    """A dataset of a table of events, kept under a name; prints what `recjax prepare` prints.

    Args:
        events: a polars or pandas frame with user, item and time, or the path of raw logs; None for a catalog alone.
        name: of the dataset, by which recipes find it.
        items: a frame of the catalog: item_id, title and any other texts.
        columns: our column names to those of the events, e.g. {"user_id": "CustomerID"}.
        out: where it is written, by default in $RECJAX_CACHE.
        replace: write over a dataset of that name that has other data or options.
        filters: k_core, min_length, duplicates, min_rating: the options of `recjax prepare`.

    Raises:
        InputError: something in the tables cannot be used, or the name is taken.
    """
    from recjax.session import prepare as prepared

    return prepared(events, name, items=items, columns=columns, out=out, replace=replace, **filters)


class _Training(ModuleType):
    """The room `recjax.train`, which called trains."""

    def __call__(
        self,
        config: "RunConfig | str | Path",
        run: str | Path | None = None,
        *,
        settings: Mapping[str, Any] | Sequence[str] = (),
    ) -> "Recommender":
        """Trains, or resumes training, in a run folder.

        Args:
            config: a `RunConfig`, or the name or path of a recipe.
            run: its folder, by default as `recjax train` has it.
            settings: changes, {"train.steps": 500} or ["train.steps=500"].

        Returns:
            The run, ready to recommend.

        Raises:
            InputError: a setting cannot be, or the folder holds another run.
        """
        from recjax.session import train as trained

        return trained(config, run, settings=settings)


train = _training
train.__class__ = _Training  # pyright: ignore[reportAttributeAccessIssue]
