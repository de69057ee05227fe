"""Noise as data: training events replaced by items that the users never chose, drawn by a seed."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recjax.data.batches.hash_random import draw, threshold
from recjax.data.dataset import Dataset
from recjax.data.ranges import ranges
from recjax.data.splits import LeaveOneOut, Split
from recjax.limits import SEED, between, require
from recjax.text.items import ItemText
from recjax.typing import InputError


@dataclass(frozen=True)
class Noisy:
    """A split with a share of the training events replaced, wherever they are read; targets are as they were.

    Queries hold the same events: a test history is the noisy training history and the validation's target. What was
    replaced is what differs from the dataset, by which `Denoising` measures whether a model finds it.

    Attributes:
        base: the split of the real events, whose training histories begin where the users' do.
        share: the probability of each event.
        alike: column of the catalog; an event is then replaced by an item with the same value there, which is harder to
            find, where there is another one. None for any item that has events.
        seed: of all draws.
    """

    base: Any = field(default_factory=LeaveOneOut)
    share: float = 0.1
    alike: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, share=between(0, 1), seed=SEED)

    def split(self, dataset: Dataset) -> Split:
        places = training_places(dataset, self.base.split(dataset))
        chosen = places[draw(self.seed, places) < threshold(self.share)]
        items = np.array(dataset.items)
        items[chosen] = self._others(dataset, items[chosen], draw(self.seed + 1, chosen))
        found: Split = self.base.split(replace(dataset, items=items))
        count = int((items != dataset.items).sum())
        like = "" if self.alike is None else f" by items of the same {self.alike}"
        name = f"{found.name}, {self.share:.6g} of the training events replaced{like} (seed {self.seed})"
        return replace(found, name=name, notes=found.notes | {"replaced_events": count})

    def _others(self, dataset: Dataset, own: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """int32 [m], items with events, drawn in the place of others."""
        known = np.unique(dataset.items)
        values = np.zeros(dataset.n_items + 1, np.int64)
        if self.alike is not None:
            if self.alike not in dataset.catalog.columns:
                raise InputError(f"dataset {dataset.name!r} has no catalog column {self.alike!r}")
            texts = ItemText("{" + self.alike + "}").texts(dataset.catalog)
            values[1:] = np.unique([text or "" for text in texts], return_inverse=True)[1]
        order = known[np.argsort(values[known], kind="stable")]
        first, stop = (np.searchsorted(values[order], values[own], side) for side in ("left", "right"))
        return order[first + (keys % (stop - first).astype(np.uint64)).astype(np.int64)].astype(np.int32)


def training_places(dataset: Dataset, split: Split) -> np.ndarray:
    """int64 [m], which events of a dataset the training histories of a split are, history after history.

    Raises:
        InputError: the split has training histories that are not the beginnings of the users'.
    """
    train = split.train
    users = np.asarray(train.users)
    if (users >= dataset.n_users).any() or (train.lengths > np.diff(dataset.offsets)[users]).any():
        raise InputError(f"split {split.name}: its training histories are not the beginnings of the users' histories")
    places = ranges(dataset.offsets[users], train.lengths)
    if not np.array_equal(dataset.timestamps[places], train.timestamps[ranges(train.starts, train.lengths)]):
        raise InputError(f"split {split.name}: its training histories are not the beginnings of the users' histories")
    return places
