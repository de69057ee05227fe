"""The space in which texts of items are compared: vectors of one or several encoders, side by side."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recjax.limits import above, refuse, require, within
from recjax.text import array_cache
from recjax.text.hashed import Hashed
from recjax.text.sketch import Sketch
from recjax.text.vectors import item_vectors
from recjax.text.whiten import SHRINKAGE, whitened

NEIGHBOURS = 10
"""Nearest items that an item's density is the mean similarity to."""

SAMPLE = 20_000
"""Most items among which nearest ones are looked for."""


@dataclass(frozen=True)
class Channel:
    """One encoder's part of the space.

    Attributes:
        encoder: `SentenceEncoder`, `Hashed` or `Sketch`.
        weight: share of its similarity in the sum.
        whiten: centre and whiten its vectors, catalog by catalog (see `recjax.text.whiten`); only scaled to length 1
            otherwise.
    """

    encoder: Any
    weight: float = 1.0
    whiten: bool = True

    def __post_init__(self) -> None:
        require(self, weight=above(0))


@dataclass(frozen=True, eq=False)
class SpaceVectors:
    """A catalog in a text space; row 0 is padding.

    Attributes:
        vectors: float32 [items + 1, d]; zeros where `known` is False.
        known: bool [items + 1], the items that have a text.
        widths: columns of each channel.
        fingerprint: of encoders and texts.
    """

    vectors: np.ndarray
    known: np.ndarray
    widths: tuple[int, ...]
    fingerprint: str


@dataclass(frozen=True)
class TextSpace:
    """Similarity of two items is the weighted sum of their similarities in each channel.

    Attributes:
        channels: what is compared.
        shrinkage: of the whitening.
    """

    channels: tuple[Channel, ...] = (Channel(Hashed(256)), Channel(Sketch(512), 0.3, whiten=False))
    shrinkage: float = SHRINKAGE

    def __post_init__(self) -> None:
        require(self, shrinkage=within(0, 1))
        if not self.channels:
            refuse(self, "channels", "at least one encoder")

    @property
    def encoders(self) -> str:
        """Encoders of the channels, for reports: names of folders, or classes of those that read none."""
        each = (channel.encoder for channel in self.channels)
        return ", ".join(getattr(encoder, "folder", type(encoder).__name__) for encoder in each)

    def vectors(self, catalog: pl.DataFrame, cache: Path | None = None, *, progress: bool = False) -> SpaceVectors:
        """The vectors of a catalog; arguments as in `recjax.text.vectors.item_vectors`.

        Items that no channel knows are not `known`; one that some channels know has zeros in the others.
        """
        parts, known, prints = [], [], []
        for channel in self.channels:
            found = item_vectors(channel.encoder, catalog, cache, progress=progress)
            rows = whitened(found.vectors, found.known, self.shrinkage) if channel.whiten else unit(found.vectors)
            parts.append(rows * np.float32(channel.weight**0.5))
            known.append(found.known)
            prints.append(found.fingerprint)
        widths = tuple(part.shape[1] for part in parts)
        return SpaceVectors(np.concatenate(parts, axis=1), np.any(known, axis=0), widths, " ".join(prints))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, zeros kept: float32 [n, d]."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)


def density(
    vectors: np.ndarray,
    known: np.ndarray,
    cache: Path | None = None,
    *,
    neighbours: int = NEIGHBOURS,
    sample: int = SAMPLE,
) -> np.ndarray:
    """Density around each item: its mean similarity to the items nearest to it, float32 [n].

    An item amid many alike is near to everything that is near to them, and would stand in every list; dividing by a
    power of the density takes that back (hubness reduction by local scaling; Radovanovic et al. 2010). In catalogs
    above `sample` items, neighbours are looked for among a fixed random part, so the cost grows with items alone.

    Args:
        vectors: float [n, d].
        known: bool [n]; the others get the mean of these.
        cache: a folder in which densities are kept, one file for each list of vectors; None: not kept.
        neighbours: how many count.
        sample: most items to look among.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if cache is None:
        return _density(vectors, known, neighbours, sample)
    content = hashlib.sha256(f"recjax density 1 {vectors.shape} {neighbours} {sample} ".encode())
    content.update(vectors.data)
    content.update(np.ascontiguousarray(known).data)
    key = content.hexdigest()
    path = cache / f"density-{key[:16]}.safetensors"
    return array_cache.cached(path, key, lambda: {"density": _density(vectors, known, neighbours, sample)})["density"]


def _density(vectors: np.ndarray, known: np.ndarray, neighbours: int, sample: int) -> np.ndarray:
    rows = np.flatnonzero(known)
    result = np.ones(len(vectors), np.float32)
    if len(rows) < 2:
        return result
    among = rows if len(rows) <= sample else np.sort(np.random.default_rng(0).choice(rows, sample, replace=False))
    base = vectors[among]
    k = min(neighbours, len(among) - 1)
    for first in range(0, len(rows), 1024):
        part = rows[first : first + 1024]
        similar = vectors[part] @ base.T
        similar[part[:, None] == among[None]] = -np.inf
        result[part] = np.partition(similar, -k, axis=1)[:, -k:].mean(axis=1)
    result[rows] = np.maximum(result[rows], 0.05 * max(float(result[rows].mean()), 1e-3))
    result[rows] /= result[rows].mean()
    return result
