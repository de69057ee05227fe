"""Diagnostics of item codes: items that share a tuple, slots of which few codes are used."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import rich.box
from rich.table import Table


@dataclass(frozen=True)
class Diagnostics:
    """Statistics of the codes of a catalog; padding is not counted.

    Attributes:
        items: of the catalog.
        without_text: items whose vector is not known.
        distinct: tuples that some item has.
        largest_bucket: most items that share a tuple.
        colliding: items that share their tuple with another.
        beyond_identical: items that share their tuple with one of another text; what a tokenizer could have avoided.
        identical_texts: items whose text another item has too.
        sizes: codes there are in each slot.
        used: codes of each slot that some item has.
        perplexity: of each slot, exp of the entropy of its codes: as if so many codes were used equally often.
    """

    items: int
    without_text: int
    distinct: int
    largest_bucket: int
    colliding: int
    beyond_identical: int
    identical_texts: int
    sizes: tuple[int, ...]
    used: tuple[int, ...]
    perplexity: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def rows(self) -> list[tuple[str, str]]:
        """(what, how much), for a table."""

        def share(count: int) -> str:
            return f"{count:,} ({count / max(self.items, 1):.2%})"

        rows = [
            ("items", f"{self.items:,}"),
            ("without text", share(self.without_text)),
            ("distinct tuples", f"{self.distinct:,}"),
            ("largest bucket", f"{self.largest_bucket:,}"),
            ("items in a collision", share(self.colliding)),
            ("... beyond identical texts", share(self.beyond_identical)),
            ("items with a text that another has", share(self.identical_texts)),
        ]
        for slot, (size, used, perplexity) in enumerate(zip(self.sizes, self.used, self.perplexity, strict=True)):
            rows.append((f"slot {slot}", f"{used:,} of {size:,} codes, perplexity {perplexity:,.1f}"))
        return rows


def diagnose(
    codes: np.ndarray, sizes: Sequence[int], groups: np.ndarray | None = None, known: np.ndarray | None = None
) -> Diagnostics:
    """Diagnostics of codes.

    Args:
        codes: int [n + 1, slots], row 0 padding.
        sizes: codes there are in each slot.
        groups: int [n + 1], equal for items of equal text (see `groups_of`); by default all texts differ.
        known: bool [n + 1], whether an item has text; by default all do.
    """
    codes, items = codes[1:], len(codes) - 1
    groups = np.arange(items) if groups is None else groups[1:]
    bucket, counts = _numbered(codes)
    # A bucket goes beyond identical texts when it holds more than one (bucket, text) pair.
    _, texts = np.unique(groups, return_inverse=True)
    pairs = np.unique(np.stack([bucket, texts.reshape(-1)], axis=1), axis=0)[:, 0]
    used = [np.bincount(column, minlength=1) for column in codes.T]
    return Diagnostics(
        items=items,
        without_text=0 if known is None else int((~known[1:]).sum()),
        distinct=len(counts),
        largest_bucket=int(counts.max(initial=0)),
        colliding=int((counts[bucket] > 1).sum()),
        beyond_identical=int((np.bincount(pairs, minlength=len(counts))[bucket] > 1).sum()),
        identical_texts=int((np.bincount(texts.reshape(-1))[texts.reshape(-1)] > 1).sum()),
        sizes=tuple(int(size) for size in sizes),
        used=tuple(int((counts > 0).sum()) for counts in used),
        perplexity=tuple(_perplexity(counts) for counts in used),
    )


def groups_of(texts: Sequence[str | None] | np.ndarray) -> np.ndarray:
    """int64 [n + 1], equal numbers for equal entries, 0 for padding.

    Args:
        texts: of items 1 .. n; or vectors [n + 1, d] with row 0 padding, where equal vectors stand for equal texts.
    """
    if isinstance(texts, np.ndarray):
        numbers = _numbered(texts[1:])[0]
    else:
        _, numbers = np.unique(np.array([text or "" for text in texts], dtype=object), return_inverse=True)
    return np.concatenate([[0], numbers.reshape(-1) + 1])


def diagnostics_table(title: str, **columns: Diagnostics) -> Table:
    """One column for each of several diagnostics, such as those before and after collisions are resolved."""
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    rows = [dict(diagnostics.rows()) for diagnostics in columns.values()]
    for name in dict.fromkeys(name for row in rows for name in row):
        table.add_row(name, *(row.get(name, "") for row in rows))
    return table


def _numbered(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each row, equal for equal rows, and how often each number occurs."""
    if not len(rows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # -0.0 and 0.0 are equal, but their bytes are not.
    rows = np.ascontiguousarray(rows + np.zeros((), rows.dtype))
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return numbers.reshape(-1), counts


def _perplexity(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-np.sum(shares * np.log(shares))))
