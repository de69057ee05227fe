"""Base class of item features, and the catalog that they are made of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np

from recjax.data.dataset import Dataset
from recjax.data.items import Items, Relation
from recjax.data.splits import Histories
from recjax.typing import InputError

T = TypeVar("T")

State = Mapping[str, np.ndarray]
"""Arrays that a feature learned, saved with the run; empty where it learns nothing."""


@dataclass(frozen=True, eq=False)
class Source:
    """Catalog that a feature is made of.

    Attributes:
        dataset: the catalog's.
        train: its training histories: relations count these events and no others.
        items: on the host, with the columns and relations of the features before this one.
        counted: counts of the training events by name, shared by the features of one catalog.
    """

    dataset: Dataset
    train: Histories
    items: Items
    counted: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, count: Callable[[], T]) -> T:
        """Counts that several features are made of, made by the first of them."""
        if name not in self.counted:
            self.counted[name] = count()
        return self.counted[name]


class Feature(ABC):
    """One column or relation of `Items`, under the name that the recipe gives it.

    Subclasses are frozen dataclasses: `RunConfig.items` is `{"brand": Attribute("brand"), ...}`, in the order in which
    they are made. A feature is fitted once, on the catalogs that the run trains on; what it learned is saved in the
    run's folder and applied to every catalog, also to one that the run has never seen. What it makes is cached by
    content.
    """

    version: ClassVar[int] = 1
    """Raised where `make` gives other values than before, so that nothing cached by an older recjax is read."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of earlier features that it is made of."""
        return ()

    @property
    def counts_events(self) -> bool:
        """True if it depends on the training events."""
        return False

    def fingerprint(self) -> str:
        """Identity of what it is made of besides catalog, events and its own settings, such as an encoder's weights."""
        return ""

    def fit(self, sources: Sequence[Source], seed: int) -> State:
        """Arrays to save with the run, learned on the training catalogs."""
        del sources, seed
        return {}

    @abstractmethod
    def make(self, source: Source, state: State) -> np.ndarray | Relation:
        """Array [items + 1, ...] or relation of a catalog; row 0 is padding."""

    @abstractmethod
    def shape(self) -> tuple[int, ...] | int:
        """Shape of a row of the column, or links of an item in the relation: for plans, which have no catalog.

        Raises:
            InputError: the feature's settings do not say.
        """

    def sizes(self, state: State) -> tuple[int, ...]:
        """Vocabulary size of each slot of a column of codes; empty for other features. Without a state, for plans."""
        del state
        return ()

    @property
    def dtype(self) -> Any:
        """Type of the column's numbers."""
        return np.float32


def column(source: Source, name: str) -> np.ndarray:
    """A column made by an earlier feature, on the host; InputError where there is none."""
    if name not in source.items.columns:
        known = ", ".join(source.items.columns) or "none"
        raise InputError(f"a feature is made of the column {name!r}, but the features before it are: {known}")
    return np.asarray(source.items.columns[name])
