"""Attackers as data: users injected into the training events who push some items, drawn by a seed."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from recjax.data.batches.histories import Histories
from recjax.data.dataset import Dataset
from recjax.data.splits import LeaveOneOut, Split
from recjax.data.transitions import head_items, item_counts
from recjax.limits import COUNT, SEED, above, require
from recjax.typing import InputError

Attack = Literal["random", "popular", "bandwagon"]

BAIT = 0.01
"""Share of the items, the most popular, that half of a bandwagon user's events are of."""


@dataclass(frozen=True)
class Attacked:
    """A split with an attacker's users in its training part; validation and test ask the real users alone.

    The pushed items are drawn from those with events that are not head items. An injected user has the times of a real
    one, drawn, who has twice as many events or more; each pushed item stands at a place of its own, and the other
    places are filled by the attack: "random" with any item that has events, "popular" in proportion to events,
    "bandwagon" with one of the most popular hundredth every other time, else as "random" (Mobasher et al. 2007).
    The numbers of injected users come after the dataset's; `notes` has `injected_users` and `pushed_items`, which
    `Exposure` looks at by itself.

    Attributes:
        base: the split of the real users.
        attack: what fills an injected history.
        share: injected users, as a share of the training users; at least one.
        pushed: how many items.
        seed: of all draws.
    """

    base: Any = field(default_factory=LeaveOneOut)
    attack: Attack = "random"
    share: float = 0.01
    pushed: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, share=above(0, most=1), pushed=COUNT, seed=SEED)

    def split(self, dataset: Dataset) -> Split:
        found: Split = self.base.split(dataset)
        real, random = found.train.compact(), np.random.default_rng(self.seed)
        items, times = np.asarray(real.items), np.asarray(real.timestamps)
        counts = item_counts(items, dataset.n_items)
        tail, long = np.flatnonzero((counts > 0) & ~head_items(counts)), np.flatnonzero(real.lengths >= 2 * self.pushed)
        if len(tail) < self.pushed or not len(long):
            raise InputError(
                f"an attack on {self.pushed} items of {dataset.name!r} finds {len(tail)} items to push and {len(long)} "
                f"users with {2 * self.pushed} training events to look like"
            )
        pushed = np.sort(random.choice(tail, self.pushed, replace=False))
        count = max(1, round(self.share * len(real)))
        like = replace(real, items=items, timestamps=times).take(random.choice(long, count))
        fill = self._filled(counts, len(like.items), random)
        for start, length in zip(like.starts, like.lengths, strict=True):
            fill[start + random.choice(length, self.pushed, replace=False)] = random.permutation(pushed)
        train = Histories.concatenated(
            np.concatenate([real.lengths, like.lengths]),
            np.concatenate([items, fill]),
            np.concatenate([times, like.timestamps]),
            np.concatenate([real.users, dataset.n_users + np.arange(count)]),
        )
        return replace(
            found,
            name=f"{found.name}, {count} injected users ({self.attack}, {self.pushed} pushed items, seed {self.seed})",
            train=train,
            notes=found.notes | {"injected_users": count, "pushed_items": [dataset.item_ids[item] for item in pushed]},
        )

    def _filled(self, counts: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
        """int32 [size], items that hide the pushed ones."""
        known = np.flatnonzero(counts)
        if self.attack == "popular":
            return random.choice(known, size, p=counts[known] / counts.sum()).astype(np.int32)
        fill = random.choice(known, size)
        if self.attack == "bandwagon":
            bait = np.flatnonzero(head_items(counts, BAIT))
            fill = np.where(random.random(size) < 0.5, random.choice(bait, size), fill)
        return fill.astype(np.int32)
