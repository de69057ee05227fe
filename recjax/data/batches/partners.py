"""Partners of samples: a second sequence beside each one, for losses that pull two states together."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recjax.data.batches.alterations import Alteration, Crop, Mask, Reorder
from recjax.data.batches.derived import Derived, with_more
from recjax.data.batches.hash_random import draw
from recjax.data.batches.histories import Histories, prefixes, shared
from recjax.data.batches.views import Batch, Placement, Relations, Samples
from recjax.data.ranges import exclusive_sum, ranges
from recjax.limits import refuse, require
from recjax.typing import InputError

Partners = Callable[[Placement, Batch, np.ndarray], dict[str, Any]]
"""(placement, batch, uint64 [k] keys of its samples) -> the partners' arrays by name, see `Partnered`."""


@dataclass(frozen=True)
class SameTarget:
    """Another sample with the same target, of any user, drawn anew in every epoch.

    Over prefixes: another prefix that ends in the same item (ICSRec's coarse intent). A sample whose target no other
    sample has gets an empty row and the weight 0.

    Attributes:
        slots: over whole histories with a target at every position: a position is drawn for each sample, and its
            partner is another prefix, of any history, that ends in the target there. It costs one partner a history
            instead of one a prefix. The array `places`, int32 [rows], holds the columns drawn.
    """

    slots: bool = False

    def open(self, view: Any, samples: Samples, n_items: int, seed: int, relations: Relations) -> Partners:
        if not self.slots:
            drawn = _SameTarget(samples, n_items)
            return lambda placement, batch, keys: drawn(placement, placement.samples, keys)
        whole, every = samples.histories.lengths, prefixes(samples.histories)
        opened = view.open(every, n_items, seed, relations)
        if (samples.lengths >= np.maximum(whole, 1)).any() or len(opened.lengths) != len(every):
            raise InputError(
                f"slots needs a next-item view of whole histories, such as Shifted, not {type(view).__name__}"
            )
        # Token j of a sample of l tokens predicts event whole - l + j of its history: the prefix that ends there is
        # number whole - l + j - 1 of the history's whole - 1 prefixes.
        before = exclusive_sum(np.maximum(whole - 1, 0))[:-1] + whole - 1 - samples.lengths
        drawn = _SameTarget(opened, n_items)

        def partners(placement: Placement, batch: Batch, keys: np.ndarray) -> dict[str, Any]:
            slots = (draw(0, keys) % placement.lengths.astype(np.uint64)).astype(np.int64)
            places = np.zeros(placement.rows, np.int32)
            places[placement.starts // placement.row_length] = slots
            return drawn(placement, before[placement.samples] + slots, draw(1, keys)) | {"places": places}

        return partners


class _SameTarget:
    """Draws of other samples with the same target, and their rows."""

    def __init__(self, samples: Samples, n_items: int):
        self.samples = samples
        histories, lengths = samples.histories, samples.lengths
        used = np.flatnonzero(lengths > 0)
        self.targets = targets = np.zeros(len(lengths), np.int32)
        targets[used] = shared(histories.items, histories.stops[used] - 1)
        self.alike = used[np.argsort(targets[used], kind="stable")].astype(np.int32)  # samples, target after target
        self.first = exclusive_sum(np.bincount(targets[used], minlength=n_items + 1))
        self.rank = np.empty(len(lengths), np.int32)
        self.rank[self.alike] = ranges(0, np.diff(self.first))

    def __call__(self, placement: Placement, samples: np.ndarray, keys: np.ndarray) -> dict[str, Any]:
        """Rows of the partners of `samples`, each in the row of its placement."""
        target = self.targets[samples]
        others = self.first[target + 1] - self.first[target] - 1
        found = np.flatnonzero(others)
        drawn = (keys[found] % others[found].astype(np.uint64)).astype(np.int64)
        drawn += drawn >= self.rank[samples[found]]
        mates = self.alike[self.first[target[found]] + drawn]
        place = replace(
            placement,
            samples=mates,
            lengths=self.samples.lengths[mates],
            starts=placement.starts[found],
            segments=placement.segments[found],
            epochs=placement.epochs[found],
        )
        rows = self.samples.fill(place)
        return {name: getattr(rows, name) for name in _names(rows)} | {"weights": _weights(place)}


@dataclass(frozen=True)
class AlteredCopy:
    """Copy of the sample's own input, altered in one of several ways, drawn anew in every epoch (CL4SRec; SRA-CL).

    Attributes:
        ways: how; one of them is drawn for each sample.
    """

    ways: tuple[Any, ...] = (Crop(), Mask(), Reorder())

    def __post_init__(self) -> None:
        require(self)
        if not self.ways:
            refuse(self, "ways", "one alteration or more")

    def open(self, view: Any, samples: Samples, n_items: int, seed: int, relations: Relations) -> Partners:
        ways: tuple[Alteration, ...] = self.ways
        for way in ways:
            way.check(n_items, relations)

        def partners(placement: Placement, batch: Batch, keys: np.ndarray) -> dict[str, Any]:
            which = draw(0, keys) % np.uint64(len(ways))
            old = {name: np.asarray(getattr(batch, name)).reshape(-1) for name in _names(batch)}
            new = {name: np.zeros_like(array) for name, array in old.items()}
            for number, way in enumerate(ways):
                here = np.flatnonzero(which == number)
                starts, lengths = placement.starts[here], placement.lengths[here]
                tokens = ranges(starts, lengths)
                places, items, changed = way(old["items"][tokens], lengths, draw(1, keys[here]), relations)
                write = ranges(starts, changed)
                numbered = ranges(starts + lengths - changed, changed) if view.align == "right" else write
                new["items"][write] = items
                new["segments"][write] = 1
                new["positions"][write] = old["positions"][numbered]
                if "timestamps" in new:
                    new["timestamps"][write] = old["timestamps"][tokens[places]]
            arrays = {name: array.reshape(batch.items.shape) for name, array in new.items()}
            return arrays | {"weights": _weights(placement)}

        return partners


def _names(batch: Batch) -> list[str]:
    """Names of the arrays that a partner has as the batch itself has them."""
    return ["items", "segments", "positions"] + ["timestamps"] * (batch.timestamps is not None)


def _weights(placement: Placement) -> np.ndarray:
    """float32 [rows], 1 for the rows that hold something."""
    weights = np.zeros(placement.rows, np.float32)
    weights[placement.starts // placement.row_length] = 1.0
    return weights


@dataclass(frozen=True)
class Partnered(Derived):
    """Each sample with a partner beside it, row by row, in `Batch.more`.

    With the default name: `partner_items`, `partner_segments` and `partner_positions`, int32 [rows, length], as the
    batch's own; `partner_timestamps`, where the view carries times; `partner_weights`, float32 [rows], 0 where the
    sample has no partner. Losses on pairs want one state a row, so each sample has a row of its own: it needs
    data.pack=false. Two partners of different names are drawn independently:
    `Partnered(Partnered(view, AlteredCopy(), "first"), AlteredCopy(), "second")`.

    Attributes:
        view: of the samples.
        partner: which partner.
        name: of the arrays.
    """

    partner: SameTarget | AlteredCopy = field(default_factory=SameTarget)
    name: str = "partner"

    @property
    def packing(self) -> bool:
        return False

    def open(self, histories: Histories, n_items: int, seed: int, relations: Relations | None = None) -> Samples:
        samples = self.view.open(histories, n_items, seed, relations)
        partners = self.partner.open(self.view, samples, n_items, seed, relations or {})
        stream = zlib.crc32(self.name.encode())

        def fill(placement: Placement) -> Batch:
            batch = samples.fill(placement)
            keys = draw(seed, stream, placement.epochs, placement.samples)
            arrays = partners(placement, batch, keys)
            return with_more(batch, **{f"{self.name}_{name}": array for name, array in arrays.items()})

        return replace(samples, fill=fill)
