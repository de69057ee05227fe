"""Shares of a mixture by held-out losses: measured between steps, saved with every checkpoint.

A change comes before the step that it is due for and depends on nothing but the parameters there and the measurements
before. Those stand in the progress of the run, so a run that resumes anywhere draws the batches of the unbroken one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.data.batches.histories import Histories
from recjax.data.batches.loader import Loader
from recjax.data.batches.mixture import MixedLoader
from recjax.data.batches.views import Batch, View
from recjax.data.items import Items
from recjax.data.splits import Examples
from recjax.models.model import Model
from recjax.train.folder.progress import Progress
from recjax.typing import InputError, Params


@dataclass(frozen=True, eq=False)
class Shares:
    """A rule at work: held-out losses of each dataset of a mixture to the shares that its loader draws by.

    Attributes:
        rule: of `recjax.data.batches.shares`.
        names: of the datasets.
        loader: of the mixture.
        measure: parameters -> float64 [k], the held-out loss of each dataset.
    """

    rule: Any
    names: tuple[str, ...]
    loader: MixedLoader
    measure: Callable[[Params], np.ndarray]

    @property
    def every(self) -> int:
        """Steps between two changes."""
        return self.rule.every

    def resume(self, progress: Progress) -> None:
        """Draws as before the run was interrupted."""
        for change in progress.shares:
            self.loader.change(change["step"], change["weights"])

    def update(self, params: Params, step: int, progress: Progress) -> dict[str, float]:
        """Measures, changes the shares from this step on and adds both to the progress; gives them by name, to log."""
        losses = self.measure(params)
        past = [change["losses"] for change in progress.shares]
        weights = self.rule.weights(self.names, np.array([*past, losses.tolist()]))
        self.loader.change(step, weights.tolist())
        progress.shares.append({"step": step, "losses": losses.tolist(), "weights": weights.tolist()})
        shares = {f"mixture/share/{name}": float(weight) for name, weight in zip(self.names, weights, strict=True)}
        return shares | {f"mixture/loss/{name}": float(loss) for name, loss in zip(self.names, losses, strict=True)}


def held_out_loader(examples: Examples, like: Loader, view: View, relations: Any = None) -> Loader:
    """Batches of histories with their held-out target, which alone has a loss.

    Args:
        examples: of one target each.
        like: training loader of the dataset, whose rows these have.
        view: of the training, a `Shifted` view or one made of it.
        relations: of items, for views that draw from them.
    """
    if examples.sets is not None:
        raise InputError("a mixture's shares follow losses of one held-out target a user: choose a split with one")
    histories, ends = examples.histories.compact(), examples.histories.compact().stops
    whole = Histories.concatenated(
        histories.lengths + 1,
        np.insert(np.asarray(histories.items), ends, examples.targets),
        np.insert(np.asarray(histories.timestamps), ends, examples.times),
        histories.users,
    )
    return Loader(whole, _last_alone(view), like.rows, like.row_length, like.seed, like.n_items, relations=relations)


def _last_alone(view: Any) -> Any:
    """The view with a loss at the last event of a sample alone."""
    names = {field.name for field in fields(view)}
    if "targets" in names:
        return replace(view, targets=1)
    if "view" in names:
        return replace(view, view=_last_alone(view.view))
    raise InputError(
        "data.weighting follows losses of the next item, so data.view has to be a Shifted view, "
        f"not {type(view).__name__}"
    )


def loss_of_each(model: Model, loaders: Sequence[Loader], items: Sequence[Items]) -> Callable[[Params], np.ndarray]:
    """A function of parameters that gives the mean loss, without dropout, over the batches of each loader.

    They are full, so the last one begins another pass and has a few samples again.
    """
    mesh = jax.sharding.get_mesh()

    def sums(params: Params, batch: Batch, items: Items) -> Any:
        return model.loss(params, batch, items, None)[1]["loss"]

    run = jax.jit(sums, out_shardings=None if mesh.empty else NamedSharding(mesh, PartitionSpec()))

    def measure(params: Params) -> np.ndarray:
        means = []
        for loader, catalog in zip(loaders, items, strict=True):
            found = [run(params, batch, catalog) for batch in loader.iterate(0, loader.steps(1))]
            total, weight = np.array(jax.device_get(found), np.float64).sum(axis=0).tolist()
            means.append(total / max(weight, 1e-9))
        return np.array(means)

    return measure
