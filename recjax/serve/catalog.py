"""Items by raw id, and search by title."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

NEAREST, SIMILAR, LOOKED_AT = 3, 0.6, 100_000
"""Ids named beside an unknown one, the least similarity of them (1 = equal), and the first ids that are compared."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """Raw ids, titles and popularity of the items; item number i is entry i - 1 of each.

    Attributes:
        ids: raw ids.
        titles: "" where an item has none.
        counts: int64 [items], events of each.
    """

    ids: list[str]
    titles: list[str]
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def number(self, raw: str) -> int:
        """Number of a raw id, from 1; 0 for one that the catalog does not have."""
        return self._numbers.get(raw, 0)

    def nearest(self, raw: str) -> list[str]:
        """Ids of the catalog that look like an unknown one, the most similar first."""
        found = process.extract(
            raw[:200],
            self.ids[:LOOKED_AT],
            scorer=Levenshtein.normalized_similarity,
            limit=NEAREST,
            score_cutoff=SIMILAR,
        )
        return [near for near, _, _ in found]

    def popular(self, most: int, hidden: Sequence[int] = (), allowed: np.ndarray | None = None) -> np.ndarray:
        """Numbers of the items with most events, int64 [most or fewer].

        Args:
            most: length of the list.
            hidden: numbers that are left out.
            allowed: bool [items + 1], the only items that may be listed, or None for all.
        """
        order = self._by_popularity
        keep = np.ones(len(self) + 1, bool) if allowed is None else allowed.copy()
        keep[np.asarray(hidden, np.int64)] = False
        return order[keep[order]][:most]

    def search(self, text: str, most: int) -> np.ndarray:
        """Numbers of the items whose title has every word of a text, or whose id is the text: int64 [most or fewer].

        Words may be parts of words, letters may be of either case. An item of that id comes first, then titles that
        begin with the text, then others, popular ones first.
        """
        text = " ".join(text.lower().split())
        if not text:
            return self._by_popularity[:most]
        found = pl.Series([True]).new_from_index(0, len(self)) if len(self) else pl.Series([], dtype=pl.Boolean)
        for word in text.split():
            found &= self._lower_titles.str.contains(word, literal=True)
        same = self._lower_ids == text
        rows = np.flatnonzero((found | same).to_numpy())
        starts = self._lower_titles.str.starts_with(text).to_numpy()[rows]
        order = np.lexsort((rows, -self.counts[rows], ~starts, ~same.to_numpy()[rows]))
        return rows[order][:most] + 1

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {raw: number for number, raw in enumerate(self.ids, start=1)}

    @cached_property
    def _by_popularity(self) -> np.ndarray:
        return np.argsort(-self.counts, kind="stable") + 1

    @cached_property
    def _lower_titles(self) -> pl.Series:
        return pl.Series(self.titles, dtype=pl.String).str.to_lowercase()

    @cached_property
    def _lower_ids(self) -> pl.Series:
        return pl.Series(self.ids, dtype=pl.String).str.to_lowercase()
