"""The fingerprint of a dataset: a hash of its canonical content, printed beside every result."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Content:
    """One column of users or events in its canonical form, in pieces.

    Attributes:
        size: bytes in all.
        pieces: the bytes, in the order of the users.
    """

    size: int
    pieces: Iterable[bytes]


def fingerprint(
    user_ids: list[str],
    item_ids: list[str],
    offsets: np.ndarray,
    items: np.ndarray,
    timestamps: np.ndarray,
    values: np.ndarray | None,
    catalog: pl.DataFrame,
) -> str:
    """sha256 (hex) of the content, independent of machine, library versions, column order and files."""
    sizes, texts = encode_texts(user_ids)
    columns = {
        "users": (sizes + texts),
        "offsets": offsets.astype("<i8").tobytes(),
        "events": items.astype("<i4").tobytes(),
        "times": timestamps.astype("<i8").tobytes(),
    }
    if values is not None:
        columns["values"] = canonical_values(values).tobytes()
    return fingerprint_of_pieces(
        {label: Content(len(data), [data]) for label, data in columns.items()}, item_ids, catalog
    )


def fingerprint_of_pieces(columns: dict[str, Content], item_ids: list[str], catalog: pl.DataFrame) -> str:
    """The same, of columns too long for one machine's memory.

    Args:
        columns: `users` (the sizes of all ids, then their texts, see `encode_texts`), `offsets`, `events`, `times` and,
            where there are ratings, `values`.
        item_ids: as in `fingerprint`.
        catalog: as in `fingerprint`.
    """
    digest = hashlib.sha256(b"recjax dataset 1")

    def add(label: str, content: Content) -> None:
        digest.update(f"{label}:{content.size};".encode())
        for piece in content.pieces:
            digest.update(piece)

    def add_texts(label: str, texts: Sequence[str | None]) -> None:
        sizes, data = encode_texts(texts)
        add(label, Content(len(sizes) + len(data), [sizes, data]))

    add("users", columns["users"])
    add_texts("items", item_ids)
    for label in ("offsets", "events", "times", "values"):
        if label in columns:
            add(label, columns[label])
    for column in sorted(catalog.columns):
        texts = catalog[column].to_list()
        add_texts(
            f"catalog {column}",
            [text if text is None or isinstance(text, str) else json.dumps(text, default=str) for text in texts],
        )
    return digest.hexdigest()


def encode_texts(texts: Sequence[str | None]) -> tuple[bytes, bytes]:
    """The sizes of some texts in bytes (int64, -1 = none), and the texts one after another."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    sizes = np.array([-1 if text is None else len(data) for text, data in zip(texts, encoded, strict=True)], "<i8")
    return sizes.tobytes(), b"".join(encoded)


def canonical_values(values: np.ndarray) -> np.ndarray:
    """float32 with one bit pattern for every NaN."""
    return np.where(np.isnan(values), np.float32("nan"), values).astype("<f4")
