"""Model and catalog of a run in the form that a server needs: the only file of this room that knows run folders."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from jax.sharding import Mesh

from recjax.config import load
from recjax.data.batches.views import View
from recjax.data.items import Items
from recjax.data.transitions import item_counts
from recjax.models.model import Model
from recjax.serve.catalog import Catalog
from recjax.train.folder.run_folder import CONFIG
from recjax.train.run import Run, load_alone
from recjax.typing import Params


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


def of_run(run: Run) -> Served:
    """The served form of a run that has been read."""
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
    )


def open_run(folder: Path, recipe: ModuleType | None = None) -> tuple[Served, tuple[str, ...]]:
    """A run folder on as few devices as hold its tables, and notes on checkpoints that were passed over.

    The folder is enough: its dataset need not be here. One query is too little work to spread over devices, so the data
    axis is one device; a model axis that the run was trained with stays.

    Raises:
        InputError: no run or no checkpoint.
    """
    run = load_alone(folder, recipe=recipe, mesh=load(folder / CONFIG, recipe).mesh.of_one_query())
    return of_run(run), run.notes
