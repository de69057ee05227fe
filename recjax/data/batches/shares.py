"""Rules by which the shares of a mixture change while a model trains on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recjax.limits import COUNT, at_least, between, refuse, require

HELPS = ">"
"""Between the names of two datasets of which the first helps the second."""


@dataclass(frozen=True)
class SkillIt:
    """Skill-it: more of the datasets from which most is still to be learned, there or elsewhere.

    Chen et al., Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models, NeurIPS 2023.
    Every `every` steps each dataset's held-out loss is measured, and the shares become

        p proportional to exp(eta * A * (sum of the last `window` vectors of losses)),

    from equal weights each time and not from the shares before (algorithm 1 of the paper). A[i, j] says how much
    training on dataset i helps dataset j; until the first measurement all losses count as 1.

    Attributes:
        edges: which datasets help which others, as `films>series`. Empty: each helps itself alone.
        strength: entries of A for edges; those of the diagonal are 1.
        eta: how far the shares follow the losses; 0 keeps all alike.
        window: measurements that are summed.
        every: steps between two.
        relative: divide a dataset's losses by its first one, so that catalogs of many items do not lead by their size.
        users: most histories whose held-out event is measured, of each dataset.
    """

    edges: tuple[str, ...] = ()
    strength: float = 0.5
    eta: float = 0.5
    window: int = 3
    every: int = 100
    relative: bool = False
    users: int = 512

    def __post_init__(self) -> None:
        require(self, strength=at_least(0), eta=at_least(0), window=COUNT, every=COUNT, users=COUNT)

    def check(self, names: Sequence[str]) -> None:
        """Raises InputError where an edge is not between two of these datasets."""
        for edge in self.edges:
            one, arrow, other = edge.partition(HELPS)
            if not arrow or one == other or not {one, other} <= set(names):
                refuse(self, "edges", f"`NAME>NAME` of two of the datasets {', '.join(names)}")

    def weights(self, names: Sequence[str], losses: np.ndarray) -> np.ndarray:
        """float64 [k], shares after some measurements; their sum is 1.

        >>> chain = SkillIt(("adding>multiplying",), eta=1.0)
        >>> chain.weights(["adding", "multiplying"], np.zeros((0, 2))).round(3).tolist()
        [0.622, 0.378]
        >>> chain.weights(["adding", "multiplying"], np.array([[0.1, 2.0]])).round(3).tolist()
        [0.289, 0.711]

        Args:
            names: of the datasets.
            losses: float [measurements, k], oldest first.
        """
        graph, place = np.eye(len(names)), {name: number for number, name in enumerate(names)}
        for edge in self.edges:
            one, _, other = edge.partition(HELPS)
            graph[place[one], place[other]] = self.strength
        if self.relative and len(losses):
            losses = losses / np.maximum(losses[0], 1e-9)
        recent = losses[-self.window :].sum(axis=0) if len(losses) else np.ones(len(names))
        exponent = self.eta * graph @ recent
        raised = np.maximum(np.exp(exponent - exponent.max()), 1e-9)  # none is given up for ever
        return raised / raised.sum()


@dataclass(frozen=True)
class InOrder:
    """A curriculum: the datasets in turn, most of the batches being of the one whose turn it is, at last of the last.

    `recjax.text.catalog_order` advises an order.

    Attributes:
        order: names of all datasets; empty for the order of the mixture.
        share: of the dataset whose turn it is; the others have the rest in equal parts.
        every: steps of a turn.
        users: most histories whose held-out event is measured for the log, of each dataset.
    """

    order: tuple[str, ...] = ()
    share: float = 0.9
    every: int = 100
    users: int = 512

    def __post_init__(self) -> None:
        require(self, share=between(0, 1), every=COUNT, users=COUNT)

    def check(self, names: Sequence[str]) -> None:
        """Raises InputError where the order is not one of these datasets."""
        if self.order and sorted(self.order) != sorted(names):
            refuse(self, "order", f"the datasets in some order: {', '.join(names)}")

    def weights(self, names: Sequence[str], losses: np.ndarray) -> np.ndarray:
        """float64 [k], shares after as many turns as there are measurements; their sum is 1."""
        turn = (self.order or tuple(names))[min(len(losses), len(names) - 1)]
        rest = (1.0 - self.share) / max(len(names) - 1, 1)
        return np.array([self.share if name == turn else rest for name in names])


Weighting = SkillIt | InOrder
