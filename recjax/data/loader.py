"""From histories to batches on devices: training rows by step, evaluation queries by user."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.data.dataset import Dataset, Preparation, find
from recjax.data.packing import Packing, Plan, pack
from recjax.data.ranges import ranges
from recjax.data.splits import Histories, LeaveOneOut, Split
from recjax.data.views import Batch, Placement, Shifted, View
from recjax.typing import DATA_AXIS, InputError


@dataclass(frozen=True)
class Data:
    """What to train on and how it is cut.

    Attributes:
        dataset: a name or a folder, see `recjax.data.dataset.find`.
        view: what one training sample is.
        split: which events train, validate and test.
        prepare: filters.
        rows: rows of a global batch.
        row_length: positions of a row, or None for the view's `max_length`.
    """

    dataset: str
    view: Any = field(default_factory=Shifted)
    split: Any = field(default_factory=LeaveOneOut)
    prepare: Preparation = field(default_factory=Preparation)
    rows: int = 128
    row_length: int | None = None


def open_data(data: Data) -> tuple[Dataset, Split]:
    """The dataset, found or prepared, and its split."""
    dataset = find(data.dataset, data.prepare)
    return dataset, data.split.split(dataset)


class Loader:
    """Training batches: `batch(step)` is a pure function of (histories, view, rows, row_length, seed, step).

    The packed rows of the epochs form one endless list; batch number `step` is rows `step * rows` to
    `(step + 1) * rows` of it. A batch may therefore straddle two epochs: no batch is ever short or filled up, and every
    history is used exactly once in every epoch.

    On several processes each builds only the rows its devices hold; the stream does not depend on how many there are.

    Args:
        histories: what to train on.
        view: what a sample is.
        rows: rows of a global batch; the mesh's data axis must divide it.
        row_length: positions of a row, at least `view.max_length`, or None for that.
        seed: of the shuffles and the masks.
        n_items: catalog size.

    Attributes:
        skipped: histories too short for a sample of this view.

    Raises:
        InputError: rows or row_length that cannot be, or no history long enough.
    """

    def __init__(
        self, histories: Histories, view: View, rows: int, row_length: int | None = None, seed: int = 0, *, n_items: int
    ):
        row_length = view.max_length if row_length is None else row_length
        if rows < 1:
            raise InputError(f"rows is {rows}, expected at least 1")
        if row_length < view.max_length:
            raise InputError(f"row_length is {row_length}, less than the view's max_length = {view.max_length}")
        self.histories, self.view, self.rows, self.row_length = histories, view, rows, row_length
        self.seed, self.n_items = seed, n_items
        self._tokens = view.token_lengths(histories.lengths)
        self.skipped = int((self._tokens == 0).sum())
        if self.skipped == len(histories):
            raise InputError(f"none of the {len(histories)} training histories has two events or more")
        self.packing: Packing = pack(self._tokens, row_length)
        self._plan = lru_cache(maxsize=2)(self._make_plan)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every history has been used at least once."""
        return self.steps(1)

    def steps(self, epochs: float) -> int:
        """Steps that make so many passes over the data, rounded up."""
        return max(1, int(np.ceil(round(epochs * self.packing.rows / self.rows, 6))))

    @property
    def padding(self) -> float:
        """Share of positions that hold no token; the same in every epoch."""
        return self.packing.padding

    def host_batch(self, step: int) -> Batch:
        """The rows of batch `step` that this process's devices hold, as NumPy arrays."""
        return self._fill(step, _local_rows(self._sharding(), self.rows))

    def batch(self, step: int) -> Batch:
        """Batch `step` as global arrays, rows sharded over the data axis of the current mesh."""
        return self._make(self._sharding())(step)

    def iterate(self, start: int, stop: int, *, threads: int = 2, ahead: int = 4) -> Iterator[Batch]:
        """Batches `start` to `stop - 1`, made and sent to the devices by threads while the caller computes.

        Args:
            start: first step.
            stop: step to stop before.
            threads: how many make batches.
            ahead: batches ready in advance.
        """
        return _prefetched(range(start, stop), self._make(self._sharding()), threads, ahead)

    def _make(self, sharding: NamedSharding | None):
        local = _local_rows(sharding, self.rows)
        return lambda step: _to_devices(self._fill(int(step), local), sharding, self.rows)

    def _sharding(self) -> NamedSharding | None:
        sharding = _row_sharding()
        size = 1 if sharding is None else sharding.mesh.shape[DATA_AXIS]
        if self.rows % size:
            assert sharding is not None
            shape = ", ".join(f"{axis}={n}" for axis, n in sharding.mesh.shape.items())
            below = self.rows - self.rows % size
            near = f"{below} or {below + size}" if below else f"{size}"
            raise InputError(
                f"rows = {self.rows} cannot be divided by the data axis of the mesh ({shape}; "
                f"{jax.process_count()} process(es)); rows = {near} can"
            )
        return sharding

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
        placement = Placement(members, lengths, starts, segments, of_epoch, len(local), self.row_length)
        return self.view.fill(self.histories, placement, self.n_items, self.seed)

    def _placed(self, plan: Plan, rows: np.ndarray, into: np.ndarray, epoch: int) -> tuple[np.ndarray, ...]:
        """The columns of a `Placement` for `rows` of a plan, laid into rows `into` of the block."""
        first = plan.offsets[rows]
        counts = plan.offsets[rows + 1] - first
        members = plan.members[ranges(first, counts)]
        lengths = self._tokens[members]
        before = np.cumsum(lengths) - lengths
        row_first = np.cumsum(counts) - counts
        starts = before + np.repeat(into * self.row_length - before[row_first], counts)
        return members, lengths, starts, ranges(1, counts), np.full(len(members), epoch)


def _row_sharding() -> NamedSharding | None:
    """Rows over the data axis of the current mesh; None when no mesh is set (one process only)."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        if jax.process_count() > 1:
            raise InputError(f"{jax.process_count()} processes but no mesh: set one with jax.set_mesh")
        return None
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def _local_rows(sharding: NamedSharding | None, rows: int) -> np.ndarray:
    """int64, the rows of a global batch that this process's devices hold, in order."""
    if sharding is None:
        return np.arange(rows)
    held = {part[0].indices(rows)[:2] for part in sharding.addressable_devices_indices_map((rows,)).values() if part}
    return np.concatenate([np.arange(*bounds) for bounds in sorted(held)])


def _to_devices(local: Any, sharding: NamedSharding | None, rows: int) -> Any:
    """A tree of NumPy arrays with this process's rows -> global arrays of `rows` rows."""
    if sharding is None or jax.process_count() == 1:
        return jax.device_put(local, sharding)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array, (rows, *array.shape[1:])), local
    )


def _prefetched(source, make, threads: int, ahead: int) -> Iterator[Any]:
    """`make(x)` for each x of `source`, in order, made by Grain's threads up to `ahead` in advance."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    iterator = iter(grain.MapDataset.source(source).map(make).to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
