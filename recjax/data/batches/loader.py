"""From histories to batches on devices: training rows by step, evaluation queries by user."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Generic, Literal, TypeVar

import jax
import numpy as np

from recjax.data.batches.packing import Packing, Plan, alone, pack
from recjax.data.batches.views import Batch, Placement, Queries, Relations, Samples, Shifted, View
from recjax.data.dataset import Dataset
from recjax.data.prepare.preparation import Preparation
from recjax.data.ranges import exclusive_sum, ranges
from recjax.data.splits import Examples, Histories, LeaveOneOut, Split, few_shot, unsplit
from recjax.data.store.prepared import find
from recjax.limits import SIZE, above, require
from recjax.parallel.sharding import batch_sharding, data_size, local_rows, row_sharding, to_devices
from recjax.typing import InputError


@dataclass(frozen=True)
class Data:
    """Training data: dataset, preparation, split, view and packing.

    Attributes:
        dataset: a name or a folder, see `recjax.data.store.prepared.find`.
        view: what one training sample is.
        split: which events train, validate and test.
        prepare: filters.
        rows: rows of a global batch.
        row_length: positions of a row, or None for the view's `max_length`.
        user_share: share of the training users to learn from (few-shot); validation and test still ask all users.
        pack: put several samples into a row; False gives each a row of its own, for views that need one and for mixers
            that cannot keep the samples of a row apart.
        resident: keep every event in the memory of every process. False leaves them in the shards of a dataset that is
            prepared: a process reads the records of its own rows, and final evaluations, which count the whole log,
            are slow.
    """

    dataset: str
    view: Any = field(default_factory=Shifted)
    split: Any = field(default_factory=LeaveOneOut)
    prepare: Preparation = field(default_factory=Preparation)
    rows: int = 128
    row_length: int | None = None
    user_share: float = 1.0
    pack: bool = True
    resident: bool = True

    def __post_init__(self) -> None:
        require(self, rows=SIZE, row_length=SIZE, user_share=above(0, most=1))

    def on(self, dataset: str) -> "Data":
        """The same view and filters on another dataset."""
        return replace(self, dataset=dataset)


def open_data(data: Data) -> tuple[Dataset, Split]:
    """The dataset, found or prepared, and its split."""
    dataset = find(data.dataset, data.prepare, data.resident)
    return dataset, _cut(data, dataset)


def open_for_ranking(data: Data) -> tuple[Dataset, Split]:
    """The dataset, and a split of it even where none of its users has the events for targets."""
    dataset = find(data.dataset, data.prepare, data.resident)
    return dataset, split_for_ranking(data, dataset)


def split_for_ranking(data: Data, dataset: Dataset) -> Split:
    """The split of a dataset at hand, see `open_for_ranking`."""
    try:
        return _cut(data, dataset)
    except InputError as error:
        return unsplit(dataset, str(error))


def _cut(data: Data, dataset: Dataset) -> Split:
    if not dataset.n_interactions:
        raise InputError(
            f"dataset {dataset.name!r} is a catalog without events: a model of texts that was trained elsewhere can "
            "rank it, but nothing can be trained or evaluated on it"
        )
    split = data.split.split(dataset)
    return split if data.user_share == 1.0 else few_shot(split, data.user_share)


Rows = TypeVar("Rows")


class RowLoader(ABC, Generic[Rows]):
    """Batches cut from an endless list of rows: `batch(step)` is rows `step * rows` to `(step + 1) * rows` of it.

    A batch may straddle two epochs: none is ever short or filled up. On several processes each builds only the rows its
    devices hold; the list does not depend on how many there are. A subclass says what the rows are (`_fill`).

    Args:
        rows: rows of a global batch; the mesh's data axis must divide it.
        epoch_rows: rows of one pass over the data.
    """

    def __init__(self, rows: int, epoch_rows: int):
        self.rows, self.epoch_rows = rows, epoch_rows

    def steps(self, epochs: float) -> int:
        """Steps that make so many passes over the data, rounded up."""
        return max(1, int(np.ceil(round(epochs * self.epoch_rows / self.rows, 6))))

    def host_batch(self, step: int) -> Rows:
        """The rows of batch `step` that this process's devices hold, as NumPy arrays."""
        return self._fill(step, local_rows(batch_sharding(self.rows), self.rows))

    def catalog(self, step: int) -> int:
        """Number of the catalog that batch `step` is of: there is one."""
        del step
        return 0

    def batch(self, step: int) -> Rows:
        """Batch `step` as global arrays, rows sharded over the data axis of the current mesh."""
        return self.maker()(step)

    def iterate(self, start: int, stop: int, *, threads: int = 2, ahead: int = 4) -> Iterator[Rows]:
        """Batches `start` to `stop - 1`, made and sent to the devices by threads while the caller computes.

        Args:
            start: first step.
            stop: step to stop before.
            threads: how many make batches.
            ahead: batches ready in advance.
        """
        return prefetched(range(start, stop), self.maker(), threads, ahead)

    def maker(self) -> Callable[[int], Rows]:
        """Step -> batch on the mesh current at the call, for threads, which know no mesh."""
        sharding = batch_sharding(self.rows)
        local = local_rows(sharding, self.rows)
        return lambda step: to_devices(self._fill(int(step), local), sharding, self.rows)

    @abstractmethod
    def _fill(self, step: int, local: np.ndarray) -> Rows:
        """Rows `local`, int64 numbers from 0 to `rows - 1`, of batch `step`, as NumPy arrays."""


class Loader(RowLoader[Batch]):
    """Training batches: `batch(step)` is a pure function of (histories, view, rows, row_length, seed, step).

    The view opens samples, any number of them a history. The list is of the packed rows of the epochs, and every sample
    is used exactly once in every epoch.

    Args:
        histories: what to train on.
        view: what a sample is.
        rows: rows of a global batch; the mesh's data axis must divide it.
        row_length: positions of a row, at least `view.max_length`, or None for that.
        seed: of the shuffles and the masks.
        n_items: catalog size.
        packed: whether several samples may share a row.
        relations: of items, for views that draw from them.

    Attributes:
        skipped: histories too short for a sample of this view.

    Raises:
        InputError: rows or row_length that cannot be, a view that cannot be packed, or no history long enough.
    """

    def __init__(
        self,
        histories: Histories,
        view: View,
        rows: int,
        row_length: int | None,
        seed: int,
        n_items: int,
        packed: bool = True,
        relations: Relations | None = None,
    ):
        row_length = view.max_length if row_length is None else row_length
        if rows < 1:
            raise InputError(f"rows is {rows}, expected at least 1")
        if row_length < view.max_length:
            raise InputError(f"row_length is {row_length}, less than the view's max_length = {view.max_length}")
        if packed and not view.packing:
            raise InputError(f"the view {type(view).__name__} needs a row for each sample: set data.pack=false")
        self.row_length, self.packed = row_length, packed
        self.seed, self.n_items = seed, n_items
        self.samples: Samples = view.open(histories, n_items, seed, relations)
        self.skipped = int((self.samples.lengths == 0).sum())
        if self.skipped == len(self.samples.lengths):
            raise InputError(f"none of the {len(histories)} training histories has two events or more")
        self.packing: Packing = (pack if packed else alone)(self.samples.lengths, row_length)
        super().__init__(rows, self.packing.rows)
        self._plan = lru_cache(maxsize=2)(self._make_plan)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every sample has been used at least once."""
        return self.steps(1)

    @property
    def padding(self) -> float:
        """Share of positions that hold no token; the same in every epoch."""
        return self.packing.padding

    def members(self, step: int) -> np.ndarray:
        """int64 [rows, most], samples of the first epoch in batch `step`: of each row in the order of its segments.

        Number i is row i of `samples.histories`; -1 stands where a row has no more, and in rows of a later epoch. The
        batches of steps 0 to `steps(1) - 1` have each sample that is not skipped once.
        """
        plan, rows = self._plan(0), np.arange(step * self.rows, (step + 1) * self.rows)
        rows = rows[rows < self.packing.rows]
        first = plan.offsets[rows]
        counts = plan.offsets[rows + 1] - first
        found = np.full((self.rows, self._most), -1, np.int64)
        found[np.repeat(np.arange(len(rows)), counts), ranges(0, counts)] = plan.members[ranges(first, counts)]
        return found

    @cached_property
    def _most(self) -> int:
        """Most samples in a row of the first epoch."""
        return int(np.diff(self._plan(0).offsets).max())

    def _make_plan(self, epoch: int) -> Plan:
        return self.packing.plan(self.seed, epoch)

    def _fill(self, step: int, local: np.ndarray) -> Batch:
        if step < 0:
            raise InputError(f"step is {step}, expected 0 or more")
        epochs, rows = np.divmod(step * self.rows + local, self.packing.rows)
        parts = []
        for epoch in np.unique(epochs):
            here = np.flatnonzero(epochs == epoch)
            parts.append(self._placed(self._plan(int(epoch)), rows[here], here, int(epoch)))
        members, lengths, starts, segments, of_epoch = (np.concatenate(column) for column in zip(*parts, strict=True))
        placement = Placement(members, lengths, starts, segments, of_epoch, len(local), self.row_length, self.packed)
        return self.samples.fill(placement)

    def _placed(self, plan: Plan, rows: np.ndarray, into: np.ndarray, epoch: int) -> tuple[np.ndarray, ...]:
        """The columns of a `Placement` for `rows` of a plan, laid into rows `into` of the block."""
        first = plan.offsets[rows]
        counts = plan.offsets[rows + 1] - first
        members = plan.members[ranges(first, counts)]
        lengths = self.samples.lengths[members]
        before = np.cumsum(lengths) - lengths
        row_first = np.cumsum(counts) - counts
        starts = before + np.repeat(into * self.row_length - before[row_first], counts)
        return members, lengths, starts, ranges(1, counts), np.full(len(members), epoch)


def query_batches(
    examples: Examples | Histories,
    view: View,
    n_items: int,
    users_per_batch: int = 256,
    *,
    mask_seen: Literal["history", "none"] = "history",
    shapes: int = 5,
    threads: int = 2,
    ahead: int = 4,
) -> Iterator[tuple[Queries, np.ndarray]]:
    """Every history once, as batches of queries of similar length, in few shapes.

    Histories are sorted from long to short and cut into batches of `users_per_batch`; only the last batch is filled
    up. The widths of `items` and `seen` are those of the longest history of a group of consecutive batches, rounded up;
    the groups are the at most `shapes` ones that need the fewest positions.

    Args:
        examples: histories, with or without targets.
        view: how a history becomes a query.
        n_items: catalog size.
        users_per_batch: queries of a global batch; rounded up to a multiple of the mesh's data axis, and no more than
            there are.
        mask_seen: "history" puts the whole history (repeats included) into `seen`, "none" nothing (one column of 0).
        shapes: most distinct shapes, i.e. compilations of whatever consumes the batches.
        threads: how many make batches.
        ahead: batches ready in advance.

    Returns:
        Pairs: queries as global arrays, rows sharded over the data axis of the mesh current at the call; and, on every
        process, int32 [users_per_batch], the row of `examples` that each query asks for, -1 where it only fills up
        (dataset user: `histories.users[row]`).

    Raises:
        InputError: a history is empty, or an argument is out of range.
    """
    histories = examples.histories if isinstance(examples, Examples) else examples
    lengths = histories.lengths
    if len(histories) and not lengths.min():
        empty = np.flatnonzero(lengths == 0)
        raise InputError(f"{len(empty)} histories are empty, first of user number {histories.users[empty[0]]}")
    if users_per_batch < 1 or shapes < 1 or mask_seen not in ("history", "none"):
        raise InputError(
            f"users_per_batch={users_per_batch}, shapes={shapes}, mask_seen={mask_seen!r}: expected numbers from 1 "
            "and 'history' or 'none'"
        )
    sharding = row_sharding()
    size = -(-min(users_per_batch, len(histories)) // data_size(sharding)) * data_size(sharding)
    local = local_rows(sharding, size) if size else np.zeros(0, np.int64)
    order = np.argsort(-lengths, kind="stable").astype(np.int32)
    longest = lengths[order[::size]] if size else lengths
    widths = _widths(view, longest, mask_seen == "history", shapes)

    def make(number: int) -> tuple[Queries, np.ndarray]:
        rows = order[number * size : (number + 1) * size]
        here = local[local < len(rows)]
        batch = _queries(histories.take(rows[here]), view, n_items, *widths[number], len(local))
        return to_devices(batch, sharding, size), np.pad(rows, (0, size - len(rows)), constant_values=-1)

    if len(longest) < 2:  # nothing to make ahead, so Grain need not be imported
        return map(make, range(len(longest)))
    return prefetched(range(len(longest)), make, threads, ahead)


def _queries(histories: Histories, view: View, n_items: int, width: int, seen_width: int, rows: int) -> Queries:
    """Queries of `rows` rows, the last ones empty where there are fewer histories."""
    queries = view.queries(histories, width, n_items)
    seen = np.zeros((rows, max(seen_width, 1)), np.int32)
    if seen_width:
        seen.reshape(-1)[ranges(np.arange(len(histories)) * seen_width, histories.lengths)] = histories.items
    fill = rows - len(histories)
    filled = jax.tree.map(lambda array: np.pad(array, [(0, fill)] + [(0, 0)] * (array.ndim - 1)), queries)
    return replace(filled, seen=seen)


SEEN_COST = 0.125
"""Cost of a column of `seen` beside a position of a query, which goes through the encoder."""


def _widths(view: View, longest: np.ndarray, with_seen: bool, shapes: int) -> list[tuple[int, int]]:
    """(positions, seen columns) of each batch, given its longest history, from long to short.

    Batches of a shape are consecutive, so the cheapest choice is a shortest path: dynamic programming over how many of
    the distinct needs the first groups cover.
    """
    if not len(longest):
        return []
    positions = np.minimum(-(-view.query_lengths(longest) // 8) * 8, view.max_length)
    # Half powers of two keep the candidates few, and equal for parts of a dataset that differ by an event a user.
    power = 2 ** np.ceil(np.log2(np.maximum(longest, 16))).astype(np.int64)
    seen = np.where(longest <= power * 3 // 4, power * 3 // 4, power) * with_seen
    needs, counts = np.unique(np.stack([-positions, -seen], axis=1), axis=0, return_counts=True)
    needs, before = -needs, exclusive_sum(counts)
    first, stop = np.arange(len(needs))[:, None], np.arange(len(needs) + 1)[None]
    cost = (needs @ np.array([1.0, SEEN_COST]))[:, None] * (before[stop] - before[first])
    cost = np.where(first < stop, cost, np.inf)  # of one shape for needs first .. stop - 1
    best, choices = np.where(stop[0] == 0, 0.0, np.inf), []
    for _ in range(min(shapes, len(needs))):
        total = best[:-1, None] + cost
        choices.append(total.argmin(axis=0))
        best = total.min(axis=0)
    bounds = [len(needs)]
    for choice in reversed(choices):
        bounds.append(int(choice[bounds[-1]]))
    firsts = np.array(bounds[:0:-1])
    group = np.searchsorted(firsts, np.arange(len(needs)), side="right") - 1
    return [(int(width), int(columns)) for width, columns in np.repeat(needs[firsts[group]], counts, axis=0)]


def prefetched(source: Any, make: Callable[[Any], Any], threads: int, ahead: int) -> Iterator[Any]:
    """`make(x)` for each x of `source`, in order, made by Grain's threads up to `ahead` in advance."""
    import grain  # late: queries of one batch need none of it

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    iterator = iter(grain.MapDataset.source(source).map(make).to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
