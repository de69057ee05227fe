"""Partners of samples: a second sequence beside each one, for losses that pull two states together."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from recjax.data.alterations import Alteration, Crop, Mask, Reorder
from recjax.data.derived import Derived, with_more
from recjax.data.draws import draw
from recjax.data.histories import Histories, shared
from recjax.data.ranges import exclusive_sum, ranges
from recjax.data.views import Align, Batch, Placement, Relations, Samples
from recjax.typing import InputError

Partners = Callable[[Placement, Batch, np.ndarray], tuple[Batch, np.ndarray]]
"""(placement, batch, uint64 [k] keys of its samples) -> rows of partners, float32 [rows] weights: 0 without partner."""


@dataclass(frozen=True)
class SameTarget:
    """Another sample with the same target, of any user, drawn anew in every epoch.

    Over prefixes: another prefix that ends in the same item (ICSRec's coarse intent). A sample whose target no other
    sample has gets an empty row and the weight 0.
    """

    def open(self, samples: Samples, align: Align, n_items: int, relations: Relations) -> Partners:
        histories, lengths = samples.histories, samples.lengths
        used = np.flatnonzero(lengths > 0)
        targets = np.zeros(len(lengths), np.int32)
        targets[used] = shared(histories.items, histories.stops[used] - 1)
        alike = used[np.argsort(targets[used], kind="stable")].astype(np.int32)  # samples, target after target
        first = exclusive_sum(np.bincount(targets[used], minlength=n_items + 1))
        rank = np.empty(len(lengths), np.int32)
        rank[alike] = ranges(0, np.diff(first))

        def partners(placement: Placement, batch: Batch, keys: np.ndarray) -> tuple[Batch, np.ndarray]:
            target = targets[placement.samples]
            others = first[target + 1] - first[target] - 1
            found = np.flatnonzero(others)
            drawn = (keys[found] % others[found].astype(np.uint64)).astype(np.int64)
            drawn += drawn >= rank[placement.samples[found]]
            mates = alike[first[target[found]] + drawn]
            place = replace(
                placement,
                samples=mates,
                lengths=lengths[mates],
                starts=placement.starts[found],
                segments=placement.segments[found],
                epochs=placement.epochs[found],
            )
            weights = np.zeros(placement.rows, np.float32)
            weights[place.starts // placement.row_length] = 1.0
            return samples.fill(place), weights

        return partners


@dataclass(frozen=True)
class AlteredCopy:
    """Copy of the sample's own input, altered in one of several ways, drawn anew in every epoch (CL4SRec; SRA-CL).

    Attributes:
        ways: how; one of them is drawn for each sample.
    """

    ways: tuple[Any, ...] = (Crop(), Mask(), Reorder())

    def __post_init__(self) -> None:
        if not self.ways:
            raise InputError("ways is empty, expected one alteration or more")

    def open(self, samples: Samples, align: Align, n_items: int, relations: Relations) -> Partners:
        ways: tuple[Alteration, ...] = self.ways
        for way in ways:
            way.check(n_items, relations)

        def partners(placement: Placement, batch: Batch, keys: np.ndarray) -> tuple[Batch, np.ndarray]:
            which = draw(0, keys) % np.uint64(len(ways))
            names = ["items", "segments", "positions"] + ["timestamps"] * (batch.timestamps is not None)
            old = {name: np.asarray(getattr(batch, name)).reshape(-1) for name in names}
            new = {name: np.zeros_like(array) for name, array in old.items()}
            for number, way in enumerate(ways):
                here = np.flatnonzero(which == number)
                starts, lengths = placement.starts[here], placement.lengths[here]
                tokens = ranges(starts, lengths)
                places, items, changed = way(old["items"][tokens], lengths, draw(1, keys[here]), relations)
                write = ranges(starts, changed)
                numbered = ranges(starts + lengths - changed, changed) if align == "right" else write
                new["items"][write] = items
                new["segments"][write] = 1
                new["positions"][write] = old["positions"][numbered]
                if "timestamps" in new:
                    new["timestamps"][write] = old["timestamps"][tokens[places]]
            weights = np.zeros(placement.rows, np.float32)
            weights[placement.starts // placement.row_length] = 1.0
            shape = batch.items.shape
            arrays: dict[str, Any] = {name: array.reshape(shape) for name, array in new.items()}
            return replace(batch, **arrays), weights

        return partners


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
        partners = self.partner.open(samples, self.align, n_items, relations or {})
        stream = zlib.crc32(self.name.encode())

        def fill(placement: Placement) -> Batch:
            batch = samples.fill(placement)
            keys = draw(seed, stream, placement.epochs, placement.samples)
            other, weights = partners(placement, batch, keys)
            arrays = {
                f"{self.name}_items": other.items,
                f"{self.name}_segments": other.segments,
                f"{self.name}_positions": other.positions,
                f"{self.name}_weights": weights,
            }
            if other.timestamps is not None:
                arrays[f"{self.name}_timestamps"] = other.timestamps
            return with_more(batch, **arrays)

        return replace(samples, fill=fill)
