"""Views made of other views: more samples a history, or more beside each sample. They compose in any order."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recjax.data.batches.histories import Histories, prefixes, sessions, shuffled, windows
from recjax.data.batches.views import Align, Batch, Placement, Queries, Relations, Samples, Shifted
from recjax.data.ranges import ranges
from recjax.limits import COUNT, refuse, require


@dataclass(frozen=True)
class Derived:
    """View derived from another one; what a subclass does not change is as there.

    Attributes:
        view: the other one.
    """

    view: Any = field(default_factory=Shifted)

    @property
    def max_length(self) -> int:
        return self.view.max_length

    @property
    def align(self) -> Align:
        return self.view.align

    @property
    def times(self) -> bool:
        return self.view.times

    @property
    def packing(self) -> bool:
        return self.view.packing

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        return self.view.open(histories, n_items, seed, relations)

    def query_lengths(self, lengths: np.ndarray) -> np.ndarray:
        return self.view.query_lengths(lengths)

    def queries(self, source: Histories, length: int, n_items: int) -> Queries:
        return self.view.queries(source, length, n_items)


@dataclass(frozen=True)
class Prefixes(Derived):
    """Every prefix of a history as a sample of its own.

    `Prefixes(Shifted(targets=1))` trains on one target a sample, with the state of its last position: what
    encoder-decoder models, contrastive terms and models with extra steps need. For a causal encoder whose positions
    count from the left, and without dropout, its inputs and targets are those of `Shifted` on all positions, at many
    times the tokens.

    Attributes:
        view: of a prefix.
        least: events of the shortest prefix, its target among them.
        longest: most events of a prefix, older ones being left out, or None for as many as the view takes.
    """

    least: int = 2
    longest: int | None = None

    def __post_init__(self) -> None:
        require(self, least=COUNT, longest=COUNT)
        if self.longest is not None and self.longest < self.least:
            refuse(self, "longest", f"at least `least`, {self.least}, or none")

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        return self.view.open(prefixes(histories, self.least, self.longest), n_items, seed, relations)


@dataclass(frozen=True)
class Windows(Derived):
    """Windows over a history as samples, so that a history longer than the view takes is used whole.

    Attributes:
        view: of a window.
        length: most events of a window, or None for what the view takes: its `max_length` and a target.
        step: events between the ends of two windows.
    """

    length: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        require(self, length=COUNT, step=COUNT)

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        length = self.max_length + 1 if self.length is None else self.length
        return self.view.open(windows(histories, length, self.step), n_items, seed, relations)


@dataclass(frozen=True)
class Shuffled(Derived):
    """Histories without order: the events of each in a random order, the same in every epoch.

    Over `Windows` a sample is a random part of a history. A query of a history that is longer than the view takes is a
    random part of it too, and not its last events; which one, its length alone decides. Time stamps move with their
    events.
    """

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        return self.view.open(shuffled(histories, seed, histories.users), n_items, seed, relations)

    def queries(self, source: Histories, length: int, n_items: int) -> Queries:
        return self.view.queries(shuffled(source, 0, source.lengths), length, n_items)


@dataclass(frozen=True)
class Baskets(Derived):
    """Baskets, or sessions, as samples: the runs of a history's events that have one time stamp."""

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        return self.view.open(sessions(histories), n_items, seed, relations)


@dataclass(frozen=True)
class Users(Derived):
    """User numbers beside the samples: `more["users"]`, int32, index into the dataset's users.

    [rows] where each sample has a row of its own (data.pack=false), else [rows, length], of each token; 0 where padded.
    """

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        samples = self.view.open(histories, n_items, seed, relations)
        return _numbered(samples, "users", samples.histories.users)


@dataclass(frozen=True)
class Numbered(Derived):
    """Numbers of the samples beside them: `more["samples"]`, int32, from 0, in the order of a sweep over the samples.

    With them a loss finds what a refresh has computed of each sample. Shapes as for `Users`.
    """

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        samples = self.view.open(histories, n_items, seed, relations)
        return _numbered(samples, "samples", np.cumsum(samples.lengths > 0, dtype=np.int32) - 1)


@dataclass(frozen=True)
class Every(Derived):
    """A loss at every few positions of a sample, counted back from its last: at the answers among questions.

    Attributes:
        view: which otherwise gives a loss to all of them.
        step: positions from one with a loss to the next.
    """

    step: int = 2

    def __post_init__(self) -> None:
        require(self, step=COUNT)

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        samples = self.view.open(histories, n_items, seed, relations)

        def fill(placement: Placement) -> Batch:
            batch, lengths = samples.fill(placement), placement.lengths
            left = np.repeat(lengths, lengths) - ranges(1, lengths)
            weights = batch.weights.copy()
            weights.reshape(-1)[ranges(placement.starts, lengths)[left % self.step > 0]] = 0.0
            return replace(batch, weights=weights)

        return replace(samples, fill=fill)


def _numbered(samples: Samples, name: str, numbers: np.ndarray) -> Samples:
    """The samples with a number of each beside it, int32 [n]."""

    def fill(placement: Placement) -> Batch:
        own = numbers[placement.samples]
        if placement.packed:
            array = np.zeros((placement.rows, placement.row_length), np.int32)
            array.reshape(-1)[ranges(placement.starts, placement.lengths)] = np.repeat(own, placement.lengths)
        else:
            array = np.zeros(placement.rows, np.int32)
            array[placement.starts // placement.row_length] = own
        return with_more(samples.fill(placement), **{name: array})

    return replace(samples, fill=fill)


def with_more(batch: Batch, **arrays: Any) -> Batch:
    """The batch with more arrays by name."""
    return replace(batch, more=batch.more | arrays)
