"""Base class of all systems, and what they need to know of a catalog."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from recjax.data.batches.views import Queries
from recjax.data.items import Items
from recjax.decode.insertion import Gaps
from recjax.decode.scoring import Scoring
from recjax.nn.identity import identity_of
from recjax.typing import Array, Float, InputError, Int, Params

WeightedSums = dict[str, tuple[Array, Array]]
"""Metric name -> (sum, weight): adding pairs over batches and devices keeps means unbiased."""

Rules = list[tuple[str, tuple[Any, ...]]]
"""Ordered (path pattern, mesh axis names) pairs; the first pattern that matches lays a parameter out."""


@dataclass(frozen=True)
class ItemStats:
    """Catalog facts that a model's configuration needs before the model can be built.

    Attributes:
        items: catalog size; item ids are 1..items.
        counts: int64 [items + 1], training interactions of each item (index 0 is padding, count 0).
        columns: shape of one row of each column that the run's `Items` have.
        code_sizes: vocabulary size of each slot of the column `codes`.
        sizes: of each slot of other columns of numbers, by the column's name.
    """

    items: int
    counts: np.ndarray
    columns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    code_sizes: tuple[int, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Sweep(Protocol):
    """View of a run in `Model.refresh`: how far it is, and passes over the samples of an epoch.

    Samples are numbered as the loader's view opens them, whatever rows they are packed into: sample i is row i of the
    loader's histories.
    """

    @property
    def step(self) -> int:
        """Step that the refresh comes before, from 0."""
        ...

    @property
    def epoch(self) -> int:
        """Epoch of that step, from 0."""
        ...

    @property
    def samples(self) -> np.ndarray:
        """int64 [n], number of the sample that each row of a pass belongs to, ascending; samples too short for the
        view have no row."""
        ...

    def __call__(self, fn: Callable[[Params, Any, Items], Any]) -> Any:
        """One compiled pass of `fn(params, batch, items)`, without dropout, over the samples of the first epoch.

        `fn` gives arrays [b, l, ...], a value for each token; the pass gives, on the host, [n, ...]: the values at the
        last token of each sample. It is compiled once a run where `fn` is the same function or method each time.
        """
        ...

    def compiled(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit(fn)`, compiled once a run where `fn` is the same function or method each time."""
        ...


class Model(ABC):
    """A built system: pure functions of parameters and arrays. It reads no file and keeps no state.

    A system writes `init`, `loss` and `scoring`; all else has a default that a subclass changes where it can do more.
    Subclasses are frozen dataclasses with a field `stats`. Evaluation, training and planning know models by this class
    alone.

    Attributes:
        stats: of the catalog that it was built for.
        streams: whether users can be advanced event by event (`init_state`, `advance`, `state_scoring`). A subclass
            that changes one of `STREAMED` has to declare it again: its parent's `advance` may no longer agree.
        inserts: whether it fills gaps (`insertions`).
    """

    stats: ItemStats
    streams: ClassVar[bool] = False
    inserts: ClassVar[bool] = False

    STREAMED: ClassVar[frozenset[str]] = frozenset({"loss", "scoring", "users", "table"})
    """Methods that `advance` and `state_scoring` have to agree with."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "streams" not in vars(cls) and not cls.STREAMED.isdisjoint(vars(cls)):
            cls.streams = False

    # --- what every system writes

    @abstractmethod
    def init(self, key: Array, batch: Any, items: Items) -> Params:
        """Parameters for batches shaped like `batch`: a `Batch`, or another kind for a model with its own loader."""

    @abstractmethod
    def loss(self, params: Params, batch: Any, items: Items, key: Array | None) -> tuple[Array, WeightedSums]:
        """Weighted mean loss of a batch, and sums for logging; `sums["loss"]` is (sum, weight) of that mean.

        `key=None` switches dropout off and makes the loss deterministic.
        """

    def scoring(self, params: Params, queries: Queries, items: Items) -> Scoring:
        """Scores of all items for each query, to be listed or ranked: one forward pass, see `recjax.decode.scoring`."""
        raise InputError(f"{type(self).__name__} ranks no items")

    # --- capabilities

    @cached_property
    def identity(self) -> Hashable:
        """Equal for models that compute the same: of one class, with equal fields."""
        return identity_of(self)

    @property
    def n_items(self) -> int:
        """Catalog size."""
        return self.stats.items

    @property
    def packing(self) -> bool:
        """True if histories that share a packed row stay apart."""
        return True

    @property
    def notes(self) -> dict[str, Any]:
        """Notes for reports on how the model ranks, as JSON values by label, such as the width of a search."""
        return {}

    def row_bytes(self, batch: Any) -> int | None:
        """Bytes of the states of a batch's row between layers; None where the loss of a row looks at others.

        Where it does not, a step may take the batch in parts (`recjax.ops.parts`).
        """
        return None

    @property
    def row_tables(self) -> tuple[str, ...]:
        """Top-level parameters that training reads by rows alone, so that `recjax.train.rowwise` can update them so."""
        return ()

    @property
    def per_item(self) -> tuple[str, ...]:
        """Top-level parameters of a model of texts that belong to the items of one catalog.

        Such a model serves that catalog alone; a run that starts from one without these parameters starts them afresh.
        """
        return ()

    @property
    def item_rows(self) -> tuple[str, ...]:
        """Top-level parameters whose row i belongs to item i, row 0 to padding, and rows behind the items to tokens.

        By them a run starts from one of another catalog: rows of items that both have are taken over.
        """
        return ()

    @property
    def refresh_every(self) -> int | Literal["epoch", "start"] | None:
        """Steps between refreshes of frozen parameters, "epoch" for one before each epoch, "start" for one before the
        first step alone, None for never."""
        return None

    def refresh(self, params: Params, items: Items, sweep: "Sweep") -> Params:
        """Parameters with frozen ones changed, before the first step and whenever `refresh_every` says.

        A function of its arguments alone, so that a resumed run can repeat it. Randomness is
        `fold_in(key, sweep.step)`. It may change frozen parameters (`recjax.nn.groups.FROZEN`, and those that
        `train.freeze` names); a change of another one ends the run.

        Args:
            params: all parameters as the step before has left them.
            items: of the catalog.
            sweep: passes over the training samples, and says the step and the epoch.
        """
        del items, sweep
        return params

    def sharding_rules(self) -> Rules:
        """Layout of the parameters over the mesh; by default every device has all of them."""
        return [(".*", ())]

    def prepare(self, params: Params, items: Items) -> dict[str, Any]:
        """Arrays or pytrees of them that scoring finds in `items.prepared`, made once for all queries."""
        del params, items
        return {}

    def corrections(
        self, params: Params, queries: Queries, items: Items
    ) -> tuple[Float[Array, "q l"], Int[Array, "q l"]]:
        """The doubt in each event of histories, a logit, and the item that would belong in its place.

        The item is none that the query has; what stands beyond a history may be anything.
        """
        raise InputError(f"{type(self).__name__} does not say which events are out of place")

    def insertions(self, params: Params, queries: Queries, items: Items, places: Int[Array, "q n"]) -> Gaps:
        """Events that are missing in histories, and their places.

        Args:
            params: parameters.
            queries: the histories, as the model's view makes them.
            items: of the catalog.
            places: gaps whose items are to be scored, each by the number of events before it.
        """
        raise InputError(f"{type(self).__name__} does not fill gaps of histories")

    def steered(self, params: Params, queries: Queries, items: Items, preferences: Int[Array, "q p"]) -> Scoring:
        """`scoring` for users who state what they want.

        Args:
            params: parameters.
            queries: the users.
            items: of the catalog.
            preferences: items of whose kind the user wants something, or, negative, nothing; 0 for none.
        """
        raise InputError(f"{type(self).__name__} takes no preferences")

    def text_likelihood(
        self, params: Params, queries: Queries, targets: Int[Array, " q"], items: Items
    ) -> tuple[Float[Array, " q"], Int[Array, " q"]]:
        """Log-likelihood of items' texts behind the texts of histories, in nats, and how many tokens it is of.

        The first token of a text does not count, so that a history without events can be asked about too.

        Args:
            params: parameters.
            queries: the histories.
            targets: items whose texts are asked about.
            items: of the catalog.
        """
        raise InputError(f"{type(self).__name__} does not write texts of items")

    # --- streaming, where `streams` is true

    @property
    def learned_positions(self) -> bool:
        """True if positions come from a table, whose rows count from one end of a history."""
        return False

    @property
    def keeps_histories(self) -> bool:
        """True if the state of a user grows with the history, so that there is room for so many events."""
        return False

    def init_state(self, users: int, max_length: int) -> Any:
        """State of `users` users without events, a pytree with the user as first axis, for `advance`.

        Args:
            users: rows of the state.
            max_length: events that there is room for where the state keeps the history.
        """
        raise InputError(f"{type(self).__name__} cannot advance users event by event")

    def advance(
        self, params: Params, state: Any, items: Array, timestamps: Array | None = None
    ) -> tuple[Float[Array, "q d"], Any]:
        """User states after more events, and the new state.

        Args:
            params: parameters.
            state: of the users, one a row.
            items: int32 [q, l], ids of the events that follow, aligned to the left, 0 beyond.
            timestamps: their unix seconds, or None.
        """
        raise InputError(f"{type(self).__name__} cannot advance users event by event")

    def state_scoring(self, params: Params, states: Float[Array, "q d"], items: Items) -> Scoring:
        """`scoring` for the user states that `advance` gives."""
        raise InputError(f"{type(self).__name__} cannot advance users event by event")


def checked_loss(
    model: Model, params: Params, batch: Any, items: Items, key: Array | None
) -> tuple[Array, WeightedSums]:
    """`model.loss`, refused where it gives something else than its signature says.

    Raises:
        InputError: says what is wrong, which errors of the code that differentiates it would not.
    """
    found = model.loss(params, batch, items, key)
    name = f"loss of {type(model).__name__}"
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
        raise InputError(f'{name} gives no pair, expected (mean, {{"loss": (sum, weight)}})')
    mean, sums = found
    if np.shape(mean):
        raise InputError(f"{name} gives a mean of shape {np.shape(mean)}, expected one number")
    if "loss" not in sums:
        raise InputError(f"{name} gives sums of {', '.join(sums) or 'nothing'}, expected one called 'loss' among them")
    for entry, pair in sums.items():
        if not (isinstance(pair, tuple) and len(pair) == 2) or np.shape(pair[0]) or np.shape(pair[1]):
            raise InputError(f"{name} gives sums of which {entry!r} is not a pair of numbers, (sum, weight)")
    return found


class ModelConfig(ABC):
    """Base class of models' configurations: frozen dataclasses that say all about a model but the catalog.

    Attributes:
        ranks: whether the model ranks items. One that does not is trained by a command of its own.
        ranks_unseen: whether it ranks items without any event, by what else is known of them. Others, such as models
            of item ids, never see those: their catalog is the items with events.
        leaves_files: whether a run that is done leaves files for other runs, see `write_files`.
    """

    ranks: ClassVar[bool] = True
    ranks_unseen: ClassVar[bool] = False
    leaves_files: ClassVar[bool] = False

    @property
    def longest(self) -> int | None:
        """Events of a history that the model has positions for; None for any number."""
        return None

    @abstractmethod
    def build(self, stats: ItemStats) -> Model:
        """The model for a catalog."""

    def given(self) -> Params | None:
        """Parameters to begin with that come from files, such as a language model's weights: any part of the tree.

        Read where a run is opened for training; a run folder has them in its checkpoints.
        """
        return None

    def write_files(self, folder: Path, params: Params, learned: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Writes what other runs begin with, such as a language model's folder.

        Args:
            folder: of the run, which is done.
            params: the best ones, NumPy.
            learned: states of the run's features, by their names.
        """
        raise InputError(f"{type(self).__name__} leaves no files")
