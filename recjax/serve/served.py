"""Model and catalog of a run in the form that a server needs: the only file of this room that knows runs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax.sharding import Mesh

from recjax.data.batches.views import View
from recjax.data.event_counts import Linked
from recjax.data.features.counting import LINKED, Counting
from recjax.data.items import Items
from recjax.data.transitions import item_counts
from recjax.models.model import Model
from recjax.serve.catalog import Catalog
from recjax.train.run import Run
from recjax.typing import InputError, Params


@dataclass(frozen=True, eq=False)
class Served:
    """A trained model and its catalog, ready to rank.

    Attributes:
        name: of the run.
        step: of the checkpoint.
        dataset: name of the dataset.
        fingerprint: of the dataset.
        model: what ranks.
        params: its parameters, on `mesh`.
        items: of the catalog, on the devices.
        view: how a history becomes a query.
        mask_seen: whether items of the history may be recommended again.
        catalog: raw ids and titles.
        mesh: to be current where the model is used.
        counting: counts behind the items' features, to which events that are sent are added; or None.
    """

    name: str
    step: int
    dataset: str
    fingerprint: str
    model: Model
    params: Params
    items: Items
    view: View
    mask_seen: Literal["history", "none"]
    catalog: Catalog
    mesh: Mesh
    counting: Counting | None = None


def of_run(run: Run, *, count_events: bool = False) -> Served:
    """The served form of a run that has been read.

    Args:
        run: with or without its dataset.
        count_events: events that are sent count for everybody's lists; such a server uses up the run's items.

    Raises:
        InputError: events cannot count, the model ranks by no counts, or their log is not here.
    """
    counts = run.popularity if run.popularity is not None else item_counts(run.dataset.items, run.dataset.n_items)
    titles = [title or "" for title in run.dataset.catalog["title"].to_list()]
    return Served(
        name=run.config.name,
        step=run.step,
        dataset=run.dataset.name,
        fingerprint=run.dataset.fingerprint,
        model=run.model,
        params=run.params,
        items=run.items,
        view=run.config.data.view,
        mask_seen=run.config.evaluators[0].mask_seen,
        catalog=Catalog(run.dataset.item_ids[1:], titles, np.asarray(counts)[1:]),
        mesh=run.mesh,
        counting=_counting(run) if count_events else None,
    )


def _counting(run: Run) -> Counting:
    """The counts behind the features of a run's items."""
    items = run.items
    if not {*LINKED, "text"} <= set(items.relations) or "totals" not in items.columns:
        raise InputError(
            f"--count-events: {type(run.config.model).__name__} ranks by no counts of events; `pretrained` does"
        )
    if run.events is None:
        raise InputError("--count-events needs the log that is counted: say which with --data NAME")
    widths: dict[Linked, int] = {name: items.relation(name).ids.shape[1] for name in LINKED}
    count = run.dataset.n_items
    text = np.asarray(items.relation("text").ids)[: count + 1]
    return Counting(run.split.train, count, text, widths)
