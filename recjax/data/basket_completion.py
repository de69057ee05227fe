"""Baskets as sets of which one item is missing: what completes outfits and finds complements."""

from dataclasses import dataclass

import numpy as np

from recjax.data.batches.hash_random import draw
from recjax.data.batches.histories import Histories, sessions
from recjax.data.dataset import Dataset
from recjax.data.importers.timestamps import PLACES
from recjax.data.splits import Examples, Split, nonempty
from recjax.limits import LENGTH, SEED, between, refuse, require
from recjax.typing import InputError


@dataclass(frozen=True)
class BasketCompletion:
    """Each basket as a history of its own; of a later one an item, drawn, is left out and asked for by the others.

    A basket is a run of a user's events with one time stamp, each of its items once. Those of another size train
    nothing and ask nothing. Of the others in order of time the last share tests, the one before validates.

    Attributes:
        least: items of the smallest basket.
        most: items of the largest basket.
        validation: share of the baskets.
        test: share of the baskets.
        seed: of the items left out.
    """

    least: int = 3
    most: int = 16
    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, least=LENGTH, most=LENGTH, validation=between(0, 1), test=between(0, 1), seed=SEED)
        if self.most < self.least:
            refuse(self, "most", f"at least `least`, {self.least}")
        if self.validation + self.test >= 1:
            refuse(self, "test", f"a share that leaves baskets for training beside validation = {self.validation}")

    def split(self, dataset: Dataset) -> Split:
        if dataset.time_unit == PLACES:
            raise InputError(f"dataset {dataset.name!r} has no times, which baskets are made of")
        every = self._baskets(dataset)
        sizes = every.lengths
        used = np.flatnonzero((sizes >= self.least) & (sizes <= self.most))
        used = used[np.argsort(every.timestamps[every.starts[used]], kind="stable")]
        first = len(used) - int((self.validation + self.test) * len(used))
        second = len(used) - int(self.test * len(used))
        parts = np.split(used, [first, second])
        return nonempty(
            Split(
                name=f"basket completion ({self.least} to {self.most} items, validation {self.validation:g}, test "
                f"{self.test:g}, seed {self.seed})",
                train=every.take(np.sort(parts[0])),
                validation=self._asked(every.take(parts[1]), parts[1]),
                test=self._asked(every.take(parts[2]), parts[2]),
                notes={"baskets_of_other_sizes": len(every) - len(used)},
            ),
            f"it needs baskets (runs of one time stamp) of {self.least} to {self.most} items",
        )

    def _baskets(self, dataset: Dataset) -> Histories:
        """All baskets, each item once."""
        items, times = np.asarray(dataset.items), np.asarray(dataset.timestamps)
        everyone = np.arange(dataset.n_users)
        runs = sessions(Histories.concatenated(np.diff(dataset.offsets), items, times, everyone))
        basket = np.repeat(np.arange(len(runs)), runs.lengths)
        first = np.sort(np.unique(basket * (dataset.n_items + 1) + items, return_index=True)[1])
        sizes = np.bincount(basket[first], minlength=len(runs))
        return Histories.concatenated(sizes, items[first], times[first], runs.users)

    def _asked(self, baskets: Histories, numbers: np.ndarray) -> Examples:
        """The baskets without an item each, which is the target."""
        sizes = baskets.lengths
        place = baskets.starts + (draw(self.seed, numbers) % sizes.astype(np.uint64)).astype(np.int64)
        left = np.delete(np.arange(len(baskets.items)), place)
        given = Histories.concatenated(sizes - 1, baskets.items[left], baskets.timestamps[left], baskets.users)
        return Examples(given, baskets.items[place], baskets.timestamps[place])
