"""Training on several catalogs at once: which dataset each step draws from."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recjax.data.batches.loader import Data, Loader, open_data, prefetched
from recjax.data.batches.shares import Weighting
from recjax.data.batches.views import Batch, Shifted
from recjax.data.dataset import Dataset
from recjax.data.prepare.preparation import Preparation
from recjax.data.splits import LeaveOneOut, Split
from recjax.limits import SIZE, refuse, require, within
from recjax.typing import InputError


@dataclass(frozen=True)
class Mixture:
    """Several datasets to train one model on; each step's batch comes from one of them.

    Attributes:
        datasets: names or folders, see `recjax.data.store.prepared.find`.
        held_out: a dataset that is not trained on and on whose validation targets the checkpoint is chosen: a held-out
            catalog says what held-out events of the training catalogs cannot, namely what carries over. None
            validates on the first dataset.
        temperature: a dataset of n events is drawn with weight n ** temperature: 1 in proportion to its size, 0 all
            alike.
        weighting: rule by which the shares change while training, in place of `temperature`: `SkillIt` or `InOrder`.
        view: what one training sample is.
        split: which events train, validate and test.
        prepare: filters.
        rows: rows of a global batch.
        row_length: positions of a row, or None for the view's `max_length`.
    """

    datasets: tuple[str, ...]
    held_out: str | None = None
    temperature: float = 0.5
    weighting: Weighting | None = None
    view: Any = field(default_factory=Shifted)
    split: Any = field(default_factory=LeaveOneOut)
    prepare: Preparation = field(default_factory=Preparation)
    rows: int = 128
    row_length: int | None = None

    def __post_init__(self) -> None:
        require(self, temperature=within(0, 1), rows=SIZE, row_length=SIZE)
        if not self.datasets:
            refuse(self, "datasets", "names of datasets")
        if len(set(self.datasets)) < len(self.datasets):
            refuse(self, "datasets", "each dataset once")
        if self.held_out in self.datasets:
            refuse(self, "held_out", "a dataset that is not among datasets, which would not hold it out")
        if self.weighting is not None:
            self.weighting.check(self.datasets)

    @property
    def dataset(self) -> str:
        """The dataset on which the run is validated and, by default, evaluated."""
        return self.held_out or self.datasets[0]

    def on(self, dataset: str) -> Data:
        """The same view and filters on one dataset."""
        return Data(dataset, self.view, self.split, self.prepare, self.rows, self.row_length)

    def ranked(self, dataset: str) -> str:
        """Note for lists of items of one of the datasets, as the catalog is not plain."""
        others = ", ".join(name for name in self.datasets if name != dataset)
        return f"the items are those of {dataset}, on which the run was validated; it was trained on {others} too"

    def open(self) -> list[tuple[Dataset, Split]]:
        """The training datasets, each with its split, in the order named."""
        return [open_data(self.on(name)) for name in self.datasets]

    def weights(self, datasets: Sequence[Dataset]) -> list[float]:
        """Frequency with which the first steps draw from each of the training datasets, up to a factor."""
        if self.weighting is not None:
            return self.weighting.weights(self.datasets, np.zeros((0, len(datasets)))).tolist()
        return [float(dataset.n_interactions) ** self.temperature for dataset in datasets]


def joint_identity(datasets: Sequence[Dataset]) -> tuple[str, str]:
    """Name and fingerprint of several datasets that are trained on as one."""
    fingerprint = hashlib.sha256(" ".join(dataset.fingerprint for dataset in datasets).encode()).hexdigest()
    return " + ".join(dataset.name for dataset in datasets), fingerprint


class MixedLoader:
    """Batches of several loaders: `batch(step)` is a pure function of (loaders, weights and their changes, step).

    Which loader a step draws from is planned as evenly as the weights allow: the j-th batch of a loader of share w
    stands at time (j + 1/2) / w, and steps take them in the order of time. After any number of steps each loader has
    given its share to within a batch, and resuming needs one integer and the changes so far.

    Args:
        loaders: one a catalog; all with rows of the same shape.
        weights: of each loader, positive.
        every: steps between changes of the weights, which batches are not made ahead of; None where there are none.
    """

    def __init__(self, loaders: Sequence[Loader], weights: Sequence[float], every: int | None = None):
        shapes = {(loader.rows, loader.row_length) for loader in loaders}
        if len(shapes) != 1 or len(weights) != len(loaders):
            raise InputError("loaders of a mixture must have rows of one shape and one weight each")
        self.loaders, self.every, self.shares = list(loaders), every, _shares(weights)
        self._before = self._order = np.zeros((0, 2), np.int64)

    def change(self, step: int, weights: Sequence[float]) -> None:
        """Draws by other weights from a step on; each loader resumes at the batch that it had come to."""
        if step:
            self.source(step - 1)
        self._before = self._order = self._order[:step]
        self.shares = _shares(weights)

    def steps(self, epochs: float) -> int:
        """Steps of so many passes, where a pass draws as many batches as all the loaders hold."""
        return max(1, int(np.ceil(epochs * sum(loader.steps(1) for loader in self.loaders))))

    def source(self, step: int) -> tuple[int, int]:
        """The loader that step `step` draws from, and the number of its batch there."""
        if step < 0:
            raise InputError(f"step is {step}, expected 0 or more")
        if step >= len(self._order):
            before, k = self._before, len(self.loaders)
            after = _interleaved(self.shares, max(2 * (step - len(before)), 1024))
            drawn = np.bincount(before[:, 0], minlength=k)
            self._order = np.concatenate([before, after + np.stack([np.zeros(len(after), int), drawn[after[:, 0]]], 1)])
        loader, number = self._order[step]
        return int(loader), int(number)

    def batch(self, step: int) -> Batch:
        """Batch `step` as global arrays."""
        loader, number = self.source(step)
        return self.loaders[loader].batch(number)

    def catalog(self, step: int) -> int:
        """Number of the catalog that batch `step` is of."""
        return self.source(step)[0]

    def members(self, step: int) -> np.ndarray:
        """Not for mixtures: their passes are over several catalogs, and no number names a sample."""
        del step
        raise InputError("a sweep over samples serves one dataset, not a mixture")

    def iterate(self, start: int, stop: int, *, threads: int = 2, ahead: int = 4) -> Iterator[Batch]:
        """Batches `start` to `stop - 1`; see `Loader.iterate`."""
        makers: list[Callable[[int], Batch]] = [loader.maker() for loader in self.loaders]

        def make(step: int) -> Batch:
            loader, number = self.source(int(step))
            return makers[loader](number)

        def pieces() -> Iterator[Batch]:
            first = start
            while first < stop:
                last = stop if self.every is None else min(stop, first - first % self.every + self.every)
                self.source(last - 1)  # planned here, so that the threads only read the plan
                yield from prefetched(range(first, last), make, threads, ahead)
                first = last

        return pieces()


def _shares(weights: Sequence[float]) -> np.ndarray:
    """float64 [k], the weights with a sum of 1."""
    shares = np.asarray(weights, np.float64)
    if not (shares > 0).all():
        raise InputError(f"weights of a mixture must be above 0, found {shares.tolist()}")
    return shares / shares.sum()


def _interleaved(shares: np.ndarray, steps: int) -> np.ndarray:
    """int64 [>= steps, 2], the first steps as (loader, number of its batch); a longer plan begins with the shorter."""
    counts = np.ceil(shares * steps).astype(np.int64) + 1
    loader = np.repeat(np.arange(len(shares)), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    time = (number + 0.5) / shares[loader]
    order = np.lexsort((loader, time))
    # Beyond the time at which the first loader runs out of planned batches the order would lack some.
    complete = int((time <= ((counts - 0.5) / shares).min()).sum())
    return np.stack([loader, number], axis=1)[order][: max(complete, 0)]
